"""An event loop on which waiting takes no time: where nothing is to be done, its clock goes on to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch


class _Selector(selectors.DefaultSelector):
    """Never waits; tells the loop how long it would have."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` is virtual."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """What `main` gives, in place of `asyncio.run`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


@contextmanager
def virtual_time(*modules: str) -> Iterator[None]:
    """`asyncio.run` runs in virtual time, and the modules' clocks tell it.

    Args:
        modules: Names of those whose `time.perf_counter` and `time.monotonic` are the loop's.
    """

    def now() -> float:
        return asyncio.get_running_loop().time()

    clocks = SimpleNamespace(perf_counter=now, monotonic=now)
    with patch("asyncio.run", run):
        patches = [patch(f"{module}.time", clocks) for module in modules]
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()
