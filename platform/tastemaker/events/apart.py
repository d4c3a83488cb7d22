"""How a consumer goes on while a part of the state is away: partition by partition, so that one does not stop the others.

Of a Redis Cluster a node may be away, or a slot on its way to another node. Steps of all partitions at once are for good
times: one round trip for all. After an error each partition is stepped by itself for a while, those that fail rest, and what
is of the whole catalogue waits until it can be done. On a single server nothing is left to go on with, and it is an error.
"""

import logging
import time
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from tastemaker.errors import StateError

APART_SECONDS: Final = 5.0
"""How long partitions are stepped one by one after the last error."""
REST_SECONDS: Final = 0.5
"""How long a partition that failed is left alone."""
WAIT_SECONDS: Final = 1.0
"""The same of what is of the whole catalogue."""
T = TypeVar("T")
log = logging.getLogger(__name__)


class Apart:
    """Whether partitions are stepped one by one, and which of them rest. Not thread-safe.

    Args:
        in_parts: Whether a part of the state can be away while others are there.
    """

    def __init__(self, *, in_parts: bool) -> None:
        self._in_parts = in_parts
        self._until = 0.0
        self._resting: dict[int, float] = {}
        self._waiting: dict[str, float] = {}

    @property
    def is_on(self) -> bool:
        """Whether something failed lately."""
        return time.monotonic() < self._until

    @property
    def is_waiting(self) -> bool:
        """Whether anything of the whole catalogue failed and was not done since."""
        return bool(self._waiting)

    def begin(self) -> None:
        """Something failed."""
        if self._in_parts:
            self._until = time.monotonic() + APART_SECONDS

    def groups(self, partitions: Iterable[int]) -> list[list[int]]:
        """The partitions to step together: all of them, or each by itself without those that rest."""
        if not self.is_on:
            self._resting.clear()
            return [list(partitions)]
        now = time.monotonic()
        return [[p] for p in partitions if self._resting.get(p, 0.0) <= now]

    def rest(self, partitions: Iterable[int]) -> None:
        """These failed: they rest, and the others go on one by one."""
        self.begin()
        self._resting |= dict.fromkeys(partitions, time.monotonic() + REST_SECONDS)

    def attempt(self, action: Callable[[], T], otherwise: T) -> T:
        """What an action of the whole catalogue gives; it may fail, and then waits, while partitions are stepped one by one.

        Raises:
            StateError: It failed, and nothing had before.
        """
        name = action.__qualname__
        if self.is_on and time.monotonic() < self._waiting.get(name, 0.0):
            return otherwise
        try:
            done = action()
        except StateError as error:
            if not self.is_on:
                raise
            self.begin()
            self._waiting[name] = time.monotonic() + WAIT_SECONDS
            log.warning("waits for the state to be whole: %s", error)
            return otherwise
        self._waiting.pop(name, None)
        return done
