"""How late an event loop is: what comes to a process that cannot keep up waits here first, before anything counts it."""

import asyncio
from collections import deque
from typing import Final

EVERY_SECONDS: Final = 0.05
LOOKS: Final = 3
"""Whose least counts: one long pause is over by the time that it is seen."""


class LoopLag:
    """Looks at the running event loop from the first question on, until the loop ends.

    Args:
        unit_seconds: What the lag is given in: the deadline of a request.
    """

    def __init__(self, unit_seconds: float) -> None:
        self._unit_seconds = unit_seconds
        self._newest: deque[float] = deque([0.0] * LOOKS, maxlen=LOOKS)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = 0.0

    def __call__(self) -> float:
        """The lag by now, in units."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._await_next()
        return min(self._newest) / self._unit_seconds

    def _look(self) -> None:
        assert self._loop is not None
        self._newest.append(max(0.0, self._loop.time() - self._due))
        self._await_next()

    def _await_next(self) -> None:
        assert self._loop is not None
        self._due = self._loop.time() + EVERY_SECONDS
        self._loop.call_at(self._due, self._look)
