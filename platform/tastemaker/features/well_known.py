"""How often the put items have been shown and clicked, for those who explore; and from when on an item needs no traffic of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis

from tastemaker.features.counters import WINDOWS_MS, Counters, row_of
from tastemaker.features.unreadable import UNREADABLE
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

MOST_READ: Final = 2000
"""Newest items that are looked at."""
MOST_IMPRESSIONS: Final = 500.0
"""From so many on an item is well known."""


class Tried(NamedTuple):
    """How often an item was shown, and clicked."""

    shown: float
    clicked: float

    @property
    def is_well_known(self) -> bool:
        """Whether it needs no traffic of its own any more."""
        return self.shown >= MOST_IMPRESSIONS


class WellKnown:
    """Keeps that of the newest items. One thread refreshes; any may read.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._tried: Mapping[str, Tried] = {}

    def current(self) -> Mapping[str, Tried]:
        """By item id, as of the last refresh."""
        return self._tried

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
        count_NK = totals.value_NKW[:, :, list(WINDOWS_MS).index("all")]
        shown_N, clicked_N = count_NK[:, row_of("impression")], count_NK[:, row_of("click")]
        self._tried = {
            item_id: Tried(float(shown), float(clicked))
            for item_id, shown, clicked in zip(newest, shown_N, clicked_N, strict=True)
        }
