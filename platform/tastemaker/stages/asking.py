"""How the sources of a request are asked: one after the other, or side by side, each within a time.

Offline evaluation asks in turn, so that its answers are a function of its questions alone, and a fault ends it. Serving asks
side by side, but for sources that have been quick: a source that is late or fails is missing from the answer, which the others'
candidates make.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Final, Literal, Protocol, TypeVar

T = TypeVar("T")
Job = Callable[[], T]
Outcome = Literal["ok", "late", "failed"]
Count = Callable[[str, Outcome], None]
"""Counts what became of one call to a source of this name."""
WARN_EVERY_SECONDS: Final = 60.0
QUICK_SHARE: Final = 1 / 3
"""Part of the time that the sources asked in the caller's thread may take together."""
NEWEST_SHARE: Final = 0.05
"""Weight of a source's newest call in its mean time: one that was slow is watched for some twenty calls."""
log = logging.getLogger(__name__)


def _now() -> float:
    return time.monotonic()


class Asking(Protocol):
    """Does what sources are asked. Any thread may ask."""

    def all(self, jobs: Mapping[str, Job[T]], light: frozenset[str]) -> dict[str, T]:
        """What the sources' jobs gave, by their names; who is missing did not answer.

        `light` are those whose jobs are done at once.
        """
        ...

    def one(self, name: str, job: Job[T]) -> T | None:
        """What one source's job gave, done at once; None where it failed."""
        ...


class InTurn:
    """One after the other, however long it takes; what goes wrong is the caller's."""

    def all(
        self,
        jobs: Mapping[str, Job[T]],
        light: frozenset[str],  # noqa: ARG002 (all are done at once)
    ) -> dict[str, T]:
        """See `Asking.all`; all answer."""
        return {name: job() for name, job in jobs.items()}

    def one(self, name: str, job: Job[T]) -> T | None:  # noqa: ARG002 (nobody counts here)
        """See `Asking.one`."""
        return job()


class SideBySide:
    """Each source in threads of its own, all within a time; light ones, and those that have been quick, in the caller's thread.

    Giving work to a thread and waiting for it costs more than a quick source takes. The quickest sources, as many as together
    take `QUICK_SHARE` of the time by the mean of their newest calls, are asked one after the other meanwhile. Work inside FAISS or
    torch cannot be broken off: one of them that turns slow delays that answer by what it takes, and is asked in threads from
    then on, until it has been quick there for a while; so is every source at first.

    While a call in a thread is overdue its source is not asked again, and it counts as late, so that one slow source holds its
    own threads and nobody else's.

    Args:
        seconds: Until whoever has not answered is late.
        count: Counts each call.
        threads: Of each source: callers that are served at once.
        prepare: What each of the threads does first.
        clock: Seconds, by which calls are timed.
    """

    def __init__(
        self,
        seconds: float,
        count: Count,
        threads: int = 1,
        prepare: Callable[[], None] | None = None,
        clock: Callable[[], float] = _now,
    ) -> None:
        self._seconds, self._count, self._threads, self._prepare = seconds, count, threads, prepare
        self._clock = clock
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._overdue: dict[str, Future[object]] = {}
        self._mean_seconds: dict[str, float] = {}
        self._warned: dict[str, float] = {}

    def all(self, jobs: Mapping[str, Job[T]], light: frozenset[str]) -> dict[str, T]:
        """See `Asking.all`."""
        ends = self._clock() + self._seconds
        heavy = jobs.keys() - light
        quick = self._quick(heavy)
        waited = {
            name: self._pool(name).submit(self._timed, name, jobs[name])
            for name in heavy - set(quick)
            if not self._is_overdue(name)
        }
        found: dict[str, T] = {}
        for name in light & jobs.keys():
            self._ask_here(found, name, jobs[name])
        for name in quick:
            if self._clock() < ends:
                self._ask_here(found, name, partial(self._timed, name, jobs[name]))
            else:
                self._count(name, "late")
        wait(waited.values(), max(ends - self._clock(), 0))
        for name, future in waited.items():
            if not future.done():
                self._late(name, future)
            elif (error := future.exception()) is not None:
                self._failed(name, error)
            else:
                found[name] = future.result()
                self._count(name, "ok")
        for name in heavy - waited.keys() - set(quick):
            self._count(name, "late")
        return found

    def one(self, name: str, job: Job[T]) -> T | None:
        """See `Asking.one`."""
        try:
            return job()
        except Exception as error:  # noqa: BLE001 (whatever a source raises: the others answer)
            self._failed(name, error)
            return None

    def _ask_here(self, found: dict[str, T], name: str, job: Job[T]) -> None:
        answer = self.one(name, job)
        if answer is not None:
            found[name] = answer
            self._count(name, "ok")

    def _quick(self, names: Iterable[str]) -> list[str]:
        """Those to ask in the caller's thread, the quickest first."""
        together, chosen = 0.0, []
        for seconds, name in sorted((self._mean_seconds.get(name, self._seconds), name) for name in names):
            together += seconds
            if together > QUICK_SHARE * self._seconds:
                break
            chosen.append(name)
        return chosen

    def _timed(self, name: str, job: Job[T]) -> T:
        began = self._clock()
        try:
            return job()
        finally:
            took = self._clock() - began
            mean = self._mean_seconds.get(name, self._seconds)
            mean += NEWEST_SHARE * (took - mean)
            self._mean_seconds[name] = self._seconds if took >= self._seconds else mean

    def _pool(self, name: str) -> ThreadPoolExecutor:
        pool = self._pools.get(name)
        if pool is None:
            made = ThreadPoolExecutor(self._threads, f"source-{name}", self._prepare)
            pool = self._pools.setdefault(name, made)
        return pool

    def _is_overdue(self, name: str) -> bool:
        overdue = self._overdue.get(name)
        return overdue is not None and not overdue.done()

    def _late(self, name: str, future: "Future[T]") -> None:
        if not future.cancel():
            self._overdue[name] = future  # type: ignore[assignment]  # it is only asked whether it is done
        self._count(name, "late")
        self._warn(name, f"has not answered within {self._seconds * 1000:.0f} ms", None)

    def _failed(self, name: str, error: BaseException) -> None:
        self._count(name, "failed")
        self._warn(name, "failed", error)

    def _warn(self, name: str, what: str, error: BaseException | None) -> None:
        """Of each source once in a while: the metric has them all."""
        now = self._clock()
        if now - self._warned.get(name, -WARN_EVERY_SECONDS) >= WARN_EVERY_SECONDS:
            self._warned[name] = now
            log.warning("source %s %s: lists are made without it", name, what, exc_info=error)
