"""Circuit breakers: a part that has failed or been late too often is left alone, and tried by single probes until it answers.

Without them each request would first wait for a part that does not answer, its whole share of the deadline, before it takes
the next rung. A breaker knows nothing of what it guards.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Final, TypeVar

from tastemaker import telemetry
from tastemaker.config_serving import BreakerSettings
from tastemaker.errors import StateError

PARTS: Final = (
    "retrieve", "session", "rank", "rerank", "nearest", "history", "experiment", "cache", "stored",
)  # fmt: skip
"""The stages, the session's part of retrieval, lists by a single stage, and what a request reads of the state."""
OWN_LATENESS: Final = 0.5
"""Part of the time of a call; where that is over by more, this process was late itself, and the part is not to blame."""
T = TypeVar("T")
log = logging.getLogger(__name__)


def _now() -> float:
    return time.monotonic()


class State(IntEnum):
    """Of a breaker, as its metric has it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """One part's. For one event loop.

    Closed, it lets every call through; it opens where, of the newest calls, too great a share has failed. Open, it refuses;
    after a while it is half-open: one call at a time may try, whose success closes it and whose failure opens it anew.

    Args:
        settings: When it opens and how long it stays so.
        note: Gets each new state.
        clock: Seconds.
    """

    def __init__(
        self,
        settings: BreakerSettings,
        note: Callable[[State], None] = lambda _: None,
        clock: Callable[[], float] = _now,
    ) -> None:
        self._settings, self._note, self._clock = settings, note, clock
        self._newest: deque[tuple[float, bool]] = deque(maxlen=settings.calls)
        self._tried_at = 0.0
        self.state = State.CLOSED

    def allows(self) -> bool:
        """Whether a call may be made now. Where it is a probe, its outcome is awaited for `retry_seconds` at most."""
        if self.state is State.CLOSED:
            return True
        now = self._clock()
        if now - self._tried_at < self._settings.retry_seconds:
            return False
        self._tried_at = now
        self._turn(State.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        """A call got its answer in time."""
        if self.state is not State.CLOSED:
            self._newest.clear()
            self._turn(State.CLOSED)
        self._newest.append((self._clock(), False))

    def failed(self) -> None:
        """A call got none, in a time in which it should have."""
        now = self._clock()
        if self.state is not State.CLOSED:
            if self.state is State.HALF_OPEN:
                self._turn(State.OPEN)
            return
        self._newest.append((now, True))
        while now - self._newest[0][0] > self._settings.window_seconds:
            self._newest.popleft()
        failures = sum(failed for _, failed in self._newest)
        enough = len(self._newest) >= self._settings.least_calls
        if enough and failures >= self._settings.failure_share * len(self._newest):
            self._tried_at = now
            self._turn(State.OPEN)

    def _turn(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            self._note(state)


class Breakers:
    """One for each part. For one event loop.

    Args:
        settings: Of all of them.
        catalogue: For the metrics.
        clock: Seconds.
    """

    def __init__(self, settings: BreakerSettings, catalogue: str, clock: Callable[[], float] = _now) -> None:
        self._clock = clock
        self._breakers = {part: breaker_of(part, settings, catalogue, clock) for part in PARTS}

    def __getitem__(self, part: str) -> Breaker:
        return self._breakers[part]

    async def read(
        self, part: str, read: Callable[[], Awaitable[T]], seconds: float, fair_seconds: float
    ) -> T:
        """What `read` gives.

        Args:
            part: Whose breaker it stands behind.
            read: Reads the state.
            seconds: How long it may take.
            fair_seconds: Not to have answered in less counts for nothing: the request had no time.

        Raises:
            StateError: It fails or is late, or has been so often that it is not tried.
        """
        breaker = self[part]
        if not breaker.allows():
            raise StateError(f"{part} is not read for the moment: it did not answer")
        started = self._clock()
        try:
            async with asyncio.timeout(seconds):
                found = await read()
        except TimeoutError as error:
            if seconds >= fair_seconds and self._clock() - started <= (1 + OWN_LATENESS) * seconds:
                breaker.failed()
            raise StateError(f"{part} is late: over {1000 * seconds:.0f} ms") from error
        except StateError:
            breaker.failed()
            raise
        breaker.succeeded()
        return found


def breaker_of(
    part: str, settings: BreakerSettings, catalogue: str, clock: Callable[[], float] = _now
) -> Breaker:
    """A part's, which tells its state in metrics and log."""
    gauge = telemetry.BREAKER_STATE.labels(catalogue, part)
    opened = telemetry.BREAKER_OPENED.labels(catalogue, part)
    gauge.set(State.CLOSED)

    before = State.CLOSED

    def note(state: State) -> None:
        nonlocal before
        gauge.set(state)
        if state is State.OPEN and before is State.CLOSED:  # not of a probe that failed
            opened.inc()
            log.warning("%s does not answer: not tried but by probes until it does", part)
        before = State.CLOSED if state is State.CLOSED else State.OPEN

    return Breaker(settings, note, clock)
