"""What keeps a process answering at its speed while it loads a version: threads, the interpreter's lock, memory."""

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

LOWEST: Final = 19
"""Nice value of what can wait."""
SWITCH_SECONDS: Final = 0.0002
"""How long a thread that loads keeps the interpreter from one that answers, which takes it many times in one answer."""
T = TypeVar("T")


def prepare_process() -> None:
    """Call it once, after the imports and before the first version: nothing of then is ever looked at by the collector."""
    sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_SECONDS))
    gc.collect()
    gc.freeze()


def free_memory() -> None:
    """Gives what a dropped version had back to the system."""
    gc.collect()
    if _libc is not None:
        _libc.malloc_trim(0)


class _Rest:
    """How many want the garbage collector to rest."""

    def __init__(self) -> None:
        self._lock, self._number = threading.Lock(), 0

    def change(self, by: int) -> None:
        with self._lock:
            self._number += by
            if self._number:
                gc.disable()
            else:
                gc.enable()


_rest = _Rest()


@contextmanager
def without_collector() -> Iterator[None]:
    """Lets the garbage collector rest: it would look at the millions of objects that are being made, again and again."""
    _rest.change(1)
    try:
        yield
    finally:
        _rest.change(-1)


def at_low_priority(work: Callable[[], T]) -> T:
    """What `work` gives, in a thread that the system runs when nothing else wants to.

    For work that leaves the interpreter's lock alone, such as reading and hashing: who waits for the lock would wait for
    such a thread to be run again.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True, name="low-priority")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _glibc() -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL("libc.so.6")
    except OSError:  # another libc gives memory back by itself, or cannot
        return None
    return found if hasattr(found, "malloc_trim") else None


_libc = _glibc()
