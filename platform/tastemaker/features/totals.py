"""Items' totals over all partitions, and by them what is popular and trending, everywhere and by country.

A projection: what a commit has marked is read in every partition, summed up and written anew as a whole, so that doing it
twice does no harm. One consumer at a time does it, under a lease of its own, and a fence keeps an outlived holder from
writing older totals over newer ones. Countries have rankings and no totals of their own: nothing else reads them.
"""

import itertools
import secrets
from typing import Any, Final

import redis

from tastemaker import telemetry
from tastemaker.features.counters import Counters
from tastemaker.features.countries import split_id
from tastemaker.features.partials import Partials, Sums
from tastemaker.features.rankings import (
    TREND_WINDOW,
    Entry,
    commands_of,
    in_category,
    in_country,
    scores,
    windows,
)
from tastemaker.features.user_state import Category
from tastemaker.state.connection import scan_keys, state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command, Lease, queue_commit

_NOTHING: Final = Counters.zeros(1).encode()[0]
_READ: Final = 4_000


class ItemTotals:
    """Makes the totals and rankings of what changed, where no other process does. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        category: Of items; those of none stand in no category's ranking.
        trend_window: Of `trending`; see `counters.WINDOWS_MS`. Rankings of another one are made anew.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, category: Category, trend_window: str = TREND_WINDOW
    ) -> None:
        self._client, self._keys, self._category = client, keys, category
        self._trend_window, self._windows = trend_window, windows(trend_window)
        self._lease = Lease(client, keys.lease, keys.fence)
        self._agreed_fence = 0
        self._items = Partials(client, keys.partitions, keys.item_counters, keys.changed_items)
        self._local = Partials(client, keys.partitions, keys.local_counters, keys.changed_local)

    def project(self) -> int:
        """Makes totals and rankings anew, of about a thousand items; gives how many. 0 where another holds the lease.

        An item counts once for its totals and once for each country that it changed in.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        if not self._lease.hold():
            return 0
        with state_errors("make item totals"):
            if self._agreed_fence != self._lease.fence:
                self._agree_on_window()
            num_items = self._project(self._items)
            telemetry.ITEM_TOTALS.labels(self._keys.catalogue).inc(num_items)
            return num_items + self._project(self._local)

    def close(self) -> None:
        """Gives the lease up."""
        self._lease.release()

    def _project(self, partials: Partials) -> int:
        sums = partials.changed()
        if not sums.names:
            return 0
        commands = self._whole(sums) if partials is self._items else self._by_country(sums)
        pipe: Any = self._client.pipeline(transaction=False)
        queue_commit(pipe, self._keys.item_totals_guard, self._lease.fence, commands)
        if not pipe.execute()[0]:
            return 0  # another process has taken the lease meanwhile
        partials.settle(sums)
        return len(sums.names)

    def _whole(self, sums: Sums) -> list[Command]:
        """Totals, and ranks among all items and those of the category."""
        records = zip(sums.names, sums.totals.encode(), strict=True)
        there = {item_id: record for item_id, record in records if record != _NOTHING}
        gone = [item_id for item_id in sums.names if item_id not in there]
        commands: list[Command] = [
            ("SADD", self._keys.changed_totals, *sums.names),
            ("HSET", self._keys.item_totals_guard, "version", secrets.token_hex(8)),
        ]
        if there:
            fields = [word for pair in there.items() for word in pair]
            commands.append(("HSET", self._keys.item_totals, *fields))
        if gone:
            commands.append(("HDEL", self._keys.item_totals, *gone))
        entries = [
            Entry(ranking, item_id, score)
            for name, window in self._windows.items()
            for item_id, score in zip(sums.names, scores(sums.totals, window), strict=True)
            for ranking in self._among(name, item_id)
        ]
        return commands + commands_of(self._keys, entries)

    def _among(self, name: str, item_id: str) -> tuple[str, ...]:
        """The ranking, and that of the item's category where it has one."""
        category = self._category(item_id)
        return (name, in_category(name, category)) if category else (name,)

    def _by_country(self, sums: Sums) -> list[Command]:
        places = [split_id(name) for name in sums.names]
        entries = [
            Entry(in_country(name, country), item_id, score)
            for name, window in self._windows.items()
            for (country, item_id), score in zip(places, scores(sums.totals, window), strict=True)
        ]
        return commands_of(self._keys, entries)

    def _agree_on_window(self) -> None:
        """Makes rankings anew where they are of another window: scores of two windows cannot be compared."""
        guard = self._keys.item_totals_guard
        kept: Any = self._client.hget(guard, "trend_window")
        if (kept or TREND_WINDOW) != self._trend_window:
            empty_rankings(self._client, self._keys)
        if kept != self._trend_window:
            self._client.hset(guard, "trend_window", self._trend_window)
        self._agreed_fence = self._lease.fence


def empty_rankings(client: redis.Redis, keys: Keys) -> None:
    """Empties all rankings and marks all items, so that the next projections fill them; run again, it does no harm.

    A ranking keeps its best alone, and would not let go of items that lost what they had.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("empty the rankings"):
        for found in scan_keys(client, keys.ranking("*"), _READ):
            if found:
                client.delete(*found)
        client.delete(keys.rankings)
        _mark(client, keys.item_totals, keys.changed_items(0))
        for p in range(keys.partitions):
            _mark(client, keys.local_counters(p), keys.changed_local(p))


def _mark(client: redis.Redis, records: str, marks: str) -> None:
    """Marks all names of a hash of records as changed."""
    known = client.hscan_iter(records, count=_READ, no_values=True)
    while some := list(itertools.islice(known, _READ)):
        client.sadd(marks, *some)
