"""The user, items and stages of a moment of the past, as a decision's record and the log of events tell of them: for replays.

What cannot be made as it was is said. Not for comparing answers: see `replaying`.
"""

from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.bundle.reader import Bundle
from tastemaker.config import Settings
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments.decision_log import Decision
from tastemaker.features.item_store import ItemFacts, ItemSnapshot, ItemStore
from tastemaker.features.known_events import state_events
from tastemaker.features.known_records import KnownRecords
from tastemaker.features.known_trending import known_trending
from tastemaker.features.trending import TRENDING, Trending
from tastemaker.features.user_state import Category
from tastemaker.home import Home
from tastemaker.stages.exploring import explores
from tastemaker.stages.live import LiveStages
from tastemaker.stages.policy import policy_of
from tastemaker.state.items import ItemChanges
from tastemaker.types import Candidates, Query
from tastemaker.users.profile import Profile
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.gateway.ladder import NO_SHARD
from tastemaker_services.gateway.queries import query_of
from tastemaker_services.gateway.questions import NOT_PERSONALISED
from tastemaker_services.gateway.users import User, past_hash
from tastemaker_services.web.schema import RecommendationRequest

_MOST_MOMENTS: Final = 200
_ROLL_UP_SECONDS: Final = 2.0
"""From an event's arrival until it is in the rankings, about: a second to take it, and one to add totals up."""
_LOWEST: Final = frozenset({"trending", "popular"})


class OwnList(NamedTuple):
    """What one of two variants would have shown alone; ids and scores best first."""

    variant: str
    bundle: str
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]

    def rank_of(self, item_id: str | None) -> int | None:
        """From 1; None for an item that is not in it."""
        return self.item_ids.index(item_id) + 1 if item_id in self.item_ids else None


class Answer(NamedTuple):
    """An answer that was made again, in the rows of a bundle, and the lists that were drawn into it, where it holds two variants' picks."""

    face: BundleFace
    slate: Candidates
    lists: tuple[OwnList, ...] = ()


def events_before(settings: Settings, home: Home, made: Decision) -> pa.Table:
    """What the log of events knew at the moment of a decision.

    Raises:
        DataError: A day cannot be read.
    """
    before = pc.field("received_ms") < made.timestamp_ms
    archived = read_days(home / "events" / made.catalogue, EVENT_SCHEMA, "event_id", before)
    return state_events(home, made.catalogue, archived, settings.state.late_days, before)


