"""Something that is done again and again, in a thread of its own, until it is stopped."""

import logging
import threading
from collections.abc import Callable

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
