"""Items' totals over all partitions, and what is popular and trending by them.

A projection: an item that a commit has marked is read in every partition, summed up and written anew as a whole, so that
doing it twice does no harm. One consumer at a time does it, under a lease of its own, and a fence keeps an outlived
holder from writing older totals over newer ones. A mark goes only where the partition's record is still the one that
was summed up.

A ranking is a sorted set whose scores never age: log(value) + time / window orders items at any later moment as their
decayed values do, since all lose the same share [Cormode et al. 2009, forward decay]. No scan makes it fresh.

Shape letters: N items.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import redis

from tastemaker import telemetry
from tastemaker.features.counters import WEIGHT, WINDOWS_MS, Counters, row_of
from tastemaker.features.unreadable import UNREADABLE, Record, unreadable
from tastemaker.features.user_state import Category
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command, Lease, queue_commit

RANKINGS: Final = {"popular": "all", "trending": "7d"}
"""Windows of the rankings by weight."""
MOST_RANKED: Final = 1000
_MOST_ITEMS = 1000
_NOTHING = Counters.zeros(1).encode()[0]
log = logging.getLogger(__name__)
# KEYS: marks, records. ARGV: item ids and the records that were summed up, in turn.
_UNMARK = """
for i = 1, #ARGV, 2 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '') == ARGV[i + 1] then redis.call('SREM', KEYS[1], ARGV[i]) end
end
"""


class ItemTotals:
    """Makes the totals of changed items, where no other process does. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        category: Of items; those of none stand in no category's ranking.
    """

    def __init__(self, client: redis.Redis, keys: Keys, category: Category) -> None:
        self._client, self._keys, self._category = client, keys, category
        self._lease = Lease(client, keys.lease, keys.fence)

    def project(self) -> int:
        """Makes totals anew, about a thousand; gives how many. 0 where another process holds the lease.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        if not self._lease.hold():
            return 0
        with state_errors("make item totals"):
            item_ids = self._marked()
            if not item_ids:
                return 0
            parts = self._read(item_ids)
            try:
                totals = _sum(parts)
            except UNREADABLE:
                item_ids, parts = _readable(item_ids, parts)
                totals = _sum(parts)
            if not item_ids or not self._write(item_ids, totals):
                return 0
            self._unmark(item_ids, parts)
        telemetry.ITEM_TOTALS.labels(self._keys.catalogue).inc(len(item_ids))
        return len(item_ids)

    def close(self) -> None:
        """Gives the lease up."""
        self._lease.release()

    def _marked(self) -> list[str]:
        """Some of the changed items, by chance, so that none waits for ever."""
        pipe: Any = self._client.pipeline(transaction=False)
        for p in range(self._keys.partitions):
            pipe.srandmember(self._keys.changed_items(p), -(-_MOST_ITEMS // self._keys.partitions))
        return list(dict.fromkeys(item_id for found in pipe.execute() for item_id in found))

    def _read(self, item_ids: Sequence[str]) -> list[list[Record]]:
        """Each partition's records of the items."""
        pipe: Any = self._client.pipeline(transaction=False)
        for p in range(self._keys.partitions):
            pipe.execute_command("HMGET", self._keys.item_counters(p), *item_ids, NEVER_DECODE=True)
        found: list[list[Record]] = pipe.execute()
        return found

    def _write(self, item_ids: Sequence[str], totals: Counters) -> bool:
        """False where another process has taken the lease meanwhile."""
        there = {
            id_: record for id_, record in zip(item_ids, totals.encode(), strict=True) if record != _NOTHING
        }
        gone = [item_id for item_id in item_ids if item_id not in there]
        commands: list[Command] = [("SADD", self._keys.changed_totals, *item_ids)]
        if there:
            fields = [word for pair in there.items() for word in pair]
            commands.append(("HSET", self._keys.item_totals, *fields))
        if gone:
            commands.append(("HDEL", self._keys.item_totals, *gone))
        for name, window in RANKINGS.items():
            commands += self._ranked(name, item_ids, scores(totals, window))
        pipe: Any = self._client.pipeline(transaction=False)
        queue_commit(pipe, self._keys.item_totals_guard, self._lease.fence, commands)
        return bool(pipe.execute()[0])

    def _ranked(self, name: str, item_ids: Sequence[str], score_N: Iterable[float]) -> list[Command]:
        """Puts items into a ranking and that of their category; takes those without weight out."""
        entries: dict[str, list[str]] = {}
        weightless: dict[str, list[str]] = {}
        for item_id, score in zip(item_ids, score_N, strict=True):
            category = self._category(item_id)
            for ranking in (name, in_category(name, category)) if category else (name,):
                if np.isfinite(score):
                    entries.setdefault(ranking, []).extend((repr(float(score)), item_id))
                else:
                    weightless.setdefault(ranking, []).append(item_id)
        longest = str(-MOST_RANKED - 1)
        commands: list[Command] = []
        for ranking, words in entries.items():
            key = self._keys.ranking(ranking)
            commands += [("ZADD", key, *words), ("ZREMRANGEBYRANK", key, "0", longest)]
        return commands + [("ZREM", self._keys.ranking(r), *ids) for r, ids in weightless.items()]

    def _unmark(self, item_ids: Sequence[str], parts: Sequence[Sequence[Record]]) -> None:
        pipe: Any = self._client.pipeline(transaction=False)
        for p in range(self._keys.partitions):
            pipe.smismember(self._keys.changed_items(p), item_ids)
        marks = pipe.execute()
        for p, (records, marked) in enumerate(zip(parts, marks, strict=True)):
            summed = zip(item_ids, records, marked, strict=True)
            words = [word for item_id, record, mark in summed if mark for word in (item_id, record or b"")]
            if words:
                pipe.eval(_UNMARK, 2, self._keys.changed_items(p), self._keys.item_counters(p), *words)
        pipe.execute()


def top(client: redis.Redis, keys: Keys, name: str, k: int) -> list[str]:
    """The first `k` items of a ranking, best first; at most `MOST_RANKED` are kept.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors(f"read the ranking {name}"):
        found: Any = client.zrange(keys.ranking(name), 0, k - 1, desc=True)
    return list(found)


def in_category(name: str, category: str) -> str:
    """The ranking `name` among the items of a category.

    >>> in_category("trending", "drama")
    'trending:category=drama'
    """
    return f"{name}:category={category}"


def scores(totals: Counters, window: str) -> list[float]:
    """Each item's score in a ranking by the weight of a window; -inf without weight.

    >>> e = Counters.zeros(2).plus(np.array([0, 1]), np.array([row_of(WEIGHT)] * 2), np.ones(2), np.array([0, 604800000]))
    >>> scores(e, "7d"), scores(e, "all")  # a week apart: one of e-fold
    ([0.0, 1.0], [0.0, 0.0])
    """
    value_N = totals.value_NKW[:, row_of(WEIGHT), list(WINDOWS_MS).index(window)]
    with np.errstate(divide="ignore"):
        found: list[float] = (np.log(value_N) + totals.last_ms_N / WINDOWS_MS[window]).tolist()
    return found


def _readable(
    item_ids: Sequence[str], parts: Sequence[Sequence[Record]]
) -> tuple[list[str], list[list[Record]]]:
    """Without the items of which a record cannot be decoded: they keep their marks and the totals that they have."""
    bad = {n for records in parts for n in unreadable(records, Counters.decode)}
    log.warning("counters of %d items cannot be read: run `tastemaker features rebuild`", len(bad))
    keep = [n for n in range(len(item_ids)) if n not in bad]
    return [item_ids[n] for n in keep], [[records[n] for n in keep] for records in parts]


def _sum(parts: Iterable[Sequence[Record]]) -> Counters:
    total, *others = [Counters.decode(records) for records in parts]
    for other in others:
        total = total.merged(other)
    return total
