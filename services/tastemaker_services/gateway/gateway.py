"""One request's way through the graph: user, variant, pinned bundle, stages under deadlines, fallbacks.

A list answered lately is answered again as long as nothing happened since, see `cache`; what stands in for a stage that
fails or is late, `ladder` decides. HTTP is `api`'s matter, the graph's parts are `graph`'s.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.eligibility import Subject
from tastemaker.features.user_state import UserState
from tastemaker.logs import REQUEST_ID
from tastemaker.registry.live import CHAMPION
from tastemaker.stages.policy import beside, policy_of
from tastemaker.state.lists import StoredList
from tastemaker.types import Candidates, Origin, Query
from tastemaker.users.profile import Profile
from tastemaker_services.gateway.answers import FITS, decision_of, items_of, keeps_features, unsourced
from tastemaker_services.gateway.assigning import OUTSIDE, assigned_or_outside, count, subject_of, told
from tastemaker_services.gateway.breakers import Breakers
from tastemaker_services.gateway.cache import Lists
from tastemaker_services.gateway.decisions import DecisionLog
from tastemaker_services.gateway.details import add_details
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.interleaving import interleaved, sides_of
from tastemaker_services.gateway.ladder import NO_SHARD, Call, Ladder, Stages
from tastemaker_services.gateway.lately import Found, Lately
from tastemaker_services.gateway.loop_lag import LoopLag
from tastemaker_services.gateway.pages import Pages, rules_of
from tastemaker_services.gateway.paging import Paging
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.policies import policy_for
from tastemaker_services.gateway.queries import Question, query_of
from tastemaker_services.gateway.run import Run, shares, tell_budget
from tastemaker_services.gateway.shadow import Answered
from tastemaker_services.gateway.shedding import Admitted, Load
from tastemaker_services.gateway.users import User, past_hash
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.tracing import told_of
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.schema import Priority, RecommendationRequest

if TYPE_CHECKING:
    from tastemaker_services.tracing import Tracer

T = TypeVar("T")
NOT_PERSONALISED: Final = User([], UserState(), b"", profile=Profile(personalise=False))
"""Of a request that asks for nothing personal: as one who opted out."""
NOTHING_FITS: Final = "nothing-fits"
"""Note on an empty list: filters, exclusions and hard rules together leave no item."""
_SEED_DIGITS = 15
"""Of the request's id: what luck decides can be told from the log."""


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
        tell_budget(settings)
        lag = LoopLag(settings.gateway.deadline_ms / 1000)
        self._forced, self._load = forced, Load(settings.gateway.shedding, settings.catalogue, lag)
        self._breakers = Breakers(settings.gateway.breakers, settings.catalogue)
        self._catalogue, self._standing = settings.catalogue, standing
        self._read_user, self._assign, self._pin = read_user, assign, pin
        self._answered, self._paging = answered, Paging(pages, settings.cache.page_items)
        self._stages, self._decisions, self._tracer = stages, decisions, tracer
        self._ladder = Ladder(stages, read_stored, settings.catalogue, self._breakers)
        self._lately = Lately(lists, settings.catalogue, self._breakers)

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
            return await self._paging.next(self, run, request, origin)
        return await self._recommend(run, whole, origin, request.k)

    async def _recommend(
        self, run: Run, request: RecommendationRequest, origin: Origin, num_shown: int
    ) -> dict[str, Any]:
        """The body with the first `num_shown` items of the answer, and a cursor where more are kept."""
        now_ms = time.time_ns() // 1_000_000
        with run.stage("history"):
            question = await self.question(run, request, origin, now_ms)
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
        self.log(run, question, request, slate, origin)
        again = partial(self.query, run, request, user, now_ms=now_ms, origin=origin)
        self._answered(Answered(run.request_id, now_ms, origin, pin.face, query, slate, again))
        items = items_of(pin.face, slate, reason, request.explain, is_personal=found.is_personal)
        if request.explain:
            add_details(items, pin.face, slate, run.seen)
        return self.body(run, pin, items, assigned) | {"next_cursor": cursor}

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

    async def question(
        self, run: Run, request: RecommendationRequest, origin: Origin, now_ms: int
    ) -> Question:
        """A request in the terms of the bundle that answers it.

        Of a request that is not to be personalised, nothing that is kept of its user is read but the experiment's draw.

        Raises:
            Problem: 503 before the first bundle is ready.
        """
        user = await self.reader(run, request.user_id, request.personalise)
        subject = subject_of(request, user, run.variants, now_ms)
        assign = partial(self._assign, subject, now_ms, origin)
        assigned = await assigned_or_outside(run, self._read(run, "experiment", assign))

        def ask(pin: Pin, policy: str) -> Query:
            return self.query(run, request, user, pin.face, now_ms=now_ms, origin=origin, policy=policy)

        if assigned.interleaved is not None:
            if sides := sides_of(run, self._catalogue, assigned, self._pin, ask):
                return Question(user, assigned, sides[0].pin, sides[0].plain, sides)
            assigned = assigned.without_interleaving()
        pin, assigned = self.pinned(run, assigned)
        return Question(user, assigned, pin, ask(pin, policy_for(run, assigned)))

    async def nearest(
        self, run: Run, pin: Pin, query: Query, stage: str, rest: Sequence[Any], reason: str
    ) -> list[dict[str, Any]]:
        """Items by one stage's own order under the query's hard rules; what trends, where it does not answer.

        Raises:
            Problem: 429 where too much is under way.
        """
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

    async def reader(self, run: Run, user_id: str, personalise: bool) -> User | None:
        """For whom a list is made: the user as of now, or where it is not to be personal somebody of whom nothing is read."""
        return await self.user(run, user_id) if personalise else NOT_PERSONALISED

    async def user(self, run: Run, user_id: str) -> User | None:
        """A user as of now; None where nothing can be read."""
        try:
            user = await self._read(run, "history", lambda: self._read_user(user_id))
        except StateError:
            run.fall_to("no-history")
            return None
        if user.state is None:
            run.fall_to("no-record")
        return user

    async def _read(self, run: Run, part: str, read: Callable[[], Awaitable[T]]) -> T:
        seconds, fair = run.left_seconds("history"), run.fair_seconds("history")
        return await self._breakers.read(part, read, seconds, fair)

    def pinned(self, run: Run, assigned: Assigned) -> tuple[Pin, Assigned]:
        """The bundle to answer from. Where it is not a variant's, the answer is outside of that experiment."""
        if assigned.alias is not None:
            pin = self._pin(assigned.alias)
            if pin is not None:
                return pin, assigned
            run.fall_to("champion")
            assigned = assigned.without(assigned.alias)
        champion = self._pin(CHAMPION)
        if champion is None:
            raise Problem(
                503, "not-ready", "no bundle is ready yet: see /readyz", headers={"retry-after": "1"}
            )
        return champion, assigned

    def query(
        self,
        run: Run,
        request: RecommendationRequest,
        user: User | None,
        face: BundleFace,
        *,
        now_ms: int,
        origin: Origin = "live",
        policy: str = "",
    ) -> Query:
        """A request in the rows of a bundle, with luck of its own, under a variant's policy and the catalogue's rules."""
        policy = beside(policy, self._standing())
        length = self._settings.state.history_length
        query = query_of(
            request, user, face, self._catalogue, history_length=length, now_ms=now_ms, policy=policy
        )
        keep = keeps_features(run.request_id, self._settings.gateway.features_share)
        seed = int(run.request_id[:_SEED_DIGITS], 16)
        keep |= request.explain
        traceparent = run.trace.parent if run.trace else ""
        return replace(
            query, keep_features=keep, seed=seed, explore=origin == "live", traceparent=traceparent
        )

    def log(
        self,
        run: Run,
        question: Question,
        request: RecommendationRequest,
        slate: Candidates,
        origin: Origin,
        **more: Any,
    ) -> None:
        """Counts an answer for its variant and hands its record on; `more` are further fields of the record."""
        user, assigned, pin, query, _ = question
        count(self._catalogue, assigned)
        decision = decision_of(
            request_id=run.request_id,
            timestamp_ms=query.now_ms,
            catalogue=self._catalogue,
            origin=origin,
            face=pin.face,
            query=query,
            slate=slate,
            assigned=assigned,
            rungs=run.degraded,
            cached_from=run.cached_from,
            timings_ms=run.timings_ms,
        )
        known = {"request": rules_of(request), "past_hash": past_hash(user), "forced": run.forced}
        self._decisions.put(replace(decision, **known | more))

    def body(
        self, run: Run, pin: Pin, items: list[dict[str, Any]], assigned: Assigned = OUTSIDE
    ) -> dict[str, Any]:
        """The body of an answer."""
        return {
            "request_id": run.request_id,
            "items": items,
            **told(assigned),
            "bundle": pin.face.bundle_id,
            "bundle_version": pin.version,
            "degraded": run.degraded,
            "notes": [] if items else [NOTHING_FITS],
            "forced": run.forced,
            "cached": run.cached_from is not None,
            "cached_from": run.cached_from,
            "timings_ms": run.timings_ms,
        }
