"""What a request gets under load, decided as it comes: the whole graph, less of it, or none; 429 where even that is too much.

Two bounds on requests under way in one gateway, of which lower priorities may fill a part. The hard one is on all of them;
beyond it a request is refused. The other is on those that use stages, and finds its value: it shrinks where requests take up most
of their deadline, and grows where it is used and they do not (additive increase, multiplicative decrease [Chiu & Jain 1989]). A
bound that is not used is no measurement: what an overload left of it goes back towards the first one with time. Nobody
has to know how fast the graph is, and a queue that makes every request late is never built. Where the process itself cannot keep
up, its event loop is late: then stages are left out, and what would be late before it is begun is refused.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tastemaker import telemetry
from tastemaker.config_serving import SheddingSettings
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.schema import Priority

STEPS: Final = ((0.8, None), (0.9, "no-rerank"), (1.0, "retrieval-order"))
"""Up to which part of the bound on stages a request gets what."""
LATE: Final = 0.7
"""Part of the deadline beyond which an answer shows that too much is under way."""
SHRINK: Final = 0.8
BETWEEN_SHRINKS_SECONDS: Final = 0.1
"""Requests that wait for the same thing are late together and count once."""
CALM_SECONDS: Final = 5.0
"""So long without a late answer, and a bound below the first one doubles: light load, which would never widen it, shows no more overload."""
_MOST_DOUBLINGS: Final = 10
RETRY_SECONDS: Final = 1


def _now() -> float:
    return time.monotonic()


@dataclass(slots=True)
class Admitted:
    """A request under way: the highest rung that it may take, None for the whole graph.

    `used` is the part of its deadline that it took; None where that says nothing of the load.
    """

    rung: str | None
    used: float | None = None


class Load:
    """Counts one gateway's requests under way. For one event loop.

    Args:
        settings: The bounds.
        catalogue: For the metrics.
        lag: How late the process is, in deadlines.
        clock: Seconds.
    """

    def __init__(
        self,
        settings: SheddingSettings,
        catalogue: str,
        lag: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = _now,
    ) -> None:
        self._settings, self._catalogue, self._lag, self._clock = settings, catalogue, lag, clock
        self._shares: Mapping[Priority, float] = {
            "interactive": 1.0,
            "batch": settings.batch_share,
            "background": settings.background_share,
        }
        self._first = self.limit = float(min(settings.first_limit, settings.max_in_flight))
        """On requests that use stages, as of now."""
        self.in_flight = self.in_stages = 0
        self._shrunk_at = self._calm_since = float("-inf")
        self._gauges = (
            telemetry.IN_FLIGHT.labels(catalogue, "recommendations"),
            telemetry.IN_FLIGHT.labels(catalogue, "stages"),
            telemetry.LOAD_LIMIT.labels(catalogue),
        )

    @contextmanager
    def request(self, priority: Priority) -> Iterator[Admitted]:
        """Counts a request for as long as it is under way.

        Raises:
            Problem: 429, too many are.
        """
        admitted = Admitted(self._rung(priority))
        uses_stages = admitted.rung not in ("cached", "trending")
        self._count(1, uses_stages)
        try:
            yield admitted
        finally:
            if uses_stages and admitted.used is not None:
                self._learn(admitted.used)
            self._count(-1, uses_stages)

    def _rung(self, priority: Priority) -> str | None:
        self._recover()
        share = self._shares[priority]
        most, lag = share * self._settings.max_in_flight, self._lag()
        if self.in_flight + 1 > most:
            under_way = f"{self.in_flight} requests are under way, at most {most:.0f}"
            raise self._refusal(priority, f"{under_way} of priority {priority} join them")
        if lag > share:
            limit = f"at most {share:.1f} for priority {priority}"
            raise self._refusal(priority, f"the gateway is {lag:.1f} deadlines behind, {limit}")
        filled = (self.in_stages + 1) / max(share * self.limit, 1.0)
        if lag > share / 2:
            rung: str | None = "trending"
        elif not self.in_stages:  # alone: that must go
            rung = None
        elif filled <= STEPS[-1][0]:
            rung = next(rung for upto, rung in STEPS if filled <= upto)
        else:
            rung = "cached" if self.in_flight + 1 <= most / 2 else "trending"
        if rung is not None:
            self._shed(priority, rung)
        return rung

    def _refusal(self, priority: Priority, reason: str) -> Problem:
        self._shed(priority, "refused")
        headers = {"retry-after": str(RETRY_SECONDS)}
        return Problem(429, "overloaded", f"{reason}: retry", headers=headers)

    def _shed(self, priority: Priority, rung: str) -> None:
        telemetry.SHED.labels(self._catalogue, priority, rung).inc()

    def _count(self, more: int, uses_stages: bool) -> None:
        self.in_flight += more
        self.in_stages += more * uses_stages
        for gauge, value in zip(self._gauges, (self.in_flight, self.in_stages, self.limit), strict=True):
            gauge.set(value)

    def _learn(self, used: float) -> None:
        if used > LATE:
            now = self._calm_since = self._clock()
            if now - self._shrunk_at >= BETWEEN_SHRINKS_SECONDS:
                self._shrunk_at = now
                self.limit = max(float(self._settings.least_limit), SHRINK * self.limit)
        elif self.in_stages >= self.limit / 2:
            self.limit = min(float(self._settings.max_in_flight), self.limit + 1 / self.limit)

    def _recover(self) -> None:
        if self.limit >= self._first:
            return
        doublings = min(int((self._clock() - self._calm_since) // CALM_SECONDS), _MOST_DOUBLINGS)
        self.limit = min(self._first, self.limit * 2**doublings)
        self._calm_since += doublings * CALM_SECONDS
