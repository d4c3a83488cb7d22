"""Forgetting a user online: records, lists, assignments, and what the streams still hold. Not for files (`erasure`).

Open decisions stay: they say of a request which variant answered it, and nothing of its user. So do items' counters.

The partition's lease is taken from whatever consumer holds it, with a higher fence: a commit that is under way can no
longer write the user anew, and nobody applies events of the partition meanwhile. A mark with the hash of the id stays, by
which consumers drop events that come later and are older than the erasure.
"""

import hashlib
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgpack
import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

_PAGE = 1000
_LEASE_MS = 60_000
# KEYS: lease, fence, guard. ARGV: token, time to live in ms.
_SEIZE = """
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[3], 'fence', redis.call('INCR', KEYS[2]))
"""
# KEYS: lease. ARGV: token.
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


def user_hash(user_id: str) -> str:
    """What stands for an erased user's id: its SHA-256, hexadecimal."""
    return hashlib.sha256(user_id.encode()).hexdigest()


def new_receipt() -> str:
    """A name for a receipt, which nobody can guess."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(8)}"


def request_erasure(client: redis.Redis, keys: Keys, user_id: str) -> str:
    """Notes that a user is to be erased, for whoever erases next; gives the receipt's name.

    Raises:
        StateError: Redis/Valkey cannot be reached: nothing is noted.
    """
    name = new_receipt()
    with state_errors("note an erasure"):
        client.hset(keys.erasures, name, user_id)
    return name


async def request_erasure_async(client: AsyncRedis, keys: Keys, user_id: str) -> str:
    """The same as `request_erasure`, for asyncio."""
    name = new_receipt()
    with state_errors("note an erasure"):
        await client.hset(keys.erasures, name, user_id)  # type: ignore[misc]
    return name


async def is_pending_async(client: AsyncRedis, keys: Keys, name: str) -> bool:
    """Whether an erasure was requested and is not done."""
    with state_errors("look for an erasure"):
        return bool(await client.hexists(keys.erasures, name))  # type: ignore[misc]


def pending_erasures(client: redis.Redis, keys: Keys) -> dict[str, str]:
    """Users that are to be erased, by receipt."""
    with state_errors("read the erasures"):
        found: Any = client.hgetall(keys.erasures)
    return dict(found)


def erase_online(
    client: redis.Redis, cache: redis.Redis, keys: Keys, user_id: str, now_ms: int
) -> dict[str, int]:
    """Removes a user's keys and stream entries; gives how many of each. Doing it again does no harm.

    Args:
        client: Of the role `state.url`.
        cache: Of the role `state.cache_url`.
        keys: Of the catalogue.
        user_id: Whom.
        now_ms: The moment of the erasure.

    Raises:
        StateError: Redis/Valkey cannot be reached; calling again goes on.
    """
    partition, token = keys.partition(user_id), secrets.token_hex(16)
    lease = keys.partition_lease(partition)
    with state_errors("erase a user"):
        client.hset(keys.erased(partition), user_hash(user_id), str(now_ms))
        client.eval(
            _SEIZE, 3, lease, keys.partition_fence(partition), keys.offsets(partition), token, str(_LEASE_MS)
        )
        client.delete(keys.recorded)  # requests without their users: nobody knows which are whose
        try:
            return {
                "records": _delete(
                    client,
                    keys.user(user_id),
                    keys.history(user_id),
                    keys.profile(user_id),
                    keys.shown(user_id),
                ),
                "lists": _delete(
                    cache, keys.stored_list(user_id), keys.cached_lists(user_id), keys.paged_lists(user_id)
                ),
                "assignments": _erase_assignments(client, keys, user_id),
                "marks": _erase_marks(client, keys, user_id),
                "merges": _erase_moving(client, keys, user_id),
                "events": _erase_entries(client, keys.events(partition), user_id),
                "decisions": _erase_entries(client, keys.decisions(partition), user_id),
                "dead letters": _erase_entries(client, keys.dead_letters(partition), user_id),
            }
        finally:
            client.eval(_RELEASE, 1, lease, token)


def _delete(client: redis.Redis, *names: str) -> int:
    return int(client.delete(*names))  # type: ignore[arg-type]


def _erase_marks(client: redis.Redis, keys: Keys, user_id: str) -> int:
    p = keys.partition(user_id)
    marks = (
        keys.changed_users(p),
        keys.changed_profiles(p),
        keys.moving(p),
        keys.forgetting(p),
        keys.interests(p),
    )
    pipe: Any = client.pipeline(transaction=False)
    for key in marks:
        pipe.srem(key, user_id)
    pipe.hdel(keys.consent(p), user_id)
    return sum(pipe.execute())


def _erase_moving(client: redis.Redis, keys: Keys, user_id: str) -> int:
    """The alias, and what is on its way to or from the user; see `features.merging`."""
    p = keys.partition(user_id)
    pipe: Any = client.pipeline(transaction=False)
    pipe.hdel(keys.aliases(p), user_id)
    pipe.execute_command("XRANGE", keys.outbox(p), "-", "+", NEVER_DECODE=True)
    pipe.execute_command("LRANGE", keys.inbox(p), 0, -1, NEVER_DECODE=True)
    aliases, sent, received = pipe.execute()
    theirs = [entry_id for entry_id, fields in sent if fields[b"user"].decode() == user_id]
    parcels = [parcel for parcel in received if msgpack.unpackb(parcel)[0] == user_id]
    for entry_id in theirs:
        pipe.xdel(keys.outbox(p), entry_id)
    for parcel in parcels:
        pipe.lrem(keys.inbox(p), 0, parcel)
    pipe.execute()
    return int(aliases) + len(theirs) + len(parcels)


def _erase_assignments(client: redis.Redis, keys: Keys, user_id: str) -> int:
    found = client.scan_iter(keys.every_assignment(user_id), count=_PAGE)
    mine = [key for key in found if keys.unit_of(key) == user_id]
    return int(client.delete(*mine)) if mine else 0  # type: ignore[arg-type]


def _erase_entries(client: redis.Redis, stream: str, user_id: str) -> int:
    erased = 0
    for page in _pages(client, stream):
        mine = [
            entry_id for entry_id, fields in page if any(_names(text, user_id) for text in fields.values())
        ]
        if mine:
            erased += int(client.xdel(stream, *mine))  # type: ignore[arg-type]
    return erased


def _pages(client: redis.Redis, stream: str) -> Iterator[list[tuple[str, dict[str, str]]]]:
    after = "-"
    while page := client.xrange(stream, min=after, count=_PAGE):
        yield page  # type: ignore[misc]
        after = f"({page[-1][0]}"  # type: ignore[index]


def _names(text: str, user_id: str) -> bool:
    """Whether a record is about the user. One that is no JSON, as a dead letter may be, is where the id stands in it."""
    try:
        record = json.loads(text)
    except ValueError:
        return user_id in text
    return isinstance(record, dict) and user_id in (record.get("user_id"), record.get("unit"))
