"""One request's way through the graph: history, variant, pinned bundle, stages under deadlines, fallbacks.

A stage that fails or is late is replaced by the next rung: no rerank -> retrieval order -> what trends in
the context. Whatever a rung gives passes the hard filter. HTTP is `api`'s matter, the graph's parts are
`graph`'s.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol
from uuid import uuid4

import numpy as np

from tastemaker import telemetry
from tastemaker.config import BudgetSettings, Settings
from tastemaker.errors import StateError
from tastemaker.experiments.assignment import Assignment
from tastemaker.stages.filtering import hard_filter
from tastemaker.types import Candidates, Origin, Query
from tastemaker_services.answers import decision_of, items_of, newest_once, unsourced
from tastemaker_services.calls import StageError
from tastemaker_services.decisions import DecisionLog
from tastemaker_services.face import BundleFace, split_context
from tastemaker_services.pins import CHAMPION, Pin
from tastemaker_services.problems import Problem
from tastemaker_services.schema import RecommendationRequest

WARM_UP_SECONDS = 20.0
ANSWER_BY = 0.95
"""Part of the deadline after which no stage is waited for."""


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


class _Run:
    """One request under way: its clock, and what happened."""

    def __init__(self, catalogue: str, deadline_ms: float, shares: Mapping[str, float]) -> None:
        self._catalogue, self._shares = catalogue, shares
        self._started = time.perf_counter()
        self._deadline_ms = deadline_ms
        self.request_id = uuid4().hex
        self.degraded: list[str] = []
        self.timings_ms: dict[str, float] = {}

    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self._started) * 1000

    def left_seconds(self, stage: str) -> float:
        """Until the stage must have answered, see `_shares`."""
        return (self._deadline_ms * self._shares[stage] - self.elapsed_ms()) / 1000

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.timings_ms[name] = round(seconds * 1000, 3)
            telemetry.STAGE_SECONDS.labels(self._catalogue, name).observe(seconds)

    def fall_to(self, rung: str) -> None:
        self.degraded.append(rung)
        telemetry.RUNGS_USED.labels(self._catalogue, telemetry.bounded(rung, telemetry.RUNGS)).inc()

    def end(self) -> None:
        self.timings_ms["total"] = round(self.elapsed_ms(), 3)
        telemetry.STAGE_SECONDS.labels(self._catalogue, "total").observe(self.elapsed_ms() / 1000)


class Gateway:
    """Answers requests. For one event loop.

    Args:
        settings: Deadlines, catalogue.
        read_history: A user's item ids, oldest first; StateError where they cannot be read.
        assign: Unit, time and origin -> assignment; StateError likewise.
        pin: Alias -> what it answers from; None where that is not ready.
        stages: The graph.
        decisions: Gets a record of every answer.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read_history: Callable[[str], Awaitable[list[str]]],
        assign: Callable[[str, int, Origin], Awaitable[Assignment | None]],
        pin: Callable[[str], Pin | None],
        stages: Stages,
        decisions: DecisionLog,
    ) -> None:
        self._settings, self._shares = settings, _shares(settings.gateway.budget_ms)
        self._catalogue = settings.catalogue
        self._read_history, self._assign, self._pin = read_history, assign, pin
        self._stages, self._decisions = stages, decisions

    async def recommend(self, request: RecommendationRequest, origin: Origin) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            Problem: 503 before the first bundle is ready; never for a fault of a part.
        """
        run = self._run(request.deadline_ms)
        now_ms = time.time_ns() // 1_000_000
        with run.stage("history"):
            history = await self._history(run, request.user_id)
            assignment = await self._assignment(run, request.user_id, now_ms, origin)
        pin, assignment = self._pinned(run, assignment)
        query = self._query(request, history, pin.face, now_ms)
        until = str((assignment.policy or {}).get("until", "rerank")) if assignment else "rerank"
        candidates = await self._answer(run, pin.face, query, until)
        run.end()
        self._log(run, pin, query, slate=candidates, assignment=assignment, origin=origin, now_ms=now_ms)
        items = items_of(pin.face, candidates, "popular now", request.explain)
        return self._body(run, pin, items, assignment)

    async def similar(self, item_id: str, k: int) -> dict[str, Any]:
        """The items most like `item_id`.

        Raises:
            Problem: 404 for an unknown item; 503 before the first bundle is ready.
        """
        run = self._run(None)
        pin, _ = self._pinned(run, None)
        rows, unknown = pin.face.rows([item_id])
        if unknown:
            detail = f"item_id {item_id[:60]!r} is not in the catalogue: correct it"
            raise Problem(404, "unknown-item", detail, field="item_id")
        query = Query(history_L=np.empty(0, np.int32), k=k, exclude=rows)
        try:
            with run.stage("retrieve"):
                call = (pin.face.sha256, int(rows[0]), k)
                found = await self._stages.similar(call, run.left_seconds("retrieve"))
            nearest = unsourced(found, len(pin.face.source_names))
            candidates, reason = hard_filter(query, nearest), "like the item"
        except StageError:
            run.fall_to("trending")
            candidates, reason = pin.face.trending(query), "popular now"
        run.end()
        return self._body(run, pin, items_of(pin.face, candidates, reason))

    async def warm_up(self, face: BundleFace) -> None:
        """Sends one request through all stages.

        Raises:
            StageError: One does not answer.
        """
        query = Query(history_L=np.arange(min(3, len(face.item_ids)), dtype=np.int32), k=10)
        retrieved = await self._stages.retrieve((face.sha256, query), WARM_UP_SECONDS)
        ranked = await self._stages.rank((face.sha256, query, retrieved), WARM_UP_SECONDS)
        await self._stages.rerank((face.sha256, query, ranked), WARM_UP_SECONDS)

    def _run(self, deadline_ms: float | None) -> _Run:
        return _Run(self._catalogue, deadline_ms or self._settings.gateway.deadline_ms, self._shares)

    async def _history(self, run: _Run, user_id: str) -> list[str]:
        try:
            async with asyncio.timeout(run.left_seconds("history")):
                return await self._read_history(user_id)
        except (StateError, TimeoutError):
            run.fall_to("no-history")
            return []

    async def _assignment(self, run: _Run, unit: str, now_ms: int, origin: Origin) -> Assignment | None:
        try:
            async with asyncio.timeout(run.left_seconds("history")):
                return await self._assign(unit, now_ms, origin)
        except (StateError, TimeoutError):
            run.fall_to("no-experiment")
            return None

    def _pinned(self, run: _Run, assignment: Assignment | None) -> tuple[Pin, Assignment | None]:
        """The bundle to answer from. Where it is not the variant's, the answer is outside the experiment."""
        if assignment is not None:
            pin = self._pin(assignment.alias)
            if pin is not None:
                return pin, assignment
            run.fall_to("champion")
        champion = self._pin(CHAMPION)
        if champion is None:
            raise Problem(
                503, "not-ready", "no bundle is ready yet: see /readyz", headers={"retry-after": "1"}
            )
        return champion, None

    def _query(
        self, request: RecommendationRequest, history: Sequence[str], face: BundleFace, now_ms: int
    ) -> Query:
        session, unknown_session = face.rows(request.session)
        exclude, unknown_exclude = face.rows(request.exclude)
        past, _ = face.rows(history)
        if unknown := unknown_session + unknown_exclude:
            telemetry.UNKNOWN_ITEMS.labels(self._catalogue).inc(unknown)
        context, unknown_keys = split_context(request.context, face.context_keys)
        if unknown_keys:
            telemetry.UNKNOWN_CONTEXT.labels(self._catalogue).inc(unknown_keys)
        seen_L = newest_once(np.concatenate([past, session]))
        length = self._settings.state.history_length
        return Query(
            history_L=seen_L[-length:],
            k=request.k,
            user_id=request.user_id,
            context=context,
            exclude=np.concatenate([exclude, seen_L[:-length]]),
            allowed=face.allowed(request.filters),
            now_ms=now_ms,
        )

    async def _answer(self, run: _Run, face: BundleFace, query: Query, until: str) -> Candidates:
        best = await self._ladder(run, face, query, until)
        slate = hard_filter(query, best)
        if len(slate) or "trending" in run.degraded:
            return slate
        run.fall_to("trending")
        return face.trending(query)

    async def _ladder(self, run: _Run, face: BundleFace, query: Query, until: str) -> Candidates:
        retrieved = await self._stage(run, "retrieve", face, query)
        if retrieved is None:
            run.fall_to("trending")
            return face.trending(query)
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

    async def _stage(
        self, run: _Run, name: str, face: BundleFace, query: Query, *candidates: Candidates
    ) -> Candidates | None:
        call: Call = getattr(self._stages, name)
        try:
            with run.stage(name):
                answer: Candidates = await call((face.sha256, query, *candidates), run.left_seconds(name))
                return answer
        except StageError:
            return None

    def _log(
        self,
        run: _Run,
        pin: Pin,
        query: Query,
        *,
        slate: Candidates,
        assignment: Assignment | None,
        origin: Origin,
        now_ms: int,
    ) -> None:
        if assignment is not None:
            telemetry.SERVED.labels(self._catalogue, assignment.experiment, assignment.variant).inc()
        decision = decision_of(
            request_id=run.request_id,
            timestamp_ms=now_ms,
            catalogue=self._catalogue,
            origin=origin,
            face=pin.face,
            query=query,
            slate=slate,
            assignment=assignment,
            rungs=run.degraded,
            timings_ms=run.timings_ms,
        )
        self._decisions.put(decision)

    def _body(
        self, run: _Run, pin: Pin, items: list[dict[str, Any]], assignment: Assignment | None = None
    ) -> dict[str, Any]:
        return {
            "request_id": run.request_id,
            "items": items,
            "experiment": assignment.experiment if assignment else None,
            "variant": assignment.variant if assignment else None,
            "bundle": pin.face.bundle_id,
            "bundle_version": pin.version,
            "degraded": run.degraded,
            "timings_ms": run.timings_ms,
        }


def _shares(budget: BudgetSettings) -> dict[str, float]:
    """The part of the deadline by which each stage must have answered: its own share's end or the next stage's.

    A late stage thus costs the next one first, whose rung is the better one: a list in retrieval order is worth
    more than what trends. The last part of the deadline is for writing the answer.
    """
    stages = ("history", "retrieve", "rank", "rerank")
    ends = list(accumulate(getattr(budget, stage) for stage in stages))
    limits = [*ends[1:], ends[-1]]
    return {stage: ANSWER_BY * limit / ends[-1] for stage, limit in zip(stages, limits, strict=True)}
