"""Work beside requests lets them go first: loading a version, trying it, a shadow's answers.

A thread that holds the interpreter's lock, or a core, delays each request that needs it; and a request needs the lock hundreds of
times. So such work goes on between requests, while the process answers none, and only where it found too little of that, beside
them.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, Self

GRACE_SECONDS: Final = 1.0
MOST_WAITS: Final = 1.5
"""A load waits for as many times what it works, besides `GRACE_SECONDS`: a busy process swaps later, but it swaps."""
ONCE_SECONDS: Final = 0.25
"""And no longer at once: what it holds locked meanwhile, a request may wait for."""
AFTER_SECONDS: Final = 0.002
"""From the end of a request's stages: its answer is on its way by then."""
LOOK_SECONDS: Final = 0.005


class UnderWay:
    """The requests that a process is answering: a context for each. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._number = threading.Lock(), 0
        self._none = threading.Event()
        self._none.set()

    @property
    def any(self) -> bool:
        """Whether there are some."""
        return self._number > 0

    def wait(self, seconds: float) -> bool:
        """Waits until there is none, for so long at most; whether there is none."""
        return self._none.wait(seconds)

    def __enter__(self) -> Self:
        with self._lock:
            self._number += 1
            if self._number == 1:
                self._none.clear()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._number -= 1
            if not self._number:
                self._none.set()


UNDER_WAY: Final = UnderWay()
"""Of this process."""


class BetweenRequests:
    """The pace of work that goes on while no request is under way. For one thread.

    Args:
        under_way: The requests.
        clock: Seconds.
    """

    def __init__(self, under_way: UnderWay = UNDER_WAY, clock: Callable[[], float] = time.monotonic) -> None:
        self._under_way, self._clock = under_way, clock
        self._began, self._waited = clock(), 0.0

    def __call__(self) -> None:
        """Waits until no request is under way, or until it has waited enough for what it has worked."""
        if not self._under_way.any:
            return
        now = self._clock()
        worked = now - self._began - self._waited
        left = GRACE_SECONDS + MOST_WAITS * worked - self._waited
        if left > 0:
            if self._under_way.wait(min(left, ONCE_SECONDS)):
                time.sleep(AFTER_SECONDS)
            self._waited += self._clock() - now


async def quiet_moment(is_busy: Callable[[], bool], patience_seconds: float) -> bool:
    """Waits until nothing is under way, for so long at most; whether nothing is."""
    give_up = time.monotonic() + patience_seconds
    while is_busy():
        if time.monotonic() >= give_up:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True
