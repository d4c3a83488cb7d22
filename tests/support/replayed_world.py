"""The gateway's world over a real Valkey, consumer and archive, whose answers are made again."""

from collections.abc import Sequence
from typing import Any

from pages_kept import KeptPages
from piped_world import PipedWorld
from streams import make_consumer

from tastemaker.bundle.reader import Bundle
from tastemaker.experiments.decision_log import Decision, append_decision
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.stages.live import LiveStages
from tastemaker.state.connection import connect_async
from tastemaker_services.gateway.users import User, read_user
from tastemaker_services.replaying import Replay, Replayer


class ReplayedWorld(PipedWorld):
    """Users come from Valkey, and decisions go there."""

    def __init__(self, state: Any, bundle: Bundle) -> None:
        self.state = state
        super().__init__(bundle, LiveStages(bundle, store_of=self._store))
        self.pages = KeptPages()
        self.settings = state.settings.model_copy(update={"gateway": self.settings.gateway})

    def beside(self, alias: str, bundle: Bundle) -> None:
        """Serves another bundle too, by the same totals."""
        self.add(alias, bundle, LiveStages(bundle, store_of=self._store))

    def _store(self, facts: ItemFacts) -> ItemStore:
        store = ItemStore(facts)
        store.refresh(self.state.client, self.state.keys)
        return store

    async def read_user(self, user_id: str) -> User:
        client = connect_async(self.state.url, text=False)
        try:
            return await read_user(client, self.state.keys, user_id)
        finally:
            await client.aclose()

    async def append(self, decisions: Sequence[Decision]) -> int:
        for decision in decisions:
            append_decision(self.state.client, self.state.keys, decision, self.state.settings.state)
        self.decisions += decisions
        return len(decisions)

    def answer(self, user_id: str = "ann", **fields: Any) -> dict[str, Any]:
        """An answer whose decision, and all events before it, are archived."""
        found = self.recommend(user_id, **{"k": 6} | fields)
        consume(self.state)
        return found

    def replay(self, request_id: str) -> Replay:
        settings = self.settings.model_copy(update={"catalogue": self.state.keys.catalogue})
        return Replayer(settings, self.state.home, self.state.client, self.state.keys).replay(request_id)


def consume(state: Any) -> None:
    worker = make_consumer(state)
    assert worker.drain(20.0)
    worker.close()


def described(replay: Replay) -> list[str]:
    return [f"{s.logged} {s.logged_score} {s.replayed} {s.replayed_score}" for s in replay.differing]
