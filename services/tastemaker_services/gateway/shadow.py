"""Mirrors requests to the alias shadow after they were answered. What it answers is logged and compared, never shown.

A shadow's stages run in threads and message queues of their own, so one that hangs or fails holds up nothing but itself;
they begin only while no request is under way here, and what finds no such moment in time is dropped.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

from tastemaker import telemetry
from tastemaker.config_serving import ServingSettings
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.decision_log import SHADOW_FAILED, Decision
from tastemaker.types import Candidates, Origin, Query
from tastemaker_services.gateway.answers import decision_of
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.ladder import Call
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.versions.giving_way import quiet_moment

ALIAS: Final = "shadow"
AFTER_SECONDS: Final = 0.02
"""From the end of a request's stages: its answer is on its way by then."""
PATIENCE_SECONDS: Final = 1.0
"""How long a stage of the shadow waits for a moment without requests."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered. `again` makes its query in another bundle's rows."""

    request_id: str
    now_ms: int
    origin: Origin
    face: BundleFace
    query: Query
    slate: Candidates
    again: Callable[[BundleFace], Query]

    @property
    def item_ids(self) -> list[str]:
        """What was shown."""
        return [self.face.item_ids[row] for row in self.slate.item_index]


class Shadow:
    """The shadow of one gateway. For one event loop.

    Args:
        settings: What share is mirrored, and how many requests at once.
        catalogue: For the log and the metrics.
        deadline_ms: What the shadow's stages have together.
        pin: Alias -> what it answers from; None where that is not ready.
        stages: Retrieval, ranking and reranking, beside those that answer.
        is_busy: Whether a request is under way.
        keep: Gets a record of each answer.
    """

    def __init__(
        self,
        settings: ServingSettings,
        catalogue: str,
        deadline_ms: float,
        *,
        pin: Callable[[str], Pin | None],
        stages: Sequence[Call],
        is_busy: Callable[[], bool],
        keep: Callable[[Decision], None],
    ) -> None:
        self._share, self._most = settings.shadow_share, settings.shadow_in_flight
        self._catalogue, self._seconds = catalogue, deadline_ms / 1000
        self._pin, self._stages, self._is_busy, self._keep = pin, stages, is_busy, keep
        self._under_way: set[asyncio.Task[None]] = set()

    def offer(self, answered: Answered) -> None:
        """Mirrors a request where there is a shadow, and room; returns at once.

        Where nothing was shown there is nothing to agree with.
        """
        pin = self._pin(ALIAS)
        if pin is None or answered.origin == "replay" or not len(answered.slate):
            return
        if not is_mirrored(answered.request_id, self._share):
            return
        if len(self._under_way) >= self._most:
            self._count("dropped")
            return
        task = asyncio.get_running_loop().create_task(self._mirror(answered, pin.face))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def settle(self) -> None:
        """Gives up what is under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _mirror(self, answered: Answered, face: BundleFace) -> None:
        await asyncio.sleep(AFTER_SECONDS)
        try:
            query = replace(answered.again(face), keep_features=False)
            answer = await self._answer(face, query)
        except Exception as error:  # whatever the shadow's code raises is the shadow's failure alone
            if not isinstance(error, StageError):
                log.exception("the shadow failed")
            self._count("failed")
            self._log(answered, face, answered.query, Candidates.empty(len(face.source_names)), None)
        else:
            if answer is None:
                self._count("dropped")
            else:
                self._compare(answered, face, query, *answer)

    def _compare(
        self, answered: Answered, face: BundleFace, query: Query, slate: Candidates, took_ms: float
    ) -> None:
        self._count("answered")
        telemetry.SHADOW_SECONDS.labels(self._catalogue).observe(took_ms / 1000)
        shown, mirrored = answered.item_ids, {face.item_ids[row] for row in slate.item_index}
        overlap = sum(item in mirrored for item in shown) / len(shown)
        telemetry.SHADOW_OVERLAP.labels(self._catalogue).observe(overlap)
        self._log(answered, face, query, slate, took_ms)

    async def _answer(self, face: BundleFace, query: Query) -> tuple[Candidates, float] | None:
        """The slate, and the time that its stages took, without waits for a quiet moment; None without such a moment."""
        took = 0.0
        candidates: tuple[Candidates, ...] = ()
        for stage in self._stages:
            if not await quiet_moment(self._is_busy, PATIENCE_SECONDS):
                return None
            started = time.perf_counter()
            candidates = (await stage((face.sha256, query, *candidates), self._seconds - took),)
            took += time.perf_counter() - started
        return face.finish(query, candidates[0]), took * 1000

    def _log(
        self, answered: Answered, face: BundleFace, query: Query, slate: Candidates, took_ms: float | None
    ) -> None:
        decision = decision_of(
            request_id=uuid4().hex,  # no event can name it
            timestamp_ms=answered.now_ms,
            catalogue=self._catalogue,
            origin=answered.origin,
            face=face,
            query=query,
            slate=slate,
            assigned=Assigned(),
            rungs=() if took_ms is not None else (SHADOW_FAILED,),
            cached_from=None,
            timings_ms={} if took_ms is None else {"total": round(took_ms, 3)},
            shadow_of=answered.request_id,
        )
        self._keep(decision)

    def _count(self, outcome: str) -> None:
        telemetry.SHADOW.labels(self._catalogue, outcome).inc()


def is_mirrored(request_id: str, share: float) -> bool:
    """Whether the shadow gets a request: by hash, a stated share of all.

    >>> [is_mirrored("a", 0.0), is_mirrored("a", 1.0)]
    [False, True]
    """
    return zlib.crc32(b"shadow" + request_id.encode()) < share * 2**32
