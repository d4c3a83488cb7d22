"""One request under way: its clock, its stages' deadlines, the rungs that it may take, and what happened to it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Self, TypeVar
from uuid import uuid4

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.config_serving import BudgetSettings
from tastemaker.errors import StateError
from tastemaker.state.forced import RUNGS
from tastemaker.types import Candidates

if TYPE_CHECKING:
    from prometheus_client import Histogram

    from tastemaker_services.tracing import Trace

T = TypeVar("T")
log = logging.getLogger(__name__)
ANSWER_BY = 0.95
"""Part of the deadline after which no stage is waited for."""
FAIR_SHARE = 0.5
"""Part of a stage's p99 in which it should mostly have answered: to be late in less time says nothing of it."""


class Run:
    """A request's clock starts when this is made.

    Args:
        catalogue: For the metrics.
        deadline_ms: Of the whole request.
        shares: See `shares`.
        budget: See `BudgetSettings`.
    """

    def __init__(
        self, catalogue: str, deadline_ms: float, shares: Mapping[str, float], budget: BudgetSettings
    ) -> None:
        self._catalogue, self._shares, self._budget = catalogue, shares, budget
        self._started = time.perf_counter()
        self._deadline_ms = deadline_ms
        self._floor = -1
        self.request_id = uuid4().hex
        self.degraded: list[str] = []
        self.forced: str | None = None
        """The rung of the kill switch."""
        self.variants: Mapping[str, str] = {}
        """Variants by experiment that a tester asks for."""
        self.cached_from: str | None = None
        """The earlier request whose list is answered again."""
        self.timings_ms: dict[str, float] = {}
        self.trace: Trace | None = None
        """Where the request is traced."""
        self.seen: dict[str, Candidates] = {}
        """What each stage answered."""
        self.ahead: dict[str, Candidates | None] = {}
        """What stages that were asked together gave, until the ladder comes to them; None for one that gave nothing in time."""

    def beside(self) -> Self:
        """The same request for a list beside others: its clock and what it may use, with notes of its own."""
        other = copy(self)
        other.degraded, other.timings_ms, other.seen, other.ahead = [], {}, {}, {}
        return other

    def take(self, other: Self) -> None:
        """Takes over the notes on a list that was made beside others; of stages that others went through too, the longer time."""
        self.degraded += other.degraded
        for stage, took_ms in other.timings_ms.items():
            self.timings_ms[stage] = max(took_ms, self.timings_ms.get(stage, 0.0))
        self.seen = self.seen or other.seen

    def elapsed_ms(self) -> float:
        """Since the start."""
        return (time.perf_counter() - self._started) * 1000

    def left_seconds(self, stage: str) -> float:
        """Until the stage must have answered."""
        return (self._deadline_ms * self._shares[stage] - self.elapsed_ms()) / 1000

    def fair_seconds(self, stage: str) -> float:
        """The time in which a sound stage mostly answers."""
        budget_ms: float = getattr(self._budget, stage)
        return FAIR_SHARE * budget_ms / 1000

    def is_short(self, stage: str) -> bool:
        """Whether there is less time left than the stage may need."""
        budget_ms: float = getattr(self._budget, stage)
        return self.left_seconds(stage) < budget_ms / 1000

    @property
    def used(self) -> float:
        """Part of the deadline that has passed."""
        return self.elapsed_ms() / self._deadline_ms

    def start_at(self, rung: str | None) -> None:
        """Forbids all rungs above `rung`; None forbids none. A higher one than an earlier call's changes nothing."""
        if rung is not None:
            self._floor = max(self._floor, RUNGS.index(rung))

    @property
    def is_free(self) -> bool:
        """Whether every rung is open to the request."""
        return self._floor < 0

    def starts_at(self, rung: str) -> bool:
        """Whether the request may not go above `rung`."""
        return self._floor >= RUNGS.index(rung)

    async def within(self, stage: str, answer: Awaitable[T]) -> T:
        """What is awaited, if it comes in a stage's time.

        Raises:
            StateError: It does not.
        """
        try:
            async with asyncio.timeout(self.left_seconds(stage)):
                return await answer
        except TimeoutError as error:
            raise StateError(f"no answer in the time of {stage}") from error

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.took(name, time.perf_counter() - started)

    def took(self, name: str, seconds: float) -> None:
        """Notes and counts how long a stage took."""
        self.timings_ms[name] = round(seconds * 1000, 3)
        _clock(self._catalogue, name).observe(seconds)
        if self.trace is not None:
            self.trace.stage(name, seconds)

    def worked(self, name: str, seconds: float) -> None:
        """Notes how long a stage's own process had the call, which its replicas count."""
        self.timings_ms[f"{name}_work"] = round(seconds * 1000, 3)

    def fall_to(self, rung: str) -> None:
        """Notes and counts a fallback."""
        self.degraded.append(rung)
        telemetry.RUNGS_USED.labels(self._catalogue, telemetry.bounded(rung, telemetry.RUNGS)).inc()

    def end(self) -> None:
        """Stops the clock."""
        self.timings_ms["total"] = round(self.elapsed_ms(), 3)
        _clock(self._catalogue, "total").observe(self.elapsed_ms() / 1000)
        log.debug("answered after %.1f ms, rungs: %s", self.timings_ms["total"], self.degraded)


@cache
def _clock(catalogue: str, stage: str) -> "Histogram":
    """Looked up once: a request has some six."""
    return telemetry.STAGE_SECONDS.labels(catalogue, stage)


def tell_budget(settings: Settings) -> None:
    """Sets the metric of what each stage, and the whole, may take."""
    gateway = settings.gateway
    for stage, budget_ms in {**gateway.budget_ms.model_dump(), "total": gateway.deadline_ms}.items():
        telemetry.BUDGET.labels(settings.catalogue, stage).set(budget_ms / 1000)


def shares(budget: BudgetSettings) -> dict[str, float]:
    """The part of the deadline by which each stage must have answered: its own share's end or the next stage's.

    A late stage thus costs the next one first, whose rung is the better one: a list in retrieval order is worth
    more than what trends. The last part of the deadline is for writing the answer.
    """
    stages = ("history", "retrieve", "rank", "rerank")
    ends = list(accumulate(getattr(budget, stage) for stage in stages))
    limits = [*ends[1:], ends[-1]]
    return {stage: ANSWER_BY * limit / ends[-1] for stage, limit in zip(stages, limits, strict=True)}
