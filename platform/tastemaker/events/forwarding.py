"""Takes a spool's events to the log, in order, in a thread of its own: whatever it waits for, answers do not."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.events.log import Record
from tastemaker.events.spool import Spool

CHUNK_BYTES: Final = 2**20
IDLE_SECONDS: Final = 0.5
TROUBLED_SECONDS: Final = 0.5
ADOPT_EVERY: Final = 20
"""Idle turns between looks at what other processes left behind."""
log = logging.getLogger(__name__)


class Forwarder:
    """Empties a spool for as long as it runs.

    Args:
        spool: Started.
        deliver: Puts records on the log's disk; StateError where it cannot. Called again with the same records then.
        catalogue: For the count.
    """

    def __init__(self, spool: Spool, deliver: Callable[[Sequence[Record]], object], catalogue: str) -> None:
        self._spool, self._deliver = spool, deliver
        self._forwarded = telemetry.SPOOL_EVENTS.labels(catalogue, "forwarded")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="spool-forwarder")
        self._idle_turns = 0
        self._troubled = False

    def start(self) -> None:
        """Starts forwarding."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the delivery under way; what is left stays in the spool."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except (StateError, OSError) as error:
                if not self._troubled:
                    log.warning("events wait in the spool: %s (said once until it goes on)", error)
                self._troubled = True
                self._stopping.wait(TROUBLED_SECONDS)
            else:
                self._troubled = False

    def _turn(self) -> None:
        chunk = self._spool.next(CHUNK_BYTES, IDLE_SECONDS)
        if chunk is None:
            self._spool.retire()
            self._idle_turns += 1
            if self._idle_turns % ADOPT_EVERY == 0:
                self._spool.adopt()
            return
        self._deliver(chunk.records)
        self._spool.forwarded(chunk)
        self._forwarded.inc(len(chunk.records))
