"""Reads the records of users and items, as the stream keeps them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import redis

from tastemaker.features.user_state import UserState
from tastemaker.state.connection import scan_keys, state_errors
from tastemaker.state.keys import Keys

_SCAN: Final = 2000


def read_user(client: redis.Redis, keys: Keys, user_id: str) -> UserState:
    """What is known of a user, in one command; an empty state of one who is unknown.

    Raises:
        StateError: Redis/Valkey cannot be reached.
        CompatibilityError: See `UserState.decode`.
    """
    (record,) = read_users(client, keys, [user_id]).values()
    return UserState.decode(record)


def read_users(client: redis.Redis, keys: Keys, user_ids: Iterable[str]) -> dict[str, bytes | None]:
    """Users' records as kept, in one round trip; None where there is none."""
    wanted = list(user_ids)
    with state_errors("read users"):
        pipe: Any = client.pipeline(transaction=False)
        for user_id in wanted:
            pipe.execute_command("GET", keys.user(user_id), NEVER_DECODE=True)
        return dict(zip(wanted, pipe.execute(), strict=True))


def read_totals(client: redis.Redis, keys: Keys, item_ids: Sequence[str]) -> dict[str, bytes | None]:
    """Items' totals as kept, in one command; None where there are none."""
    if not item_ids:
        return {}
    with state_errors("read items"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.execute_command("HMGET", keys.item_totals, *item_ids, NEVER_DECODE=True)
        (found,) = pipe.execute()
    return dict(zip(item_ids, found, strict=True))


def scan_users(client: redis.Redis, keys: Keys) -> Iterator[dict[str, bytes]]:
    """The records of all users as kept, some at a time, each once; by a scan of the whole server."""
    for found in scan_keys(client, keys.every_user, _SCAN):
        records = read_users(client, keys, [keys.user_of(key.decode()) for key in found])
        yield {user_id: record for user_id, record in records.items() if record is not None}


def scan_totals(client: redis.Redis, keys: Keys) -> Iterator[dict[str, bytes]]:
    """The totals of all items as kept, some at a time; one that changes meanwhile may come twice."""
    cursor = 0
    while True:
        with state_errors("scan items"):
            pipe: Any = client.pipeline(transaction=False)
            pipe.execute_command("HSCAN", keys.item_totals, cursor, "COUNT", _SCAN, NEVER_DECODE=True)
            ((cursor, found),) = pipe.execute()
        yield {item_id.decode(): record for item_id, record in found.items()}
        if not cursor:
            return
