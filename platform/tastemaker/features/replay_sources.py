"""What a rebuild reads beside the archive's days: the streams' tail, imports, erasures, and who has state.

Rows have columns of `buckets.BUCKET_SCHEMA`.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import redis

from tastemaker.data.imported_events import imported_events
from tastemaker.events.archive import event_table
from tastemaker.events.erasure import user_hash
from tastemaker.events.log import entries, queue_range
from tastemaker.events.progress import Progress
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

_READ: Final = 4_000


def without_erased(table: pa.Table, erased: Mapping[str, str]) -> pa.Table:
    """Rows of `BUCKET_SCHEMA` without the events that happened before their user was erased.

    Args:
        table: The rows.
        erased: Moments in ms, by the hash of the user's id.
    """
    if not erased:
        return table
    users: Any = table["user_id"].combine_chunks().dictionary_encode()
    since = [int(erased.get(user_hash(user), -1)) for user in users.dictionary.to_pylist()]
    is_before: Any = pc.less_equal(table["timestamp_ms"], pa.array(since, pa.int64()).take(users.indices))
    return table.filter(pc.invert(pc.fill_null(is_before, False)))


def unarchived(client: redis.Redis, stream: str, at: Progress) -> Iterator[pa.Table]:
    """Events of a stream that are applied and not yet archived, with `EVENT_SCHEMA`."""
    after = at.archived_events
    while True:
        with state_errors("read the streams"):
            found = entries(queue_range(client, stream, after, at.events, _READ))
        if not found:
            return
        yield event_table(found)
        after = found[-1].id


def known_users(client: redis.Redis, keys: Keys) -> Iterator[pa.Table]:
    """Rows of `BUCKET_SCHEMA` that name the users who have a record or a history."""
    looks = ((keys.every_user, "}:user:", keys.user), (keys.every_history, "}:history:", keys.history))
    for pattern, mark, key_of in looks:
        with state_errors("look for users"):
            found = client.scan_iter(match=pattern, count=_READ)
            while some := list(itertools.islice(found, _READ)):
                ids = [(key, key.partition(mark)[2]) for key in some]
                users = [user_id for key, user_id in ids if key_of(user_id) == key]
                yield pa.table({"user_id": pa.array(users, pa.string())})


def imported_first(home: Home, catalogue: str) -> Iterator[pa.Table]:
    """Imported events as `imported_events` gives them, but received before all live ones."""
    for table in imported_events(home, catalogue):
        received = pa.array([-1] * len(table), pa.int64())
        place = table.column_names.index("received_ms")
        yield table.set_column(place, "received_ms", received)
