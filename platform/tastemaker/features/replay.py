"""What a bucket of the log makes of its users and items, by the functions that the stream consumer uses.

All events of a user come at once, where the stream brought them in batches: records are functions of the set of events,
but for what a limit has cut off.

Shape letters: E rows of a bucket.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.events.history import NOT_HISTORY
from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters
from tastemaker.features.countries import CONTEXT_COUNTRY, count_weights, local_name
from tastemaker.features.user_state import Category, UserState, after, count_events
from tastemaker.types import Int64

_DAY_MS = 86_400_000
_event = Event.__pydantic_validator__.validate_python
_FIELDS = ("event_id", "user_id", "item_id", "kind", "timestamp_ms", "value", "country", "personal")


def touching(late_days: int) -> pc.Expression:
    """Which archived events touch the state of users and items: see `events.batch.is_late`."""
    late = pc.field("received_ms") - pc.field("timestamp_ms") > late_days * _DAY_MS
    return (pc.field("origin") == "live") & ~late


class UserReplay(NamedTuple):
    """What the log makes of a user. `history` is newest first; a user of no events has no record."""

    user_id: str
    num_events: int
    record: bytes | None
    history: list[str]

    @property
    def is_known(self) -> bool:
        """Whether the log has anything of the user."""
        return bool(self.record or self.history)


class _Rows(NamedTuple):
    """A user's rows of a bucket: events in the order of the stream, those that count for the user, and what was taken by them."""

    user_id: str
    events: list[Event]
    own: list[Event]
    taken: list[str]


class CountersReplay:
    """Counters of one partition, over its buckets. `place` is each record's among them, by name.

    Args:
        name_of: Which record an event counts in; empty for none.
        count: Adds events to counters, each with its record.
    """

    def __init__(
        self,
        name_of: Callable[[Event], str],
        count: Callable[[Counters, Sequence[tuple[int, Event]]], Counters],
    ) -> None:
        self.place: dict[str, int] = {}
        self._name_of, self._count = name_of, count
        self._counters = Counters.zeros(0)

    @classmethod
    def of_items(cls) -> Self:
        """What users did with each item."""
        return cls(lambda event: event.item_id, count_events)

    @classmethod
    def by_country(cls) -> Self:
        """What each item weighs in each country; see `countries`."""
        return cls(local_name, count_weights)

    def add(self, events: Sequence[Event]) -> None:
        """Counts some more events."""
        named = [(name, event) for event in events if (name := self._name_of(event))]
        if not named:
            return
        rows = [(self.place.setdefault(name, len(self.place)), event) for name, event in named]
        touched, new_row = np.unique([row for row, _ in rows], return_inverse=True)
        self._grow(len(self.place))
        some = Counters(self._counters.value_NKW[touched], self._counters.last_ms_N[touched])
        some = self._count(some, [(int(n), event) for n, (_, event) in zip(new_row, rows, strict=True)])
        self._counters.value_NKW[touched], self._counters.last_ms_N[touched] = some.value_NKW, some.last_ms_N

    def encoded(self, batch: int) -> Iterator[dict[str, bytes]]:
        """All records, at most `batch` at a time."""
        names = list(self.place)
        for start in range(0, len(names), batch):
            rows = slice(start, min(start + batch, len(names)))
            some = Counters(self._counters.value_NKW[rows], self._counters.last_ms_N[rows])
            yield dict(zip(names[rows], some.encode(), strict=True))

    def _grow(self, num_records: int) -> None:
        """Makes room, twice as much as needed, since each growth copies all."""
        if num_records > len(self._counters):
            zeros = Counters.zeros(2 * num_records - len(self._counters))
            self._counters = Counters(
                np.concatenate([self._counters.value_NKW, zeros.value_NKW]),
                np.concatenate([self._counters.last_ms_N, zeros.last_ms_N]),
            )


def replay_users(
    table: pa.Table,
    counted: Sequence[CountersReplay],
    category: Category,
    history_length: int,
    batch: int,
) -> Iterator[list[UserReplay]]:
    """The users of a bucket, at most `batch` at a time; their events are added to `counted`.

    Args:
        table: Of `buckets.BUCKET_SCHEMA`: all rows of its users.
        counted: Counters of the partition.
        category: Of items.
        history_length: How many of the newest items a history keeps.
        batch: Users.
    """
    table, starts = _by_user(table)
    for first in range(0, len(starts) - 1, batch):
        some = starts[first : first + batch + 1]
        users = list(_users(table.slice(some[0], some[-1] - some[0]), some - some[0]))
        for counters in counted:
            counters.add([event for user in users for event in user.events])
        yield _replayed(users, category, history_length)


def _replayed(users: Sequence[_Rows], category: Category, history_length: int) -> list[UserReplay]:
    active = [n for n, user in enumerate(users) if user.own]
    states = after([UserState() for _ in active], [users[n].own for n in active], category) if active else []
    records = dict(zip(active, (state.encode() for state in states), strict=True))
    return [
        UserReplay(user.user_id, len(user.events), records.get(n), _newest(user.taken, history_length))
        for n, user in enumerate(users)
    ]


def _newest(taken: Sequence[str], length: int) -> list[str]:
    """Newest first, each once."""
    return list(dict.fromkeys(reversed(taken)))[:length]


def _by_user(table: pa.Table) -> tuple[pa.Table, Int64]:
    """Rows user by user, in the order of the stream, without repeats; and where each user starts, then the end."""
    received_E, sequence_E = (_numbers(table[name]) for name in ("received_ms", "sequence"))
    order_E = np.lexsort((sequence_E, received_E))
    order_E = order_E[_first_seen(table["event_id"].take(order_E))]
    user_E = table["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()[order_E]
    by_user_E = np.argsort(user_E, kind="stable")
    starts = np.flatnonzero(np.diff(user_E[by_user_E], prepend=-1))
    return table.take(order_E[by_user_E]), np.append(starts, len(order_E))


def _first_seen(event_id: "pa.ChunkedArray[Any]") -> Int64:
    """Places of the first row of each id, and of all rows without one."""
    codes_E = event_id.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    _, first = np.unique(codes_E, return_index=True)
    return np.union1d(first, np.flatnonzero(codes_E < 0))


def _numbers(column: "pa.ChunkedArray[Any]") -> Int64:
    """A column as numbers; null, as of a file of an older release, is 0."""
    numbers: Int64 = column.fill_null(pa.scalar(0, pa.int64())).to_numpy()
    return numbers


def _users(table: pa.Table, starts: Int64) -> Iterator[_Rows]:
    columns: list[list[Any]] = [table[name].to_pylist() for name in _FIELDS]
    bounds = starts.tolist()
    rows = list(zip(*columns, strict=True))
    for start, end in itertools.pairwise(bounds):
        events: list[Event] = []
        own: list[Event] = []
        taken: list[str] = []
        for row in rows[start:end]:
            event_id, _, item_id, kind, *_ = row
            if event_id is not None:
                fields = dict(zip(_FIELDS, row, strict=True))
                is_personal = fields.pop("personal") is not False
                context = {CONTEXT_COUNTRY: country} if (country := fields.pop("country")) else None
                events.append(_event(fields | {"context": context}))
                if is_personal:
                    own.append(events[-1])
                    taken += [item_id] if kind not in NOT_HISTORY else []
        yield _Rows(rows[start][1], events, own, taken)
