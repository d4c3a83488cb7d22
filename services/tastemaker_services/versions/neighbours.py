"""Which processes of a machine have requests under way, in a page of memory that they share: who loads a version gives way to all of them.

In a spread graph a request is at work in four processes, and what a load takes from it is cores, not the interpreter's lock.
"""

import logging
import mmap
import os
import socket
import time
from pathlib import Path
from typing import Final

import numpy as np

from tastemaker_services.versions.giving_way import UNDER_WAY, UnderWay

log = logging.getLogger(__name__)
SLOTS: Final = 512
"""Of one number each: a page. Two processes that share one, by their ids, now and then pass for idle: they are asked again in a moment."""
AT_MOST_SECONDS: Final = 0.25
"""So long after its newest request began a process passes for busy, if it does not say otherwise: it may have been killed, or hang."""

LOOK_SECONDS: Final = 0.002


class Neighbours:
    """The processes of one machine that share a folder, this one among them. Thread-safe.

    Each writes until when it is busy at most, by the machine's clock.

    Args:
        folder: Which they share; the page is a file in it.
        own: The requests of this process.
    """

    def __init__(self, folder: Path, own: UnderWay = UNDER_WAY) -> None:
        self._until_S = np.frombuffer(_page(folder / f"under-way-{socket.gethostname()}"), np.float64)
        self._own, self._slot = own, os.getpid() % SLOTS
        own.tell(self._tell)

    @property
    def any(self) -> bool:
        """Whether some have requests under way."""
        return self._own.any or self._are_busy()

    def wait(self, seconds: float) -> bool:
        """Waits until none has, for so long at most; whether none has."""
        give_up = time.monotonic() + seconds
        if not self._own.wait(seconds):
            return False
        while self._are_busy():
            if time.monotonic() >= give_up:
                return False
            time.sleep(LOOK_SECONDS)
        return not self._own.any

    def _are_busy(self) -> bool:
        left_S = self._until_S - time.monotonic()
        # What a page says that is older than the machine's last start is of another clock.
        return bool(((left_S > 0) & (left_S <= AT_MOST_SECONDS)).any())

    def _tell(self, is_busy: bool) -> None:
        self._until_S[self._slot] = time.monotonic() + AT_MOST_SECONDS if is_busy else 0.0


def _page(path: Path) -> mmap.mmap:
    """The file in memory; where it cannot be written, a page that nobody shares."""
    size = SLOTS * np.dtype(np.float64).itemsize
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.pwrite(
                file, bytes(size), 0
            )  # has its place on the disk from now on; what others had said they say again
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except OSError as error:
        log.warning("loads give way to no other process of this machine: %s", error)
        return mmap.mmap(-1, size)
