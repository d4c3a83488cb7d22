"""Which processes of a machine, or of a container, have requests under way, in a page that they share: who loads a version gives way to them.

In a spread graph a request is at work in four processes, and what a load takes from it is cores, not the interpreter's lock.
"""

import hashlib
import logging
import mmap
import os
import tempfile
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
AGAIN_SECONDS: Final = 0.002
"""Between looks at the page while a load waits."""
_IN_MEMORY: Final = Path("/dev/shm")


def page_of(folder: Path) -> Path:
    """Where the page of those is who serve a home, by a folder of it: on the machine itself, also where the home is on a volume that others share.

    In memory where the system has a folder for that; so it goes with the machine, or with the container.
    """
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return place / f"tastemaker-under-way-{os.geteuid()}-{digest}"


class Neighbours:
    """The processes of one machine that share a page, this one among them. Thread-safe.

    Each writes until when it is busy at most, by the machine's clock.

    Args:
        page: The file that they share, see `page_of`; made where there is none.
        own: The requests of this process.
    """

    def __init__(self, page: Path, own: UnderWay = UNDER_WAY) -> None:
        self._until_S = np.frombuffer(_mapped(page), np.float64)
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
            time.sleep(AGAIN_SECONDS)
        return not self._own.any

    def _are_busy(self) -> bool:
        left_S = self._until_S - time.monotonic()
        # What a page says that is older than the machine's last start is of another clock.
        return bool(((left_S > 0) & (left_S <= AT_MOST_SECONDS)).any())

    def _tell(self, is_busy: bool) -> None:
        self._until_S[self._slot] = time.monotonic() + AT_MOST_SECONDS if is_busy else 0.0


def _mapped(path: Path) -> mmap.mmap:
    """The file in memory; where it cannot be had, or is somebody else's, a page that nobody shares."""
    size = SLOTS * np.dtype(np.float64).itemsize
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            found = os.fstat(file)
            if found.st_uid != os.geteuid():
                raise PermissionError(f"{path} is of user {found.st_uid}")
            if found.st_size < size:  # what others have said stays
                os.pwrite(file, bytes(size - found.st_size), found.st_size)  # takes its room now
            return mmap.mmap(file, size)
        finally:
            os.close(file)
    except (OSError, ValueError) as error:
        log.warning("loads give way to no other process of this machine: %s", error)
        return mmap.mmap(-1, size)
