"""The stages of one answer by one thread, each begun as soon as the one before is done: no hand-over between them.

A request that was begun is thus done before the thread takes the next: of two at once one answer comes early, where turns by
stage would make both late. Each stage keeps its own deadline: who waits takes what was done by then.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from tastemaker.types import Candidates, Query
from tastemaker_services.replicas.calls import Failed


@dataclass(frozen=True, slots=True)
class Went:
    """How a stage went: how long it took, and its answer; None where it failed."""

    seconds: float
    answer: Candidates | None


@dataclass(frozen=True, slots=True)
class Way:
    """A request's way: how long it waited for its turn, and how those stages went that ended in time.

    One that was never begun waited for as long as it was waited for.
    """

    waited_seconds: float
    went: Mapping[str, Went]
    is_begun: bool = True


class Through(Protocol):
    """All stages of an answer, one after the other."""

    async def __call__(self, sha256: str, query: Query, limits: Mapping[str, float]) -> Way:
        """A request's way; behind a stage that failed or was late, none is begun.

        Args:
            sha256: Of the bundle's manifest.
            query: What is asked.
            limits: The stages in their order, and in how many seconds from now each must have answered.
        """
        ...


Step = Callable[[tuple[Any, ...]], Candidates | Failed]
"""What a stage answers to (manifest hash, query) and, after the first, candidates."""


class ThroughPool:
    """In a pool of threads. For one event loop.

    Args:
        pool: Its threads.
        steps: By the stages' names.
    """

    def __init__(self, pool: Executor, steps: Mapping[str, Step]) -> None:
        self._pool, self._steps = pool, steps

    async def __call__(self, sha256: str, query: Query, limits: Mapping[str, float]) -> Way:
        """See `Through`."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        journey = _Journey([(name, self._steps[name]) for name in limits], (sha256, query))
        under_way = loop.run_in_executor(self._pool, journey.go)
        try:
            for name, seconds in limits.items():
                if name in journey.went:
                    continue
                await asyncio.wait([under_way], timeout=max(began + seconds - loop.time(), 0))
                if under_way.done() or name not in journey.went:
                    break
        finally:
            journey.goes_on = False
            under_way.cancel()  # one that no thread has taken is never begun
        if journey.waited_seconds is None:
            return Way(loop.time() - began, {}, is_begun=False)
        return Way(journey.waited_seconds, dict(journey.went))


class _Journey:
    """One request's way; it ends where a stage fails, or where nobody waits any more."""

    def __init__(self, steps: Sequence[tuple[str, Step]], call: tuple[Any, ...]) -> None:
        self._steps, self._call = steps, call
        self._last = time.perf_counter()
        self.waited_seconds: float | None = None
        """Until a thread took it; None while none has."""
        self.went: dict[str, Went] = {}
        self.goes_on = True

    def go(self) -> None:
        candidates: tuple[Candidates, ...] = ()
        self.waited_seconds = self._lap()
        for name, step in self._steps:
            if not self.goes_on:
                return
            answer = step((*self._call, *candidates))
            seconds = self._lap()
            if isinstance(answer, Failed):
                self.went[name] = Went(seconds, None)
                return
            self.went[name] = Went(seconds, answer)
            candidates = (answer,)

    def _lap(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before
