"""Counters that each partition has a part of: which of them changed there, and their sums over all partitions.

Whoever changes a part marks it in the same commit. A mark goes only where the part is still the one that was summed up,
so that a change meanwhile is not forgotten.

Shape letters: N records.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import redis

from tastemaker.features.counters import Counters
from tastemaker.features.unreadable import UNREADABLE, Record, unreadable

_MOST: Final = 1000
log = logging.getLogger(__name__)
# KEYS: marks, records. ARGV: names and the records that were summed up, in turn.
_UNMARK = """
for i = 1, #ARGV, 2 do
  if (redis.call('HGET', KEYS[2], ARGV[i]) or '') == ARGV[i + 1] then redis.call('SREM', KEYS[1], ARGV[i]) end
end
"""


class Sums(NamedTuple):
    """Changed records: their names, the sum of each over all partitions, and the parts that were summed up."""

    names: list[str]
    totals: Counters
    parts: list[list[Record]]


class Partials:
    """One hash of records and one set of marks in each partition. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        partitions: Of the catalogue.
        records_of: The hash of a partition: name -> counters of one record.
        marks_of: The set of a partition: names whose record has changed.
    """

    def __init__(
        self,
        client: redis.Redis,
        partitions: int,
        records_of: Callable[[int], str],
        marks_of: Callable[[int], str],
    ) -> None:
        self._client, self._partitions = client, range(partitions)
        self._records_of, self._marks_of = records_of, marks_of

    def changed(self) -> Sums:
        """About a thousand of the marked ones, by chance, so that none waits for ever; none that cannot be decoded."""
        names = self._marked()
        parts = self._read(names) if names else []
        try:
            return Sums(names, _sum(parts), parts)
        except UNREADABLE:
            names, parts = _readable(names, parts)
            return Sums(names, _sum(parts), parts)

    def settle(self, sums: Sums) -> None:
        """Takes the marks of what was summed up away, wherever that is still what is there."""
        pipe: Any = self._client.pipeline(transaction=False)
        for p in self._partitions:
            pipe.smismember(self._marks_of(p), sums.names)
        marks = pipe.execute()
        for p, (records, marked) in enumerate(zip(sums.parts, marks, strict=True)):
            summed = zip(sums.names, records, marked, strict=True)
            words = [word for name, record, mark in summed if mark for word in (name, record or b"")]
            if words:
                pipe.eval(_UNMARK, 2, self._marks_of(p), self._records_of(p), *words)
        pipe.execute()

    def _marked(self) -> list[str]:
        pipe: Any = self._client.pipeline(transaction=False)
        for p in self._partitions:
            pipe.srandmember(self._marks_of(p), -(-_MOST // len(self._partitions)))
        return list(dict.fromkeys(name for found in pipe.execute() for name in found))

    def _read(self, names: Sequence[str]) -> list[list[Record]]:
        """Each partition's records."""
        pipe: Any = self._client.pipeline(transaction=False)
        for p in self._partitions:
            pipe.execute_command("HMGET", self._records_of(p), *names, NEVER_DECODE=True)
        found: list[list[Record]] = pipe.execute()
        return found


def _readable(
    names: Sequence[str], parts: Sequence[Sequence[Record]]
) -> tuple[list[str], list[list[Record]]]:
    """Without the names of which a record cannot be decoded: they keep their marks and the totals that they have."""
    bad = {n for records in parts for n in unreadable(records, Counters.decode)}
    log.warning("counters of %d items cannot be read: run `tastemaker features rebuild`", len(bad))
    keep = [n for n in range(len(names)) if n not in bad]
    return [names[n] for n in keep], [[records[n] for n in keep] for records in parts]


def _sum(parts: Sequence[Sequence[Record]]) -> Counters:
    if not parts:
        return Counters.zeros(0)
    return Counters.decode([record for records in parts for record in records]).folded(len(parts))
