"""Brings Feast's rows up to the records of users and items that have changed.

Projections, never incremented in place: whoever writes a record marks its user or item, here the record is read, its rows
are written and the mark is taken away. It is set again where the record is no longer the one that was read, also by
another process meanwhile: so of two that project the same user, the older rows never stay.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import redis

from tastemaker.features.counters import Counters
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.records import read_totals, read_users
from tastemaker.features.unreadable import UNREADABLE
from tastemaker.features.user_state import UserState
from tastemaker.features.view_rows import item_rows, joined, user_rows
from tastemaker.features.views import Entity, ViewRows, views_of
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.marks import some_marked

MOST_AT_ONCE: Final = 1000
log = logging.getLogger(__name__)
T = TypeVar("T")
# ARGV: ids and the records that were projected (empty for none), in turn. KEYS: marks, then each user's record or the
# hash of the items' totals.
_SETTLE: Final = """
for i = 1, #ARGV, 2 do
  local record = redis.call(%s) or ''
  redis.call(record == ARGV[i + 1] and 'SREM' or 'SADD', KEYS[1], ARGV[i])
end
"""
_SETTLE_USERS: Final = _SETTLE % "'GET', KEYS[(i + 3) / 2]"
_SETTLE_ITEMS: Final = _SETTLE % "'HGET', KEYS[2], ARGV[i]"


def project_users(client: redis.Redis, keys: Keys, rows: FeastRows) -> int:
    """Writes the rows of about a thousand users that are marked; gives how many. One without a record loses its rows.

    Call it again while it gives any. A record that cannot be read is logged and keeps its mark.

    Raises:
        StateError: Redis/Valkey cannot be reached. Nothing is lost: the marks are still there.
    """
    sets = [keys.changed_users(p) for p in range(keys.partitions)]
    marked = some_marked(client, sets, MOST_AT_ONCE, "users")
    records = read_users(client, keys, [user_id for found in marked.values() for user_id in found])
    readable = _project(rows, records, UserState.decode, user_rows)
    with state_errors("take the marks of users away"):
        pipe: Any = client.pipeline(transaction=False)
        for p, found in marked.items():
            settled = [user_id for user_id in found if user_id in readable]
            touched = [keys.changed_users(p), *map(keys.user, settled)]
            pipe.eval(_SETTLE_USERS, len(touched), *touched, *_words(settled, records))
        pipe.execute()
    return len(readable)


def project_items(client: redis.Redis, keys: Keys, rows: FeastRows) -> int:
    """The same for items whose totals are marked as changed.

    Raises:
        StateError: As `project_users`.
    """
    with state_errors("read marks of items"):
        found: Any = client.srandmember(keys.changed_totals, MOST_AT_ONCE)
    if not found:
        return 0
    records = read_totals(client, keys, found)
    readable = _project(rows, records, lambda record: Counters.decode([record]), _rows_of_items)
    with state_errors("take the marks of items away"):
        words = _words(list(readable), records)
        client.eval(_SETTLE_ITEMS, 2, keys.changed_totals, keys.item_totals, *words)
    return len(readable)


def erase_projected(client: redis.Redis, catalogue: str, user_id: str) -> int:
    """Removes a user's rows; gives how many there were. A pass under way may write them again, and marks the user then.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    rows = FeastRows(client, catalogue)
    (times,) = rows.times_ns("user", views_of("user"), [user_id])
    rows.delete([user_id], views_of("user"))
    return sum(time is not None for time in times)


def num_pending(client: redis.Redis, keys: Keys) -> dict[Entity, int]:
    """Users and items that are marked as changed."""
    with state_errors("count the changed"):
        pipe: Any = client.pipeline(transaction=False)
        for p in range(keys.partitions):
            pipe.scard(keys.changed_users(p))
        pipe.scard(keys.changed_totals)
        *users, items = pipe.execute()
    return {"user": sum(users), "item": items}


def _project(
    rows: FeastRows,
    records: Mapping[str, bytes | None],
    decode: Callable[[bytes], T],
    rows_of: Callable[[Sequence[T]], Sequence[ViewRows]],
) -> set[str]:
    """Writes the rows of those that have records and removes those of the others; gives who could be read."""
    gone = [entity_id for entity_id, record in records.items() if record is None]
    decoded = {
        entity_id: _decoded(entity_id, record, decode)
        for entity_id, record in records.items()
        if record is not None
    }
    known = {entity_id: found for entity_id, found in decoded.items() if found is not None}
    if known:
        rows.write(list(known), rows_of(list(known.values())))
    if gone:
        rows.delete(gone, [one.view for one in rows_of([])])
    return known.keys() | set(gone)


def _decoded(entity_id: str, record: bytes, decode: Callable[[bytes], T]) -> T | None:
    try:
        return decode(record)
    except UNREADABLE as error:
        log.warning("the record of %r cannot be read and is not projected: %s", entity_id, error)
        return None


def _rows_of_items(totals: Sequence[Counters]) -> list[ViewRows]:
    return item_rows(joined(totals))


def _words(ids: Iterable[str], records: Mapping[str, bytes | None]) -> list[str | bytes]:
    return [word for entity_id in ids for word in (entity_id, records[entity_id] or b"")]
