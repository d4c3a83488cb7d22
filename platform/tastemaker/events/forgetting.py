"""What consumers do for erased users: drops events that come late, from a spool or a slow client, and are older.

And finds those whose rows were on their way from a stream to a file while both were searched. Not the erasure itself, see
`erasure`. Events from after it are those of a user who came back.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import redis

from tastemaker.events.batch import Batch, Refused
from tastemaker.events.erasure import user_hash
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys


def without_erased(client: redis.Redis, keys: Keys, batches: Mapping[int, Batch]) -> dict[int, Batch]:
    """The batches without events of erased users from before their erasure: they are `forgotten`.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("look for erased users"):
        pipe: Any = client.pipeline(transaction=False)
        for p in batches:
            pipe.hlen(keys.erased(p))
        some = [p for p, number in zip(batches, pipe.execute(), strict=True) if number and batches[p].events]
        users = {p: list(dict.fromkeys(event.user_id for _, event in batches[p].events)) for p in some}
        for p, user_ids in users.items():
            pipe.hmget(keys.erased(p), list(map(user_hash, user_ids)))
        replies = pipe.execute()
    found = dict(batches)
    for (p, user_ids), times in zip(users.items(), replies, strict=True):
        erased_ms = {user: int(ms) for user, ms in zip(user_ids, times, strict=True) if ms is not None}
        if erased_ms:
            found[p] = _without(batches[p], erased_ms)
    return found


def _without(batch: Batch, erased_ms: Mapping[str, int]) -> Batch:
    old = [event.timestamp_ms <= erased_ms.get(event.user_id, -1) for _, event in batch.events]
    rows = list(zip(batch.events, batch.entries, old, strict=True))
    return batch._replace(
        events=[event for event, _, is_old in rows if not is_old],
        entries=[entry for _, entry, is_old in rows if not is_old],
        forgotten=[Refused("events", entry, "its user was erased") for _, entry, is_old in rows if is_old],
    )


def erased_meanwhile(client: redis.Redis, keys: Keys, rows: pa.Table) -> list[str]:
    """Users of rows with `user_id` and `received_ms` who were erased after the log took one of their rows.

    Ask once the rows are in a file. An erasure leaves its mark first, then empties the streams, then searches the files: rows
    that were read before it emptied the streams, and written after it had searched, are found here. The clock of whoever
    erases must not lie behind the log's by more than the ms that lie between.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    grouped = rows.group_by("user_id").aggregate([("received_ms", "min")])
    users: list[Any] = grouped["user_id"].to_pylist()
    oldest_ms: list[Any] = grouped["received_ms_min"].to_pylist()
    with state_errors("look for erased users"):
        pipe: Any = client.pipeline(transaction=False)
        for user_id in users:
            pipe.hget(keys.erased(keys.partition(user_id)), user_hash(user_id))
        marks = pipe.execute()
    return [
        user_id
        for user_id, taken_ms, mark in zip(users, oldest_ms, marks, strict=True)
        if mark is not None and int(mark) >= taken_ms
    ]
