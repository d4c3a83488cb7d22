"""Something that is done again and again until it is stopped, in a thread of its own or on an event loop."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from tastemaker.errors import TastemakerError

log = logging.getLogger(__name__)


class Every:
    """Does `work` every so many seconds; where it fails, the next time tries again.

    Args:
        seconds: Between the end of one time and the next.
        work: What is done; its `TastemakerError` is logged, once until it succeeds again.
        name: Of the thread.
    """

    def __init__(self, seconds: float, work: Callable[[], object], name: str) -> None:
        self._seconds, self._work = seconds, work
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=name)

    def start(self) -> None:
        """Begins; the first time is after `seconds`."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, after the time that is under way; waits 10 seconds for it at most. Without `start` it does nothing."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10.0)

    def _run(self) -> None:
        told = False
        while not self._stopped.wait(self._seconds):
            try:
                self._work()
                told = False
            except TastemakerError as error:
                if not told:
                    log.warning("%s: %s", self._thread.name, error)
                told = True


class EveryAsync:
    """The same on an event loop. Whatever fails in `work` is its own matter.

    Args:
        seconds: Between the end of one time and the next.
        work: What is done.
    """

    def __init__(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        self._seconds, self._work = seconds, work
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Does it once before it returns, and goes on until `stop`."""
        await self._work()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends it, also amid a time. Without `start` it does nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self._work()
