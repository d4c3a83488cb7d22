"""What live events do to the features: users' records and items' counters. The `Effects` of `events.effects`.

All partitions of a step are worked on at once: one read, one pass of numpy over all users and one over all items. What
is written goes into each partition's commit, beside the offset. Simulated and replayed events never come here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from tastemaker.events.effects import Applied
from tastemaker.events.schema import Event
from tastemaker.features.categories import Categories
from tastemaker.features.counters import Counters
from tastemaker.features.totals import ItemTotals
from tastemaker.features.unreadable import UNREADABLE, Record, unreadable
from tastemaker.features.user_state import UserState, after, count_events
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command


class _Records(NamedTuple):
    """What the events of one partition concern: ids in order of their first event, and their records as kept."""

    users: dict[str, Record]
    items: dict[str, Record]


class StreamFeatures:
    """Applies live events to the records that serving and projections read. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Holds the imported items, whose categories count.
    """

    def __init__(self, client: redis.Redis, keys: Keys, home: Home) -> None:
        self._client, self._keys = client, keys
        self._category = Categories(home, keys.catalogue)
        self._totals = ItemTotals(client, keys, self._category)

    def apply(self, events: Mapping[int, Sequence[Event]]) -> dict[int, Applied]:
        """What live events write, by partition; those whose user's or item's record cannot be read are refused.

        Raises:
            StateError: Redis/Valkey cannot be reached.
            DataError: The imported items cannot be read.
        """
        if not events:
            return {}
        self._category.refresh()
        records = self._read(events)
        try:
            return self._changes(events, records, {p: {} for p in events})
        except UNREADABLE:
            refused = {p: _refused(found, records[p]) for p, found in events.items()}
            if not any(refused.values()):
                raise
        return self._changes(events, records, refused)

    def project(self) -> int:
        """Makes changed items' totals anew."""
        return self._totals.project()

    def close(self) -> None:
        """Gives up the totals' lease."""
        self._totals.close()

    def _read(self, events: Mapping[int, Sequence[Event]]) -> dict[int, _Records]:
        ids = {
            p: (dict.fromkeys(e.user_id for e in found), dict.fromkeys(e.item_id for e in found))
            for p, found in events.items()
        }
        with state_errors("read users and items"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p, (users, items) in ids.items():
                pipe.execute_command("MGET", *map(self._keys.user, users), NEVER_DECODE=True)
                pipe.execute_command("HMGET", self._keys.item_counters(p), *items, NEVER_DECODE=True)
            replies = pipe.execute()
        found = zip(ids.items(), replies[0::2], replies[1::2], strict=True)
        return {
            p: _Records(dict(zip(users, of_users, strict=True)), dict(zip(items, of_items, strict=True)))
            for (p, (users, items)), of_users, of_items in found
        }

    def _changes(
        self,
        events: Mapping[int, Sequence[Event]],
        records: Mapping[int, _Records],
        refused: Mapping[int, Mapping[int, str]],
    ) -> dict[int, Applied]:
        sound = {p: [e for n, e in enumerate(found) if n not in refused[p]] for p, found in events.items()}
        users, items = self._users(sound, records), self._items(sound, records)
        return {p: Applied([*users[p], *items[p]], refused[p]) for p in events}

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
        place: dict[tuple[int, str], int] = {}
        rows = [
            (place.setdefault((p, e.item_id), len(place)), e) for p, found in events.items() for e in found
        ]
        kept = Counters.decode([records[p].items[item_id] for p, item_id in place])
        encoded = count_events(kept, rows).encode()
        changed: dict[int, dict[str, bytes]] = {}
        for (p, item_id), record in zip(place, encoded, strict=True):
            changed.setdefault(p, {})[item_id] = record
        commands: dict[int, list[Command]] = {p: [] for p in events}
        for p, items in changed.items():
            fields = [word for pair in items.items() for word in pair]
            commands[p].append(("HSET", self._keys.item_counters(p), *fields))
            commands[p].append(("SADD", self._keys.changed_items(p), *items))
        return commands


def _refused(events: Sequence[Event], records: _Records) -> dict[int, str]:
    """Reasons by place of the events whose user's or item's record cannot be read."""
    users = _damaged(records.users, lambda found: [UserState.decode(record) for record in found])
    items = _damaged(records.items, Counters.decode)
    reasons = [users.get(e.user_id) or items.get(e.item_id) for e in events]
    return {n: reason for n, reason in enumerate(reasons) if reason}


def _damaged(records: Mapping[str, Record], decode: Callable[[Sequence[Record]], object]) -> dict[str, str]:
    ids = list(records)
    found = unreadable(list(records.values()), decode)
    return {ids[n]: f"the record of {ids[n]!r} cannot be read: {why}" for n, why in found.items()}
