"""What live events do to the features: users' records, items' counters, and those by country. The `Effects` of `events.effects`.

All partitions of a step are worked on at once: one read, one pass of numpy over all users and one over all items. What
is written goes into each partition's commit, beside the offset. Simulated and replayed events never come here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from tastemaker.events.effects import Applied
from tastemaker.events.owners import Owners, divided
from tastemaker.events.schema import Event
from tastemaker.features.categories import Categories
from tastemaker.features.counters import Counters
from tastemaker.features.countries import count_weights, local_name
from tastemaker.features.merging import forward, join
from tastemaker.features.parcels import parcel_of
from tastemaker.features.rankings import TREND_WINDOW
from tastemaker.features.totals import ItemTotals
from tastemaker.features.unreadable import UNREADABLE, Record, unreadable
from tastemaker.features.user_state import UserState, after, count_events
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command


class _Records(NamedTuple):
    """What the events of one partition concern: ids in order of their first event, and their records as kept.

    `local` are items in countries, by `countries.local_id`.
    """

    users: dict[str, Record]
    items: dict[str, Record]
    local: dict[str, Record]


class StreamFeatures:
    """Applies live events to the records that serving and projections read. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Holds the imported items, whose categories count.
        trend_window: See `totals.ItemTotals`.
    """

    def __init__(self, client: redis.Redis, keys: Keys, home: Home, trend_window: str = TREND_WINDOW) -> None:
        self._client, self._keys = client, keys
        self._category = Categories(home, client, keys)
        self._totals = ItemTotals(client, keys, self._category, trend_window)

    def apply(
        self, events: Mapping[int, Sequence[Event]], owners: Mapping[int, Owners] | None = None
    ) -> dict[int, Applied]:
        """What live events write, by partition; those whose user's or item's record cannot be read are refused.

        Those of merged users go into the partition's outbox instead of a record, see `merging`.

        Raises:
            StateError: Redis/Valkey cannot be reached.
            DataError: The imported items cannot be read.
        """
        if not events:
            return {}
        self._category.refresh()
        records, owners = self._read(events), owners or {}
        try:
            return self._changes(events, owners, records, {p: {} for p in events})
        except UNREADABLE:
            refused = {p: _refused(found, records[p]) for p, found in events.items()}
            if not any(refused.values()):
                raise
        return self._changes(events, owners, records, refused)

    def join(self, partitions: Iterable[int], history_length: int) -> dict[int, list[Command]]:
        """See `merging.join`."""
        return join(self._client, self._keys, partitions, history_length)

    def forward(self, partitions: Iterable[int]) -> int:
        """See `merging.forward`."""
        return forward(self._client, self._keys, partitions)

    def project(self) -> int:
        """Makes changed items' totals anew."""
        return self._totals.project()

    def close(self) -> None:
        """Gives up the totals' lease."""
        self._totals.close()

    def _read(self, events: Mapping[int, Sequence[Event]]) -> dict[int, _Records]:
        ids = {
            p: (
                dict.fromkeys(e.user_id for e in found),
                dict.fromkeys(e.item_id for e in found),
                dict.fromkeys(name for e in found if (name := local_name(e))),
            )
            for p, found in events.items()
        }
        with state_errors("read users and items"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p, (users, items, local) in ids.items():
                pipe.execute_command("MGET", *map(self._keys.user, users), NEVER_DECODE=True)
                pipe.execute_command("HMGET", self._keys.item_counters(p), *items, NEVER_DECODE=True)
                if local:
                    pipe.execute_command("HMGET", self._keys.local_counters(p), *local, NEVER_DECODE=True)
            replies = iter(pipe.execute())
        return {
            p: _Records(*(dict(zip(some, next(replies) if some else (), strict=True)) for some in found))
            for p, found in ids.items()
        }

    def _changes(
        self,
        events: Mapping[int, Sequence[Event]],
        owners: Mapping[int, Owners],
        records: Mapping[int, _Records],
        refused: Mapping[int, Mapping[int, str]],
    ) -> dict[int, Applied]:
        sound = {p: [e for n, e in enumerate(found) if n not in refused[p]] for p, found in events.items()}
        split = {p: divided(found, owners.get(p, {})) for p, found in sound.items()}
        users = self._users({p: own for p, (own, _) in split.items()}, records)
        items, local = (make(sound, records) for make in (self._items, self._local))
        parcels = {
            p: [
                parcel_of(found, self._category).posted(self._keys, user_id)
                for user_id, found in others.items()
            ]
            for p, (_, others) in split.items()
        }
        return {p: Applied([*users[p], *parcels[p], *items[p], *local[p]], refused[p]) for p in events}

    def _users(
        self, events: Mapping[int, Sequence[Event]], records: Mapping[int, _Records]
    ) -> dict[int, list[Command]]:
        own: dict[tuple[int, str], list[Event]] = {}
        for p, found in events.items():
            for event in found:
                own.setdefault((p, event.user_id), []).append(event)
        states = [UserState.decode(records[p].users[user_id]) for p, user_id in own]
        states = after(states, list(own.values()), self._category) if own else []
        commands: dict[int, list[Command]] = {p: [] for p in events}
        changed: dict[int, list[str]] = {}
        for (p, user_id), state in zip(own, states, strict=True):
            commands[p].append(("SET", self._keys.user(user_id), state.encode()))
            changed.setdefault(p, []).append(user_id)
        for p, user_ids in changed.items():
            commands[p].append(("SADD", self._keys.changed_users(p), *user_ids))
        return commands

    def _items(
        self, events: Mapping[int, Sequence[Event]], records: Mapping[int, _Records]
    ) -> dict[int, list[Command]]:
        named = [(p, event.item_id, event) for p, found in events.items() for event in found]
        counted = _counted(named, lambda p, item_id: records[p].items[item_id], count_events)
        return {
            p: _write(counted.get(p, {}), self._keys.item_counters(p), self._keys.changed_items(p))
            for p in events
        }

    def _local(
        self, events: Mapping[int, Sequence[Event]], records: Mapping[int, _Records]
    ) -> dict[int, list[Command]]:
        named = [(p, name, e) for p, found in events.items() for e in found if (name := local_name(e))]
        counted = _counted(named, lambda p, name: records[p].local[name], count_weights)
        return {
            p: _write(counted.get(p, {}), self._keys.local_counters(p), self._keys.changed_local(p))
            for p in events
        }


def _counted(
    named: Sequence[tuple[int, str, Event]],
    kept: Callable[[int, str], Record],
    count: Callable[[Counters, Sequence[tuple[int, Event]]], Counters],
) -> dict[int, dict[str, bytes]]:
    """Records after some events, by partition and name; each event with the partition and name of its own."""
    if not named:
        return {}
    place: dict[tuple[int, str], int] = {}
    rows = [(place.setdefault((p, name), len(place)), event) for p, name, event in named]
    counters = count(Counters.decode([kept(p, name) for p, name in place]), rows)
    changed: dict[int, dict[str, bytes]] = {}
    for (p, name), record in zip(place, counters.encode(), strict=True):
        changed.setdefault(p, {})[name] = record
    return changed


def _write(records: Mapping[str, bytes], key: str, marks: str) -> list[Command]:
    """Writes records and marks them as changed."""
    if not records:
        return []
    fields = [word for pair in records.items() for word in pair]
    return [("HSET", key, *fields), ("SADD", marks, *records)]


def _refused(events: Sequence[Event], records: _Records) -> dict[int, str]:
    """Reasons by place of the events whose user's or item's record cannot be read."""
    users = _damaged(records.users, lambda found: [UserState.decode(record) for record in found])
    items, local = (_damaged(found, Counters.decode) for found in (records.items, records.local))
    reasons = [users.get(e.user_id) or items.get(e.item_id) or local.get(local_name(e)) for e in events]
    return {n: reason for n, reason in enumerate(reasons) if reason}


def _damaged(records: Mapping[str, Record], decode: Callable[[Sequence[Record]], object]) -> dict[str, str]:
    ids = list(records)
    found = unreadable(list(records.values()), decode)
    return {ids[n]: f"the record of {ids[n]!r} cannot be read: {why}" for n, why in found.items()}
