"""Items' counters in a ranker's memory, kept as fresh as the totals by a thread of their own."""

import logging
import threading
import time
import weakref

import redis

from tastemaker import telemetry
from tastemaker.errors import CompatibilityError, StateError
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.state.keys import Keys

EVERY_SECONDS = 1.0
_MOST_OF_THE_TIME = 0.2
"""A catalogue that takes long to read is read less often: reading may take no more than this share of a thread."""
log = logging.getLogger(__name__)


class FreshItems:
    """Makes stores and refreshes each of them until nobody holds it.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._stores: weakref.WeakSet[ItemStore] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._warned = False
        self._fresh_at = time.monotonic()
        threading.Thread(target=self._watch, daemon=True, name="fresh-items").start()

    def store(self, facts: ItemFacts) -> ItemStore:
        """A store of some items with what is known of them now; nothing, while that cannot be read."""
        store = ItemStore(facts)
        self._refresh([store])
        with self._lock:
            self._stores.add(store)
        return store

    def _watch(self) -> None:
        seconds = 0.0
        while True:
            time.sleep(max(EVERY_SECONDS, seconds / _MOST_OF_THE_TIME))
            started = time.monotonic()
            with self._lock:
                stores = list(self._stores)
            self._refresh(stores)
            seconds = time.monotonic() - started
            del stores  # a version that is dropped meanwhile goes

    def _refresh(self, stores: list[ItemStore]) -> None:
        try:
            for store in stores:
                store.refresh(self._client, self._keys)
        except (StateError, CompatibilityError) as error:
            if not self._warned:
                log.warning("items' counters stay as they were: %s (their age is a metric)", error)
            self._warned = True
        else:
            self._warned, self._fresh_at = False, time.monotonic()
        telemetry.ITEMS_AGE.labels(self._keys.catalogue).set(time.monotonic() - self._fresh_at)
