"""Which of the put items have been shown so often that they need no traffic of their own any more."""

from collections.abc import Sequence
from typing import Any, Final

import redis

from tastemaker.features.counters import WINDOWS_MS, Counters, row_of
from tastemaker.features.unreadable import UNREADABLE
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

MOST_READ: Final = 2000
"""Newest items that are looked at."""
MOST_IMPRESSIONS: Final = 500.0
"""From so many on an item is well known."""


class WellKnown:
    """Keeps the ids of such items. One thread refreshes; any may read.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self.item_ids: frozenset[str] = frozenset()

    def current(self) -> frozenset[str]:
        """As of the last refresh."""
        return self.item_ids

    def refresh(self, item_ids: Sequence[str]) -> None:
        """Reads the totals of the newest of some items, in one exchange.

        Raises:
            StateError: Redis/Valkey cannot be reached; what is known stays.
        """
        newest = list(item_ids[-MOST_READ:])
        if not newest:
            return
        with state_errors("read how often items were shown"):
            pipe: Any = self._client.pipeline(transaction=False)
            pipe.execute_command("HMGET", self._keys.item_totals, *newest, NEVER_DECODE=True)
            (records,) = pipe.execute()
        try:
            totals = Counters.decode(records)
        except UNREADABLE:  # whoever makes the totals says so
            return
        shown_N = totals.value_NKW[:, row_of("impression"), list(WINDOWS_MS).index("all")]
        known = (item_id for item_id, shown in zip(newest, shown_N, strict=True) if shown >= MOST_IMPRESSIONS)
        self.item_ids = frozenset(known)