class Remade:
    """One decision's query and stages."""

    def __init__(self, settings: Settings, bundle: Bundle, made: Decision, notes: list[str]) -> None:
        self._settings, self._bundle, self._made, self._notes = settings, bundle, made, notes
        self._trending: Trending | None = None
        self._published = BundleFace.of(bundle, self._trends)
        self.face = self._published

    def know(self, events: pa.Table, profile: Profile, changes: ItemChanges, category: Category) -> None:
        """Makes user, items and stages of what was known at the moment of the decision.

        Args:
            events: `events_before` it.
            profile: The user's.
            changes: Items that were put.
            category: Of items.
        """
        moment = self._made.timestamp_ms
        facts = ItemFacts.from_items(self._bundle.table("items.parquet"))
        known = KnownRecords(events, events["received_ms"].to_numpy(), facts, category=category)
        self._live = LiveStages(
            self._bundle, store_of=lambda own: _store_at(known, own, moment), trending=self._trends
        )
        self._trends_at = partial(self._known_trends, events, category)
        if self.reads_trends:
            self._trending = self._trends_at(moment)
        face = LiveFace(self._published)
        if changes:
            self._live.take(changes)
            face.take(changes)
        self.face = face.face
        self._user = self._user_of(known, profile)
        self._query = self._query_under(self._made.policy)

    @property
    def reads_trends(self) -> bool:
        """Whether what trended at the moment has a part in the answer."""
        return TRENDING in self._live.pipeline.source_names or bool({*self._made.rungs} & _LOWEST)

    def trend_as_read_early(self) -> None:
        """Has what trended be of the earliest moment at which it can have been read for the answer."""
        self._trending = self._trends_at(self._made.timestamp_ms - round(1000 * self._late_seconds))

    @property
    def _late_seconds(self) -> float:
        """How much older what trends may be than an answer that reads it."""
        return self._settings.trending.refresh_seconds + _ROLL_UP_SECONDS

    def _trends(self) -> Trending | None:
        return self._trending

    def _known_trends(self, events: pa.Table, category: Category, moment_ms: int) -> Trending | None:
        settings, window = self._settings.trending, self._settings.state.trend_window
        found = known_trending(events, moment_ms, category, window, settings.country_prior)
        return found if found.weight >= settings.least_weight else None

    def _user_of(self, known: KnownRecords, profile: Profile) -> User:
        """The user whose past is the one that was read: as of the answer, or of a moment before it that has the hash."""
        made, length = self._made, self._settings.state.history_length
        if not made.past_hash:
            return User([], known.user("", 0), b"", b"", profile)
        ends = made.timestamp_ms
        moments = [ends, *reversed(known.changes(made.user_id, 0, ends)[-_MOST_MOMENTS:])]
        newest: User | None = None
        for moment in moments:
            state = known.user(made.user_id, moment)
            history = known.history(made.user_id, moment, length)
            user = User(history, state, b"", state.encode(), profile)
            if past_hash(user) == made.past_hash:
                return user
            newest = newest or user
        assert newest is not None, "there is one moment at least"
        self._notes.append(
            "the user's past is not exactly the one that was read: it is made of the log as it was known then"
        )
        return newest

    def _query_under(self, policy: str) -> Query:
        made, user = self._made, self._user
        asked = RecommendationRequest.model_validate_json(made.request)
        request = asked.model_copy(update={"user_id": made.user_id, "k": made.k})
        reader: User | None = user if request.personalise else NOT_PERSONALISED
        if "no-history" in made.rungs:
            reader = None
        elif "no-record" in made.rungs:
            reader = user._replace(state=None, record=b"")
        query = query_of(
            request, reader, self.face, made.catalogue, history_length=self._settings.state.history_length,
            now_ms=made.timestamp_ms, policy=policy,
        )  # fmt: skip
        luck = replace(query, seed=made.seed, explore=made.origin == "live")
        return replace(luck, long_term_only="base-vector" in made.rungs)

    def slate(self) -> Candidates:
        """The list by the rungs that were used."""
        rungs, query, pipeline = {*self._made.rungs}, self._query, self._live.pipeline
        if rungs & _LOWEST:
            return self.face.trending(query) if "trending" in rungs else self.face.popular(query)
        until = policy_of(query.policy).until
        (found,) = pipeline.retrieve([query])
        if "retrieval-order" not in rungs and until != "retrieve":
            (found,) = pipeline.rank([query], [found])
            if "no-rerank" not in rungs and until != "rank":
                (found,) = pipeline.rerank([query], [found])
        return self.face.finish(query, found)

    def answer(self) -> Answer:
        """The list, as it was answered."""
        return Answer(self.face, self.slate())

    def allowed_under(self, policy: str, slate: Candidates) -> Candidates:
        """What the request's hard rules, and those of another policy, leave of a list."""
        return self.face.finish(self._query_under(policy), slate)

    def reasons(self) -> list[str]:
        """Why the answers may differ."""
        found = []
        config = self._live.pipeline.config
        if self.reads_trends:
            found.append(
                "what trended is made of the log of events as of the answer, which read a list of up to "
                f"{self._late_seconds:g} s before"
            )
        if config.hydration.request_features:
            found.append("items' counters were read from totals that may be some seconds older than the log")
        if self._made.cached_from is not None or "cached" in self._made.rungs:
            found.append("the list was kept, or computed ahead")
        if explores(self._query, config.exploration):
            found.append("which new item got its slot went by how often those had been shown and clicked")
        if NO_SHARD in self._made.rungs:
            found.append("a part of the catalogue was not searched, since its retriever did not answer")
        if "no-source" in self._made.rungs:
            found.append("a source did not answer in time")
        return [*found, "stages of another release of Tastemaker may answer otherwise"]


def _store_at(known: KnownRecords, facts: ItemFacts, moment_ms: int) -> ItemStore:
    """The items' rows by what was known of them at a moment."""
    rows = known.candidates(np.arange(len(facts), dtype=np.int32), moment_ms)
    store = ItemStore(facts)
    store.snapshot = ItemSnapshot(1, facts, rows.counters, rows.popularity)
    return store
