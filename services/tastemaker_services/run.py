"""One request under way: its clock, its stages' deadlines, and what happened to it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import accumulate
from uuid import uuid4

from tastemaker import telemetry
from tastemaker.config import BudgetSettings

ANSWER_BY = 0.95
"""Part of the deadline after which no stage is waited for."""


class Run:
    """A request's clock starts when this is made.

    Args:
        catalogue: For the metrics.
        deadline_ms: Of the whole request.
        shares: See `shares`.
    """

    def __init__(self, catalogue: str, deadline_ms: float, shares: Mapping[str, float]) -> None:
        self._catalogue, self._shares = catalogue, shares
        self._started = time.perf_counter()
        self._deadline_ms = deadline_ms
        self.request_id = uuid4().hex
        self.degraded: list[str] = []
        self.cached_from: str | None = None
        """The earlier request whose list is answered again."""
        self.timings_ms: dict[str, float] = {}

    def elapsed_ms(self) -> float:
        """Since the start."""
        return (time.perf_counter() - self._started) * 1000

    def left_seconds(self, stage: str) -> float:
        """Until the stage must have answered."""
        return (self._deadline_ms * self._shares[stage] - self.elapsed_ms()) / 1000

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.timings_ms[name] = round(seconds * 1000, 3)
            telemetry.STAGE_SECONDS.labels(self._catalogue, name).observe(seconds)

    def fall_to(self, rung: str) -> None:
        """Notes and counts a fallback."""
        self.degraded.append(rung)
        telemetry.RUNGS_USED.labels(self._catalogue, telemetry.bounded(rung, telemetry.RUNGS)).inc()

    def end(self) -> None:
        """Stops the clock."""
        self.timings_ms["total"] = round(self.elapsed_ms(), 3)
        telemetry.STAGE_SECONDS.labels(self._catalogue, "total").observe(self.elapsed_ms() / 1000)


def shares(budget: BudgetSettings) -> dict[str, float]:
    """The part of the deadline by which each stage must have answered: its own share's end or the next stage's.

    A late stage thus costs the next one first, whose rung is the better one: a list in retrieval order is worth
    more than what trends. The last part of the deadline is for writing the answer.
    """
    stages = ("history", "retrieve", "rank", "rerank")
    ends = list(accumulate(getattr(budget, stage) for stage in stages))
    limits = [*ends[1:], ends[-1]]
    return {stage: ANSWER_BY * limit / ends[-1] for stage, limit in zip(stages, limits, strict=True)}
