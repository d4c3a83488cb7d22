"""What is done beside the streams, in a thread of the consumers' processes: erasures, Feast's rows, compaction, skew, metrics.

Each is done by whichever process comes first, under a lock of the home or so that doing it twice does no harm.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from tastemaker import telemetry
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.item_archive import ItemArchiver
from tastemaker.erasure import Eraser
from tastemaker.errors import MissingExtraError, TastemakerError, UsageError
from tastemaker.events.compaction import compact
from tastemaker.events.erasure import pending_erasures
from tastemaker.experiments.skew import measure_skew
from tastemaker.features.feast_repo import is_repo, repo_folder
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.projection import project_items, project_users
from tastemaker.home import Home
from tastemaker.state.connection import cache_url_of, connect, url_of
from tastemaker.state.keys import Keys
from tastemaker.users.archive import archive_profiles
from tastemaker.users.merges import admit_merges
from tastemaker_services.stream.content_vectors import ContentVectors
from tastemaker_services.stream.home_gauges import HomeGauges
from tastemaker_services.stream.interests import Interests

EVERY_SECONDS = 1.0
COMPACT_SECONDS = 3600.0
SKEW_SECONDS = 3600.0
SETTLED_MS = 60_000
"""After which an answer and the events around it are archived, if consumers keep up."""
PROJECT_SECONDS = 5.0
"""At a time: under steady traffic there is always a changed user, and an erasure must not wait for the last."""
log = logging.getLogger(__name__)
T = TypeVar("T")


class Chores:
    """Does all of it in turn until stopped."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings, self._home = settings, home
        self._client, self._cache = connect(url_of(settings, home)), connect(cache_url_of(settings, home))
        self._keys = Keys(settings.catalogue, settings.state.partitions)
        self._interests = Interests(self._client, self._keys, home, BundleStore.of(settings, home))
        self._rows = FeastRows(self._client, settings.catalogue)
        self._repo = repo_folder(home, settings.catalogue)
        self._compact_at = time.monotonic() + COMPACT_SECONDS
        self._skew_at = time.monotonic() + SKEW_SECONDS
        self._items = ItemArchiver(self._client, self._keys, home)
        self._content, self._warned = ContentVectors(settings, home, self._client, self._keys), False
        self._gauges = HomeGauges(settings, home, self._client, self._cache)
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
            for chore in (
                self.erase,
                self.archive_items,
                self.merge,
                self.encode_items,
                self.encode_interests,
                self.keep_profiles,
                self.project,
                self.compact,
                self.skew,
                self._gauges.tell,
            ):
                _attempt(chore)

    def archive_items(self) -> None:
        """Copies what was put into the catalogue onto the home's disk."""
        self._items.archive()

    def encode_items(self) -> None:
        """Makes content vectors of what was put, where live bundles need an encoder that the graph does not run."""
        self._encode(self._content.encode)

    def encode_interests(self) -> None:
        """Encodes what users said of their interests."""
        until = time.monotonic() + PROJECT_SECONDS
        while self._encode(self._interests.work) and time.monotonic() < until:
            pass

    def _encode(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except MissingExtraError as error:
            if not self._warned:
                log.warning("what was put is found by its content only after the next training: %s", error)
            self._warned = True
            return None

    def erase(self) -> None:
        """Erases the users for whom it was requested."""
        if pending_erasures(self._client, self._keys):
            for receipt in Eraser(
                self._settings, self._home, self._client, self._cache, self._keys
            ).erase_pending():
                log.warning("erased a user, receipt %s", receipt.receipt)

    def merge(self) -> None:
        """Admits the merges of users that were asked for; the stream consumers move the users' past."""
        while admitted := admit_merges(self._client, self._keys, self._home, time.time_ns() // 1_000_000):
            telemetry.MERGES.labels(self._settings.catalogue).inc(len(admitted))

    def keep_profiles(self) -> None:
        """Writes changed profiles to the disk."""
        until = time.monotonic() + PROJECT_SECONDS
        while archive_profiles(self._client, self._keys, self._home) and time.monotonic() < until:
            pass

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

    def skew(self) -> None:
        """Compares the features of the last hour's answers with the log, once in a while."""
        if time.monotonic() >= self._skew_at:
            self._skew_at = time.monotonic() + SKEW_SECONDS
            until_ms = time.time_ns() // 1_000_000 - SETTLED_MS
            since_ms = until_ms - round(SKEW_SECONDS * 1000)
            self._tell_skew(since_ms, until_ms)

    def _tell_skew(self, since_ms: int, until_ms: int) -> None:
        catalogue = self._settings.catalogue
        late_days = self._settings.state.late_days
        found = measure_skew(self._home, catalogue, late_days, since_ms, until_ms)
        telemetry.SKEW_ROWS.labels(catalogue).set(found.rows)
        for feature in found.features:
            telemetry.SKEW.labels(catalogue, feature.feature).set(feature.differing)


def _attempt(chore: Callable[[], None]) -> None:
    try:
        chore()
    except UsageError:
        pass  # another process is at it
    except TastemakerError as error:
        log.warning("a chore cannot be done for now: %s", error)
