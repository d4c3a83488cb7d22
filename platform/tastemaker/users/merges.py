"""How two ids become one user: merges as they are asked for, and admitted one after the other.

Whoever asks is told so once the request is on the server's disk. An admission decides with all earlier ones in sight,
writes its line (`merged`), and then the alias, by which events and requests go on. So the file
knows of every merge that has an effect. How the past moves is `features.merging`'s matter.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import StateError
from tastemaker.events.owners import NEVER
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.users.merged import Merge, note

MOST_REQUESTS: Final = 100_000
"""Merges that may wait; further ones are refused until then."""
MOST_HOPS: Final = 32
"""Aliases that are followed from one id; admissions make no circles, this is for damaged state."""
_AT_ONCE: Final = 500
_WAIT_DURABLE_MS: Final = 2000
log = logging.getLogger(__name__)
# KEYS: requests. ARGV: most that may wait, then field and value in turn.
_REQUEST: Final = """
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
return 1
"""
# KEYS: aliases, marks of whose past is to move, consent. ARGV: user, into whom, the time that is never, time in ms.
_ALIAS: Final = """
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
if redis.call('HGET', KEYS[3], ARGV[1]) == ARGV[3] then redis.call('HSET', KEYS[3], ARGV[1], ARGV[4]) end
"""


class Request(NamedTuple):
    """A merge that was asked for, by the id of its entry."""

    id: str
    from_user: str
    into_user: str


async def request_merge_async(client: AsyncRedis, keys: Keys, from_user: str, into_user: str) -> None:
    """Notes that two users are one; returns once that is on the server's disk.

    Raises:
        StateError: It is not noted, or not known to be. Asking again does no harm.
    """
    with state_errors("note a merge"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.eval(_REQUEST, 1, keys.merge_requests, str(MOST_REQUESTS), "from", from_user, "into", into_user)
        pipe.execute_command("WAITAOF", 1, 0, _WAIT_DURABLE_MS)
        noted, durable = await pipe.execute()
    if not noted:
        raise StateError("merges that wait", value=MOST_REQUESTS, mend="see that the stream consumer runs")
    if int(durable[0]) < 1:
        raise StateError("the merge is not yet on disk", mend="ask again")


async def roots_async(client: AsyncRedis, keys: Keys, user_ids: Sequence[str]) -> list[str]:
    """The user that each id is by now. The client's replies are text.

    Raises:
        StateError: It cannot be read.
    """
    found = list(user_ids)
    going_on = set(range(len(found)))
    with state_errors("follow aliases"):
        for _ in range(MOST_HOPS):
            pipe: Any = client.pipeline(transaction=False)
            asked = sorted(going_on)
            for n in asked:
                pipe.hget(keys.aliases(keys.partition(found[n])), found[n])
            for n, into in zip(asked, await pipe.execute(), strict=True):
                found[n], going_on = into or found[n], going_on - (set() if into else {n})
            if not going_on:
                break
    return found


def admit_merges(client: redis.Redis, keys: Keys, home: Home, now_ms: int) -> list[Merge]:
    """Admits what was asked for, oldest first, a bounded number; gives what is new. Killed anywhere, it is run again.

    A merge of two ids that are one user already is done with. So is one of an id that was merged into another user: the
    first merge stays.

    Raises:
        StateError: Redis/Valkey cannot be reached.
        DataError: The file cannot be written.
        UsageError: Another process is at it.
    """
    with state_errors("read the merges"):
        entries: Any = client.xrange(keys.merge_requests, count=_AT_ONCE)
    if not entries:
        return []
    with home.lock("merges"):
        admitted = [admit(client, keys, home, _request(*entry), now_ms) for entry in entries]
    return [merge for merge in admitted if merge is not None]


def admit(client: redis.Redis, keys: Keys, home: Home, request: Request, now_ms: int) -> Merge | None:
    """Admits one request, or finds that there is nothing to do. See `admit_merges`."""
    from_user, into = root(client, keys, request.from_user), root(client, keys, request.into_user)
    merge = None
    if from_user == request.from_user and from_user != into:
        with state_errors("read consent"):
            since: Any = client.hget(keys.consent(keys.partition(from_user)), from_user)
        kept_ms = -1 if since is None else int(since)
        merge = Merge(from_user, into, now_ms, now_ms if kept_ms == NEVER else kept_ms)
        note(home, keys.catalogue, merge)
        set_alias(client, keys, merge)
    elif from_user != into:
        log.warning("a merge is refused: its user was merged into another one before")
    with state_errors("end a merge's request"):
        client.xdel(keys.merge_requests, request.id)
    return merge


def root(client: redis.Redis, keys: Keys, user_id: str) -> str:
    """The user that an id is by now, as `roots_async`."""
    at = user_id
    with state_errors("follow an alias"):
        for _ in range(MOST_HOPS):
            into: Any = client.hget(keys.aliases(keys.partition(at)), at)
            if into is None:
                break
            at = str(into)
    return at


def set_alias(client: redis.Redis, keys: Keys, merge: Merge) -> None:
    """Has events and requests of the merged id go on as those of the other, and its past marked to move there.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    p = keys.partition(merge.from_user)
    with state_errors("set an alias"):
        touched = keys.aliases(p), keys.moving(p), keys.consent(p)
        client.eval(_ALIAS, 3, *touched, merge.from_user, merge.into_user, str(NEVER), str(merge.since_ms))


def restore_aliases(client: redis.Redis, keys: Keys, merges: Mapping[str, Merge]) -> None:
    """Sets all aliases anew, for a server that was lost; their ids' events up to `since_ms` are shut out as before.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("restore aliases"):
        pipe: Any = client.pipeline(transaction=False)
        for merge in merges.values():
            p = keys.partition(merge.from_user)
            pipe.hset(keys.aliases(p), merge.from_user, merge.into_user)
            if merge.since_ms >= 0:
                pipe.hset(keys.consent(p), merge.from_user, str(merge.since_ms))
        pipe.execute()


def withdraw_requests(client: redis.Redis, keys: Keys, user_ids: frozenset[str]) -> int:
    """Takes away the merges that were asked for of some users and are not admitted; gives how many.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("withdraw merges"):
        entries: Any = client.xrange(keys.merge_requests)
        theirs = [
            entry_id
            for entry_id, fields in entries
            if not user_ids.isdisjoint((fields["from"], fields["into"]))
        ]
        return int(client.xdel(keys.merge_requests, *theirs)) if theirs else 0  # type: ignore[arg-type]


def _request(entry_id: str, fields: Mapping[str, str]) -> Request:
    return Request(entry_id, fields["from"], fields["into"])
