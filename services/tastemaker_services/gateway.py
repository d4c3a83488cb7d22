"""One request's way through the graph: user, variant, pinned bundle, stages under deadlines, fallbacks.

A list answered lately is answered again as long as nothing happened since, see `cache`; what stands in for a stage that
fails or is late, `ladder` decides. HTTP is `api`'s matter, the graph's parts are `graph`'s.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.experiments.assignment import Assignment
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Origin, Query
from tastemaker_services.answers import decision_of, items_of, keeps_features, unsourced
from tastemaker_services.cache import Lists
from tastemaker_services.calls import StageError
from tastemaker_services.decisions import DecisionLog
from tastemaker_services.face import BundleFace
from tastemaker_services.ladder import Ladder, Stages
from tastemaker_services.lately import Lately
from tastemaker_services.pins import CHAMPION, Pin
from tastemaker_services.problems import Problem
from tastemaker_services.queries import query_of
from tastemaker_services.run import Run, shares
from tastemaker_services.schema import RecommendationRequest
from tastemaker_services.users import User

WARM_UP_SECONDS = 20.0
_SEED_DIGITS = 15
"""Of the request's id: what luck decides can be told from the log."""


class Gateway:
    """Answers requests. For one event loop.

    Args:
        settings: Deadlines, catalogue.
        read_user: A user's history and record; StateError where they cannot be read.
        assign: Unit, time and origin -> assignment; StateError likewise.
        pin: Alias -> what it answers from; None where that is not ready.
        stages: The graph.
        decisions: Gets a record of every answer.
        lists: Lists answered lately; None where none are kept.
        read_stored: A user's list that was computed ahead; StateError where it cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read_user: Callable[[str], Awaitable[User]],
        assign: Callable[[str, int, Origin], Awaitable[Assignment | None]],
        pin: Callable[[str], Pin | None],
        stages: Stages,
        decisions: DecisionLog,
        lists: Lists | None = None,
        read_stored: Callable[[str], Awaitable[StoredList | None]],
    ) -> None:
        self._settings, self._shares = settings, shares(settings.gateway.budget_ms)
        self._catalogue = settings.catalogue
        self._read_user, self._assign, self._pin = read_user, assign, pin
        self._stages, self._decisions = stages, decisions
        self._ladder = Ladder(stages, read_stored, settings.catalogue)
        self._lately = Lately(lists, settings.catalogue)

    async def recommend(self, request: RecommendationRequest, origin: Origin) -> dict[str, Any]:
        """The body of the answer.

        Raises:
            Problem: 503 before the first bundle is ready; never for a fault of a part.
        """
        run = self._run(request.deadline_ms)
        now_ms = time.time_ns() // 1_000_000
        with run.stage("history"):
            user = await self._user(run, request.user_id)
            assignment = await self._assignment(run, request.user_id, now_ms, origin)
            pin, assignment = self._pinned(run, assignment)
            query = self._query(run, request, user, pin.face, now_ms=now_ms, origin=origin)
            found = await self._lately.find(
                run, request, query, pin.face, user=user, assignment=assignment, origin=origin
            )
        slate = found.again(run, pin.face, query)
        if slate is None:
            until = str((assignment.policy or {}).get("until", "rerank")) if assignment else "rerank"
            slate = await self._ladder.answer(run, pin.face, query, until, found)
            self._lately.keep(run, query, found.asked, slate)
        run.end()
        self._log(run, pin, query, slate=slate, assignment=assignment, origin=origin, now_ms=now_ms)
        reason = "fits the history" if "cached" in run.degraded else "popular now"
        items = items_of(pin.face, slate, reason, request.explain, is_personal=found.is_personal)
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
            candidates, reason = pin.face.finish(query, nearest), "like the item"
        except StageError:
            candidates, reason = self._ladder.trending(run, pin.face, query), "popular now"
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

    def _run(self, deadline_ms: float | None) -> Run:
        return Run(self._catalogue, deadline_ms or self._settings.gateway.deadline_ms, self._shares)

    async def _user(self, run: Run, user_id: str) -> User | None:
        try:
            async with asyncio.timeout(run.left_seconds("history")):
                user = await self._read_user(user_id)
        except (StateError, TimeoutError):
            run.fall_to("no-history")
            return None
        if user.state is None:
            run.fall_to("no-record")
        return user

    async def _assignment(self, run: Run, unit: str, now_ms: int, origin: Origin) -> Assignment | None:
        try:
            async with asyncio.timeout(run.left_seconds("history")):
                return await self._assign(unit, now_ms, origin)
        except (StateError, TimeoutError):
            run.fall_to("no-experiment")
            return None

    def _pinned(self, run: Run, assignment: Assignment | None) -> tuple[Pin, Assignment | None]:
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
        self,
        run: Run,
        request: RecommendationRequest,
        user: User | None,
        face: BundleFace,
        *,
        now_ms: int,
        origin: Origin,
    ) -> Query:
        length = self._settings.state.history_length
        query = query_of(request, user, face, self._catalogue, history_length=length, now_ms=now_ms)
        keep = keeps_features(run.request_id, self._settings.gateway.features_share)
        seed = int(run.request_id[:_SEED_DIGITS], 16)
        return replace(query, keep_features=keep, seed=seed, explore=origin == "live")

    def _log(
        self,
        run: Run,
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
            cached_from=run.cached_from,
            timings_ms=run.timings_ms,
        )
        self._decisions.put(decision)

    def _body(
        self, run: Run, pin: Pin, items: list[dict[str, Any]], assignment: Assignment | None = None
    ) -> dict[str, Any]:
        return {
            "request_id": run.request_id,
            "items": items,
            "experiment": assignment.experiment if assignment else None,
            "variant": assignment.variant if assignment else None,
            "bundle": pin.face.bundle_id,
            "bundle_version": pin.version,
            "degraded": run.degraded,
            "cached": run.cached_from is not None,
            "cached_from": run.cached_from,
            "timings_ms": run.timings_ms,
        }
