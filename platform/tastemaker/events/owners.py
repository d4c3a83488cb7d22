"""Whom an event counts for: its user, another that its user was merged into, or nobody, where the user opted out.

An event that counts for nobody still counts for its item. By the event's own time, so that a rebuild says the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis

from tastemaker.events.schema import Event
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

NEVER: Final = 2**63 - 1
"""Stands for a time that no event is later than: the user is opted out."""


class Owner(NamedTuple):
    """What is special about a user: events up to `since_ms` do not count, or all count for another, `into`."""

    since_ms: int = -1
    into: str | None = None

    @property
    def is_out(self) -> bool:
        """Whether the user is opted out now."""
        return self.since_ms == NEVER


PLAIN: Final = Owner()
Owners = Mapping[str, Owner]
"""By user id; those of whom nothing is special are not in it."""


def read_owners(
    client: redis.Redis, keys: Keys, users: Mapping[int, Iterable[str]]
) -> dict[int, dict[str, Owner]]:
    """What is special about some users, by partition.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        users: Ids by partition.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read whom events count for"):
        pipe: Any = client.pipeline(transaction=False)
        for p in users:
            pipe.hlen(keys.consent(p))
            pipe.hlen(keys.aliases(p))
        replies = pipe.execute()
        sizes = dict(zip(users, zip(replies[0::2], replies[1::2], strict=True), strict=True))
        asked = {p: list(dict.fromkeys(found)) for p, found in users.items() if any(sizes[p])}
        asked = {p: found for p, found in asked.items() if found}
        for p, found in asked.items():
            pipe.hmget(keys.consent(p), found)
            pipe.hmget(keys.aliases(p), found)
        replies = pipe.execute()
    owners: dict[int, dict[str, Owner]] = {p: {} for p in users}
    for (p, found), since, into in zip(asked.items(), replies[0::2], replies[1::2], strict=True):
        owners[p] = {
            user_id: Owner(-1 if ms is None else int(ms), other)
            for user_id, ms, other in zip(found, since, into, strict=True)
            if ms is not None or other is not None
        }
    return owners


def counted(events: Iterable[Event], owners: Owners) -> list[Event]:
    """The events that count for somebody: all but those that their user opted out of."""
    if not owners:
        return list(events)
    return [event for event in events if event.timestamp_ms > owners.get(event.user_id, PLAIN).since_ms]


def divided(events: Sequence[Event], owners: Owners) -> tuple[list[Event], dict[str, list[Event]]]:
    """The events that count for their own users, and by merged user those that count for another."""
    own: list[Event] = []
    others: dict[str, list[Event]] = {}
    for event in counted(events, owners):
        if owners.get(event.user_id, PLAIN).into is None:
            own.append(event)
        else:
            others.setdefault(event.user_id, []).append(event)
    return own, others
