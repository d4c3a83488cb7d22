"""What a request gets where not every part answers in time: the stages' answer, or the next rung's.

A stage that fails or is late is replaced by the next rung: no rerank -> retrieval order -> the list answered last, or else
the one computed ahead -> what trends in the context. Whatever a rung gives passes the hard filter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Query
from tastemaker_services.answers import unsourced
from tastemaker_services.calls import StageError
from tastemaker_services.face import BundleFace
from tastemaker_services.lately import Found
from tastemaker_services.run import Run


class Call(Protocol):
    """One call to a stage: `calls.StageCalls` in practice."""

    def __call__(self, call: Any, timeout_seconds: float) -> Awaitable[Any]:
        """The stage's answer; StageError where there is none in time."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """The graph behind the gateway. A call is (manifest hash, query) and, after retrieval, candidates."""

    retrieve: Call
    rank: Call
    rerank: Call
    similar: Call


class Ladder:
    """Climbs down for one request at a time. For one event loop.

    Args:
        stages: The graph.
        read_stored: A user's list that was computed ahead; StateError where it cannot be read.
        catalogue: For the counts.
    """

    def __init__(
        self, stages: Stages, read_stored: Callable[[str], Awaitable[StoredList | None]], catalogue: str
    ) -> None:
        self._stages, self._read_stored, self._catalogue = stages, read_stored, catalogue

    async def answer(self, run: Run, face: BundleFace, query: Query, until: str, found: Found) -> Candidates:
        """The slate by the stages up to and with `until`, or by the best rung that answers."""
        best = await self._ladder(run, face, query, until, found)
        if unknown := len(best) - len(face.overlay.known(best)):
            telemetry.UNKNOWN_ROWS.labels(self._catalogue).inc(unknown)
        slate = face.finish(query, best)
        if len(slate) or "trending" in run.degraded:
            return slate
        return self.trending(run, face, query)

    async def _ladder(self, run: Run, face: BundleFace, query: Query, until: str, found: Found) -> Candidates:
        retrieved = await self._stage(run, "retrieve", face, query)
        if retrieved is None:
            return await self._without_stages(run, face, query, found)
        if until == "retrieve":
            return retrieved
        ranked = await self._stage(run, "rank", face, query, retrieved)
        if ranked is None:
            run.fall_to("retrieval-order")
            return retrieved
        if until == "rank":
            return ranked
        reranked = await self._stage(run, "rerank", face, query, ranked)
        if reranked is None:
            run.fall_to("no-rerank")
            return ranked
        return reranked

    async def _without_stages(self, run: Run, face: BundleFace, query: Query, found: Found) -> Candidates:
        slate = found.rung(run, face, query)
        if slate is None and found.is_personal:
            slate = await self._stored(run, face, query)
        return self.trending(run, face, query) if slate is None else slate

    async def _stored(self, run: Run, face: BundleFace, query: Query) -> Candidates | None:
        """The list that this very bundle computed ahead for the user; None where the rules leave nothing of it."""
        try:
            async with asyncio.timeout(run.left_seconds("rank")):
                stored = await self._read_stored(query.user_id)
        except (StateError, TimeoutError):
            return None
        if stored is None or stored.bundle_id != face.bundle_id:
            return None
        rows_K, _ = face.rows(stored.item_ids)
        score_K = np.linspace(1, 0, len(rows_K), dtype=np.float32)
        slate = face.finish(query, unsourced((rows_K, score_K), len(face.source_names)))
        if not len(slate):
            return None
        run.fall_to("cached")
        return slate

    def trending(self, run: Run, face: BundleFace, query: Query) -> Candidates:
        """The lowest rung, which needs no stage: what trends, then what is popular."""
        run.fall_to("trending")
        return face.trending(query)

    async def _stage(
        self, run: Run, name: str, face: BundleFace, query: Query, *candidates: Candidates
    ) -> Candidates | None:
        call: Call = getattr(self._stages, name)
        try:
            with run.stage(name):
                answer: Candidates = await call((face.sha256, query, *candidates), run.left_seconds(name))
                return answer
        except StageError:
            return None
