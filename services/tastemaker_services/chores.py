"""What is done beside the streams, in a thread of the consumers' processes: erasures, Feast's rows, compaction.

Each is done by whichever process comes first, under a lock of the home or so that doing it twice does no harm.
"""

import logging
import threading
import time
from collections.abc import Callable

from tastemaker.config import Settings
from tastemaker.erasure import Eraser
from tastemaker.errors import TastemakerError, UsageError
from tastemaker.events.compaction import compact
from tastemaker.events.erasure import pending_erasures
from tastemaker.features.feast_repo import is_repo, repo_folder
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.projection import project_items, project_users
from tastemaker.home import Home
from tastemaker.state.connection import cache_url_of, connect, url_of
from tastemaker.state.keys import Keys

EVERY_SECONDS = 1.0
COMPACT_SECONDS = 3600.0
PROJECT_SECONDS = 5.0
"""At a time: under steady traffic there is always a changed user, and an erasure must not wait for the last."""
log = logging.getLogger(__name__)


class Chores:
    """Does all of it in turn until stopped."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings, self._home = settings, home
        self._client, self._cache = connect(url_of(settings, home)), connect(cache_url_of(settings, home))
        self._keys = Keys(settings.catalogue, settings.state.partitions)
        self._rows = FeastRows(self._client, settings.catalogue)
        self._repo = repo_folder(home, settings.catalogue)
        self._compact_at = time.monotonic() + COMPACT_SECONDS
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="chores")

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it after the chore under way."""
        self._stopped.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while not self._stopped.wait(EVERY_SECONDS):
            for chore in (self.erase, self.project, self.compact):
                _attempt(chore)

    def erase(self) -> None:
        """Erases the users for whom it was requested."""
        if pending_erasures(self._client, self._keys):
            for receipt in Eraser(
                self._settings, self._home, self._client, self._cache, self._keys
            ).erase_pending():
                log.warning("erased a user, receipt %s", receipt.receipt)

    def project(self) -> None:
        """Brings Feast's rows up to date, where there is a Feast repo to read them by."""
        if is_repo(self._repo):
            until = time.monotonic() + PROJECT_SECONDS
            while self._project_some() and time.monotonic() < until and not self._stopped.is_set():
                pass

    def _project_some(self) -> int:
        users = project_users(self._client, self._keys, self._rows)
        return users + project_items(self._client, self._keys, self._rows)

    def compact(self) -> None:
        """Merges the archive's small files, once in a while."""
        if time.monotonic() >= self._compact_at:
            self._compact_at = time.monotonic() + COMPACT_SECONDS
            catalogue = self._settings.catalogue
            compact(self._home / "events" / catalogue)
            compact(self._home / "decisions" / catalogue, "decision_id")


def _attempt(chore: Callable[[], None]) -> None:
    try:
        chore()
    except UsageError:
        pass  # another process is at it
    except TastemakerError as error:
        log.warning("a chore cannot be done for now: %s", error)
