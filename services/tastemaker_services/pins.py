"""Which bundle version the gateway answers from, by alias. It flips once all of the graph is ready.

A request keeps the pin that it took at its start, whatever flips meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from redis.asyncio import Redis as AsyncRedis

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.registry.live import LiveAliases, LiveVersion, read_live_async
from tastemaker.state.connection import state_errors
from tastemaker.state.items import ItemChanges, PutItems
from tastemaker.state.keys import Keys
from tastemaker_services.calls import StageError
from tastemaker_services.face import BundleFace, LiveFace
from tastemaker_services.versions import POLL_SECONDS, Versions, gone, living, ready_everywhere

CHAMPION = "champion"
STAGES = frozenset({"retriever", "ranker", "reranker"})
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pin:
    """A version that answers: its number in the registry, and the bundle."""

    version: int
    face: BundleFace


class Pins:
    """The gateway's pins. For one event loop; `get` never waits.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        load: Opens a version; slow, runs in a thread.
        warm_up: Sends a first request through the graph, so that users meet no cold handle.
        items: Read with every poll, in a thread; None where the catalogue stays as published.
    """

    def __init__(
        self,
        client: AsyncRedis,
        keys: Keys,
        load: Callable[[LiveVersion], BundleFace],
        warm_up: Callable[[BundleFace], Awaitable[None]],
        items: PutItems | None = None,
    ) -> None:
        self._client, self._keys, self._warm_up = client, keys, warm_up
        self._load, self._items = load, items
        self._faces: Versions[LiveFace] = Versions(self._open, keys.catalogue)
        self._pins: dict[str, Pin] = {}
        self._warm: set[str] = set()
        self.num_replicas: dict[str, int] = {}
        """Living replicas by stage, as of the last poll."""
        self._generation = telemetry.BUNDLE_GENERATION.labels(keys.catalogue)
        self.waiting_for: str | None = "the live aliases"
        """Why there is no champion to answer from yet; None once there is."""

    def get(self, alias: str) -> Pin | None:
        """What an alias answers from now; None where that is not ready."""
        return self._pins.get(alias)

    async def watch(self, after_poll: Callable[[], None]) -> None:
        """Polls until cancelled."""
        while True:
            try:
                await self.poll()
                after_poll()
            except StateError as error:
                log.warning("cannot read what is live: %s", error)
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Reads what is live and ready, once, and flips where all of the graph is ready.

        Raises:
            StateError: Redis/Valkey cannot be reached; the pins stay.
        """
        live = await read_live_async(self._client, self._keys)
        await asyncio.to_thread(self._refresh, live)
        reports = await self._read_reports()
        self.num_replicas = living(reports, _now_ms())
        aliases = live.aliases if live else {}
        for alias, version in sorted(aliases.items()):
            await self._flip(alias, version, reports)
        self._follow()
        for alias in set(self._pins) - set(aliases):
            del self._pins[alias]
        if live:
            self._generation.set(live.generation)
        self._explain(live)

    def _open(self, version: LiveVersion) -> LiveFace:
        live = LiveFace(self._load(version))
        if self._items is not None:
            live.take(self._items.everything())
        return live

    def _refresh(self, live: LiveAliases | None) -> None:
        """Brings the faces up to the catalogue's changes, and loads what became live."""
        changes = self._items.poll() if self._items is not None else ItemChanges()
        for sha256 in self._faces.held if changes else ():
            held = self._faces.get(sha256)
            assert held is not None, "this thread alone drops faces"
            held.take(changes)
        self._faces.refresh(live)

    def _follow(self) -> None:
        """Pins the newest faces; requests under way go on with theirs."""
        for alias, pin in self._pins.items():
            held = self._faces.get(pin.face.sha256)
            if held is not None and held.face is not pin.face:
                self._pins[alias] = Pin(pin.version, held.face)

    async def _read_reports(self) -> dict[str, str]:
        with state_errors("read which replicas are ready"):
            reports: dict[str, str] = await self._client.hgetall(self._keys.ready)  # type: ignore[misc]
            if old := gone(reports, _now_ms()):
                await self._client.hdel(self._keys.ready, *old)  # type: ignore[misc]
        return reports

    async def _flip(self, alias: str, version: LiveVersion, reports: dict[str, str]) -> None:
        pin = self._pins.get(alias)
        if pin is not None and (pin.version, pin.face.sha256) == (version.version, version.sha256):
            return
        held = self._faces.get(version.sha256)
        if held is None or not ready_everywhere(version.sha256, reports, STAGES, _now_ms()):
            return
        if version.sha256 not in self._warm:
            try:
                await self._warm_up(held.face)
            except StageError as error:
                log.warning("version %d of %s does not answer yet: %s", version.version, alias, error)
                return
            self._warm.add(version.sha256)
        self._pins[alias] = Pin(version.version, held.face)

    def _explain(self, live: LiveAliases | None) -> None:
        if CHAMPION in self._pins:
            self.waiting_for = None
        elif live is None or CHAMPION not in live.aliases:
            self.waiting_for = "an alias champion: promote a version"
        elif reason := self._faces.refused.get(live.aliases[CHAMPION].sha256):
            self.waiting_for = f"a champion that can be opened: {reason}"
        else:
            self.waiting_for = "every stage to load the champion"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
