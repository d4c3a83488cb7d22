"""Long work in steps, between which what runs beside it may come first.

Whoever reads a whole catalogue calls `step` every millisecond or so; a thread that does so beside others that answer is given a
pace by `paced`, and waits there. Without a pace a step costs nothing. Not for what waits for a resource.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Pace = Callable[[], None]
"""Returns when the thread may go on."""


class _Own(threading.local):
    pace: Pace | None = None


_own = _Own()


def step() -> None:
    """Between two steps of long work: waits where this thread's pace wants it to."""
    if _own.pace is not None:
        _own.pace()


@contextmanager
def paced(pace: Pace | None) -> Iterator[None]:
    """Has the block's steps in this thread wait for `pace`; None: they wait for nothing."""
    before, _own.pace = _own.pace, pace
    try:
        yield
    finally:
        _own.pace = before


def current() -> Pace | None:
    """This thread's pace, to be given to a thread that works for it."""
    return _own.pace
