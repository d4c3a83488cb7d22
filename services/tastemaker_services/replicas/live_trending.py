"""Keeps what trends now in a process, read anew every few seconds in a thread of its own."""

import logging
import threading
import time

import redis

from tastemaker import telemetry
from tastemaker.config_serving import TrendingSettings
from tastemaker.errors import StateError
from tastemaker.features.trending import Trending, read_trending
from tastemaker.state.keys import Keys

log = logging.getLogger(__name__)


class LiveTrending:
    """The newest snapshot. One thread refreshes, any may ask for `current`.

    Args:
        client: Of the role `state.url`; the thread's own.
        keys: Of the catalogue.
        settings: How often, and when a snapshot is to be trusted.
    """

    def __init__(self, client: redis.Redis, keys: Keys, settings: TrendingSettings) -> None:
        self._client, self._keys, self._settings = client, keys, settings
        self._newest: Trending | None = None
        self._read_ms = time.time_ns() // 1_000_000
        self._age = telemetry.TRENDING_AGE.labels(keys.catalogue)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def current(self) -> Trending | None:
        """The newest snapshot; None before the first, and where too little has happened to say what trends.

        While state cannot be read the last one stays.
        """
        return self._newest

    def refresh(self) -> None:
        """Reads a snapshot. Where state cannot be read it warns, and the last one stays."""
        now_ms = time.time_ns() // 1_000_000
        try:
            found = read_trending(self._client, self._keys, now_ms, self._settings.country_prior)
        except StateError as error:
            log.warning("what trends stays as it is: %s", error)
        else:
            self._newest = found if found.weight >= self._settings.least_weight else None
            self._read_ms = found.read_ms
        self._age.set((time.time_ns() // 1_000_000 - self._read_ms) / 1000)

    def start(self) -> None:
        """Reads a first snapshot, and the next ones in a thread. Again, it does nothing."""
        if self._thread is None:
            self.refresh()
            self._thread = threading.Thread(target=self._watch, daemon=True, name="trending")
            self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)

    def _watch(self) -> None:
        while not self._stopped.wait(self._settings.refresh_seconds):
            self.refresh()
