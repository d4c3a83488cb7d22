"""One request's way through the graph: its question, stages under deadlines, fallbacks, its record.

Who asks and which bundle answers, `questions` finds out; what is left of an answer, `records` writes. A list answered lately
is answered again as long as nothing happened since, see `cache`; what stands in for a stage that fails or is late, `ladder`
decides. HTTP is `api`'s matter, the graph's parts are `graph`'s.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.eligibility import Subject
from tastemaker.logs import REQUEST_ID
from tastemaker.stages.policy import policy_of
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Origin, Query
from tastemaker_services.gateway.answers import FITS, fits_of, items_of, unsourced
from tastemaker_services.gateway.breakers import Breakers
from tastemaker_services.gateway.cache import Lists
from tastemaker_services.gateway.decisions import DecisionLog
from tastemaker_services.gateway.details import add_details, add_teams
from tastemaker_services.gateway.interleaving import interleaved
from tastemaker_services.gateway.ladder import NO_SHARD, Call, Ladder, Stages
from tastemaker_services.gateway.lately import Found, Lately
from tastemaker_services.gateway.loop_lag import LoopLag
from tastemaker_services.gateway.pages import Pages
from tastemaker_services.gateway.paging import Paging
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.queries import Question
from tastemaker_services.gateway.questions import Questions
from tastemaker_services.gateway.records import Records, body_of
from tastemaker_services.gateway.run import Run, shares, tell_budget
from tastemaker_services.gateway.shadow import Answered
from tastemaker_services.gateway.shedding import Admitted, Load
from tastemaker_services.gateway.users import User
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.tracing import told_of
from tastemaker_services.web.schema import Priority, RecommendationRequest

if TYPE_CHECKING:
    from tastemaker_services.tracing import Tracer


class Gateway:
    """Answers requests. For one event loop.

    Args:
        settings: Deadlines, catalogue.
        read_user: A user's history and record; StateError where they cannot be read.
        assign: Whom a request is from, time and origin -> assignments; StateError likewise.
        pin: Alias -> what it answers from; None where that is not ready.
        stages: The graph.
        decisions: Gets a record of every answer.
        lists: Lists answered lately; None where none are kept.
        read_stored: A user's list that was computed ahead; StateError where it cannot be read.
        forced: The rung that the kill switch holds answers to; None where it holds none.
        answered: Gets each request with its slate, once its stages are through.
        pages: Where long lists are kept that are shown page by page; None where none are.
        standing: The catalogue's own rules as the text of a policy.
        tracer: Makes the spans of recommendations; None where nothing is traced.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        read_user: Callable[[str], Awaitable[User]],
        assign: Callable[[Subject, int, Origin], Awaitable[Assigned]],
        pin: Callable[[str], Pin | None],
        stages: Stages,
        decisions: DecisionLog,
        lists: Lists | None = None,
        read_stored: Callable[[str], Awaitable[StoredList | None]],
        forced: Callable[[], str | None] = lambda: None,
        answered: Callable[[Answered], None] = lambda _: None,
        pages: Pages | None = None,
        standing: Callable[[], str] = lambda: "",
        tracer: "Tracer | None" = None,
    ) -> None:
        self._settings, self._shares = settings, shares(settings.gateway.budget_ms)
        self._catalogue = catalogue = settings.catalogue
        tell_budget(settings)
        lag = LoopLag(settings.gateway.deadline_ms / 1000)
        self._forced, self._load = forced, Load(settings.gateway.shedding, catalogue, lag)
        breakers = Breakers(settings.gateway.breakers, catalogue)
        self.questions = Questions(
            settings, breakers, read_user=read_user, assign=assign, pin=pin, standing=standing
        )
        self._records = Records(decisions, catalogue)
        self._paging = Paging(pages, settings.cache.page_items, self.questions, self._records)
        self._stages, self._answered, self._tracer = stages, answered, tracer
        self._ladder = Ladder(stages, read_stored, catalogue, breakers)
        self._lately = Lately(lists, catalogue, breakers)

    async def recommend(
        self, request: RecommendationRequest, origin: Origin, variants: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """The body of the answer.

        Args:
            request: As it came.
            origin: Where it comes from.
            variants: By experiment, what a tester asks for.

        Raises:
            Problem: 422 where a tester asks for what is not there, 429 where too much is under way, 503 before the first bundle
                is ready; never for a fault of a part.
        """
        run = self.run(request.deadline_ms)
        run.variants = variants or {}
        if self._tracer is None:
            return await self._admitted(run, request, origin)
        run.trace = self._tracer.begin("recommend", run.request_id)
        body: dict[str, Any] = {}
        try:
            body = await self._admitted(run, request, origin)
        finally:
            if run.trace is not None:
                run.trace.end(told_of(body, run.degraded, origin))
        return body

    async def _admitted(self, run: Run, request: RecommendationRequest, origin: Origin) -> dict[str, Any]:
        with self._load.request(request.priority if origin == "live" else "background") as admitted:
            run.start_at(admitted.rung)
            body = await self._body(run, request, origin)
            if (request.deadline_ms or math.inf) >= self._settings.gateway.deadline_ms:
                admitted.used = run.used  # that a shorter time was too short is its client's doing
        return body

    async def _body(self, run: Run, request: RecommendationRequest, origin: Origin) -> dict[str, Any]:
        whole = self._paging.whole(request)
        if request.cursor is not None:
            return await self._paging.next(run, request, origin)
        return await self._recommend(run, whole, origin, request.k)

    async def _recommend(
        self, run: Run, request: RecommendationRequest, origin: Origin, num_shown: int
    ) -> dict[str, Any]:
        """The body with the first `num_shown` items of the answer, and a cursor where more are kept."""
        now_ms = time.time_ns() // 1_000_000
        with run.stage("history"):
            question = await self.questions.of(run, request, origin, now_ms)
            found = await self._lately.find(run, request, question, origin)
        slate = None if run.forced else found.again(run, question.pin.face, question.query)
        if slate is None:
            question, slate = await self._made(run, question, found)
        user, assigned, pin, query, _ = question
        reason = FITS if "cached" in run.degraded else "popular now"
        cursor = None
        if len(slate) > num_shown:
            cursor = await self._paging.first(run, question, request, num_shown, slate, reason)
            slate = slate.take(range(num_shown))
        if not len(slate):
            telemetry.EMPTY.labels(self._catalogue).inc()
        run.end()
        record = partial(self._records.put_aside, run, question, request, slate, origin)
        asyncio.get_running_loop().call_soon(record)  # once the answer is on its way: nobody waits for it
        again = partial(self.questions.query, run, request, user, now_ms=now_ms, origin=origin)
        self._answered(Answered(run.request_id, now_ms, origin, pin.face, query, slate, again))
        items = items_of(
            pin.face, slate, reason,
            explain=request.explain, is_personal=found.is_personal, fits=fits_of(query, user),
        )  # fmt: skip
        if request.explain:
            add_details(items, pin.face, slate, run.seen)
            add_teams(items, slate, question)
        return body_of(run, pin, items, assigned) | {"next_cursor": cursor}

    async def _made(self, run: Run, question: Question, found: Found) -> tuple[Question, Candidates]:
        """The slate by the stages, and the question that it answers: one side's, where it was to hold two variants' picks."""
        face, query = question.pin.face, question.query
        if question.sides:
            made, slate = await interleaved(self._ladder, self._catalogue, run, question, found)
        else:
            until = policy_of(query.policy).until
            made, slate = question, await self._ladder.answer(run, face, query, until, found)
        if made.pin.face is face:
            self._lately.keep(run, query, found.asked, slate)
        return made, slate

    async def nearest(
        self, run: Run, pin: Pin, query: Query, stage: str, rest: Sequence[Any], reason: str
    ) -> list[dict[str, Any]]:
        """Items by one stage's own order under the query's hard rules; what trends, where it does not answer.

        Where the rules leave nothing, nothing is the answer, and nobody is asked.

        Raises:
            Problem: 429 where too much is under way.
        """
        if pin.face.nothing_fits(query):
            return []
        try:
            with self._load.request("interactive") as admitted, run.stage("retrieve"):
                run.start_at(admitted.rung)
                ask: Call = getattr(self._stages, stage)
                call = (pin.face.sha256, query, *rest)
                row_K, score_K, *missing = await self._ladder.ask(run, "retrieve", "nearest", ask, call)
            if any(missing):
                run.fall_to(NO_SHARD)
            candidates = pin.face.finish(query, unsourced((row_K, score_K), len(pin.face.source_names)))
        except StageError:
            candidates, reason = self._ladder.trending(run, pin.face, query), "popular now"
        return items_of(pin.face, candidates, reason)

    def admit(self, priority: Priority) -> AbstractContextManager[Admitted]:
        """Counts a request for as long as it is under way; Problem 429 where too many are."""
        return self._load.request(priority)

    def run(self, deadline_ms: float | None) -> Run:
        """A request's clock, begun now; None takes the gateway's deadline."""
        gateway = self._settings.gateway
        run = Run(self._catalogue, deadline_ms or gateway.deadline_ms, self._shares, gateway.budget_ms)
        run.forced = self._forced()
        run.start_at(run.forced)
        REQUEST_ID.set(run.request_id)
        return run
