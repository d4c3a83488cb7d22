"""Which bundle version the gateway answers from, by alias. It flips once all of the graph is ready.

A request keeps the pin that it took at its start, whatever flips meanwhile.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from redis.asyncio import Redis as AsyncRedis

from tastemaker import telemetry
from tastemaker.errors import StateError, TastemakerError
from tastemaker.experiments.definition import version_in
from tastemaker.registry.live import CHAMPION, LiveAliases, LiveVersion, read_live_async
from tastemaker.registry.reports import GATEWAY, Report, gone, living, ready_everywhere
from tastemaker.stages.merging import Merging
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.versions.held import POLL_SECONDS, RETRY_SECONDS, refusal_of
from tastemaker_services.versions.keeping import Keeper

STAGES = frozenset({"retriever", "ranker", "reranker"})
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pin:
    """A version that answers: its number in the registry, and the bundle."""

    version: int
    face: BundleFace


class Try(Protocol):
    """Sends first requests through the graph: `warm_up.WarmUp` in practice."""

    def __call__(self, face: BundleFace, *, may_be_slow: bool) -> Awaitable[None]:
        """Lets pass a version that answers; UnfitError or StageError where it does not."""
        ...


class Pins:
    """The gateway's pins. For one event loop; `get` never waits.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        faces: What the gateway keeps of versions; polled in a thread.
        warm_up: Tries a version before the first user does.
        stages: Names of those that must tell that they hold a version before it answers.
    """

    def __init__(
        self,
        client: AsyncRedis,
        keys: Keys,
        faces: Keeper[LiveFace],
        warm_up: Try,
        stages: frozenset[str] = STAGES,
    ) -> None:
        self._client, self._keys, self._keeper, self._stages = client, keys, faces, stages
        self._faces = faces.versions
        self._trials = _Trials(warm_up, keys.catalogue)
        self._pins: dict[str, Pin] = {}
        self._name = f"{GATEWAY}/{uuid4().hex[:12]}"
        self.num_replicas: dict[str, int] = {}
        """Living replicas by stage, as of the last poll."""
        self._catalogue = keys.catalogue
        self._generation = telemetry.BUNDLE_GENERATION.labels(keys.catalogue)
        self.waiting_for: str | None = "the live aliases"
        """Why there is no champion to answer from yet; None once there is."""

    def get(self, alias: str) -> Pin | None:
        """What an alias answers from now; None where that is not ready. `version:7` is any alias of version 7."""
        number = version_in(alias)
        if number is None:
            return self._pins.get(alias)
        return next((pin for pin in self._pins.values() if pin.version == number), None)

    def serves_item(self, item_id: str) -> bool:
        """Whether an item is known to what any alias answers from."""
        return any(pin.face.row_of(item_id) is not None for pin in self._pins.values())

    def merging_of(self, sha256: str) -> Merging | None:
        """How a version puts together what shards of retrieval say; None for one that is not held."""
        held = self._faces.get(sha256)
        return None if held is None else held.face.merging

    async def watch(self, after_poll: Callable[[], Awaitable[None]]) -> None:
        """Polls until cancelled."""
        while True:
            try:
                await self.poll()
                await after_poll()
            except StateError as error:
                log.warning("cannot read what is live: %s", error)
            await asyncio.sleep(POLL_SECONDS)

    async def poll(self) -> None:
        """Reads what is live and ready, once, and flips where all of the graph is ready.

        Raises:
            StateError: Redis/Valkey cannot be reached; the pins stay.
        """
        live = await read_live_async(self._client, self._keys)
        await asyncio.to_thread(self._keeper.poll, live)
        reports = await self._exchange(live)
        self.num_replicas = living(reports, _now_ms())
        self._tell_replicas()
        aliases = live.aliases if live else {}
        for alias, version in sorted(aliases.items()):
            self._flip(alias, version, reports)
        self._follow()
        for alias in set(self._pins) - set(aliases):
            del self._pins[alias]
            self._tell_version(alias)
        self._trials.forget(self._faces.held)
        if live:
            self._generation.set(live.generation)
        self._explain(live)

    async def leave(self) -> None:
        """Tells of this gateway no more, so that nobody waits for it."""
        with suppress(StateError), state_errors("leave"):
            await self._client.hdel(self._keys.ready, self._name)  # type: ignore[misc]

    def _follow(self) -> None:
        """Pins the newest faces; requests under way go on with theirs."""
        for alias, pin in self._pins.items():
            held = self._faces.get(pin.face.sha256)
            if held is not None and held.face is not pin.face:
                self._pins[alias] = Pin(pin.version, held.face)

    async def _exchange(self, live: LiveAliases | None) -> dict[str, str]:
        """Tells of this gateway, and reads what all have told."""
        answers = {alias: pin.version for alias, pin in self._pins.items()}
        report = Report(
            live.generation if live else 0, tuple(self._faces.held), _now_ms(),
            self._faces.refused | self._trials.refused, answers,
        )  # fmt: skip
        with state_errors("tell and read which replicas are ready"):
            await self._client.hset(self._keys.ready, self._name, report.encode())  # type: ignore[misc]
            reports: dict[str, str] = await self._client.hgetall(self._keys.ready)  # type: ignore[misc]
            if old := gone(reports, _now_ms()):
                await self._client.hdel(self._keys.ready, *old)  # type: ignore[misc]
        return reports

    def _flip(self, alias: str, version: LiveVersion, reports: dict[str, str]) -> None:
        pin = self._pins.get(alias)
        if pin is not None and (pin.version, pin.face.sha256) == (version.version, version.sha256):
            return
        held = self._faces.get(version.sha256)
        if held is None or not ready_everywhere(version.sha256, reports, self._stages, _now_ms()):
            return
        if self._trials.passed(version, held.face, may_be_slow=pin is None):
            self._pins[alias] = Pin(version.version, held.face)
            self._tell_version(alias)

    def _tell_replicas(self) -> None:
        for stage in self._stages | self.num_replicas.keys():
            telemetry.REPLICAS.labels(self._catalogue, stage).set(self.num_replicas.get(stage, 0))

    def _tell_version(self, alias: str) -> None:
        pin = self._pins.get(alias)
        telemetry.BUNDLE_VERSION.labels(self._catalogue, alias).set(pin.version if pin else 0)
        telemetry.BUNDLE_CREATED.labels(self._catalogue, alias).set(pin.face.created_seconds if pin else 0)

    def _explain(self, live: LiveAliases | None) -> None:
        if CHAMPION in self._pins:
            self.waiting_for = None
        elif live is None or CHAMPION not in live.aliases:
            self.waiting_for = "an alias champion: promote a version"
        elif reason := (self._faces.refused | self._trials.refused).get(live.aliases[CHAMPION].sha256):
            self.waiting_for = f"a champion that can be opened: {reason}"
        else:
            self.waiting_for = "every stage to load the champion"


class _Trials:
    """Warm-ups, beside the polls: one that hangs keeps no other alias from flipping.

    Args:
        warm_up: See `Pins`.
        catalogue: For the count of refused versions.
    """

    def __init__(self, warm_up: Try, catalogue: str) -> None:
        self._warm_up, self._catalogue = warm_up, catalogue
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._warm: set[str] = set()
        self._refused: dict[str, tuple[float, str]] = {}

    @property
    def refused(self) -> dict[str, str]:
        """Why a version that is held does not answer, by manifest hash."""
        return {sha256: reason for sha256, (_, reason) in self._refused.items()}

    def passed(self, version: LiveVersion, face: BundleFace, *, may_be_slow: bool) -> bool:
        """Whether a version has been tried and is fit; begins the trial where there was none."""
        sha256 = version.sha256
        if sha256 in self._warm:
            return True
        again, _ = self._refused.get(sha256, (0.0, ""))
        if sha256 not in self._under_way and time.monotonic() >= again:
            trial = asyncio.get_running_loop().create_task(self._try(version, face, may_be_slow))
            self._under_way[sha256] = trial
            trial.add_done_callback(lambda _: self._under_way.pop(sha256))
        return False

    def forget(self, held: list[str]) -> None:
        """Versions that are held no longer are tried anew when they come again."""
        self._warm &= set(held)
        for sha256 in set(self._refused) - set(held):
            del self._refused[sha256]

    async def _try(self, version: LiveVersion, face: BundleFace, may_be_slow: bool) -> None:
        try:
            await self._warm_up(face, may_be_slow=may_be_slow)
        except StageError as error:
            self._refuse(version, error, POLL_SECONDS)
        except Exception as error:
            if not isinstance(error, TastemakerError):
                log.exception("the trial of version %d failed", version.version)
            telemetry.BUNDLE_REFUSED.labels(self._catalogue, refusal_of(error)).inc()
            self._refuse(version, error, RETRY_SECONDS)
        else:
            self._warm.add(version.sha256)
            self._refused.pop(version.sha256, None)

    def _refuse(self, version: LiveVersion, error: Exception, retry_seconds: float) -> None:
        log.warning("version %d does not answer: %s", version.version, error)
        self._refused[version.sha256] = time.monotonic() + retry_seconds, f"{type(error).__name__}: {error}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
