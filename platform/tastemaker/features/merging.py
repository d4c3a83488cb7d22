"""How what is kept of a merged user joins the user it is by now, each event once, though the two lie in different slots.

    aliases, moving ─► consumer of A's partition ─► outbox ─► forwarded ─► inbox ─► consumer of B's partition ─► B's record
                       (one commit: A's past out)   (stream)   (at least once)      (one commit: entry out, record in)

Only the consumer that holds a partition writes records there, in its commits, so no other fence is needed. An entry of an
outbox never changes; entries of one partition arrive in order, and the receiving partition keeps the id of the newest, so
that one which is forwarded again is refused. Whoever is killed at any point is followed by another who goes on.

What is new of A after the merge goes the same way, as a record of those events alone (`parcels.parcel_of`): records are linear, so
that joining adds them up. Also done here, for the same reason: forgetting the past of users who opted out.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgpack
import redis

from tastemaker.events.batch import Refused
from tastemaker.events.erasure import user_hash
from tastemaker.events.log import Entry
from tastemaker.events.owners import NEVER, PLAIN, Owner, read_owners
from tastemaker.features.parcels import Known, Parcel, joined
from tastemaker.features.unreadable import UNREADABLE
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command
from tastemaker.users.profile import INTEREST, PARTS

_AT_ONCE: Final = 200
"""Entries of a partition in one go."""
# KEYS: received, inbox, erased. ARGV: partition that sends, its entry's id, hash of the user it is for, the parcel.
_DELIVER: Final = """
local function parts(id) local ms, n = id:match('(%d+)-(%d+)') return tonumber(ms), tonumber(n) end
local ms, n = parts(ARGV[2])
local last = redis.call('HGET', KEYS[1], ARGV[1])
if last then
  local last_ms, last_n = parts(last)
  if ms < last_ms or (ms == last_ms and n <= last_n) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local erased = redis.call('HGET', KEYS[3], ARGV[3])
if erased and ms <= tonumber(erased) then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[4])
return 1
"""


def join(
    client: redis.Redis, keys: Keys, partitions: Iterable[int], history_length: int
) -> dict[int, list[Command]]:
    """What merges and opting out write to some partitions, a bounded amount, for one commit of each.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        partitions: Those that the caller holds, and nobody else writes records of.
        history_length: How many of the newest items a history keeps.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    commands: dict[int, list[Command]] = {}
    for p in _busy(client, keys, partitions):
        forgetting, moving, inbox = _waiting(client, keys, p)
        if forgetting:
            commands[p] = _forget(keys, p, forgetting)
        elif moving:
            commands[p] = _move(client, keys, p, moving)
        elif inbox:
            commands[p] = _receive(client, keys, p, inbox, history_length)
    return commands


def forward(client: redis.Redis, keys: Keys, partitions: Iterable[int]) -> int:
    """Brings what lies in the outboxes of some partitions to where it joins, a bounded amount; gives how much.

    Anyone may, any number of times. What is of nobody any more, since its user was erased, is dropped.

    Raises:
        StateError: Redis/Valkey cannot be reached: it is still there.
    """
    with state_errors("forward what merges move"):
        full = list(partitions)
        pipe: Any = client.pipeline(transaction=False)
        for p in full:
            pipe.xlen(keys.outbox(p))
        found = [p for p, length in zip(full, pipe.execute(), strict=True) if length]
        return sum(_forward(client, keys, p) for p in found)


def is_moving(client: redis.Redis, keys: Keys) -> bool:
    """Whether anything is on its way from one user to another, or to be forgotten."""
    with state_errors("look for what merges move"):
        pipe: Any = client.pipeline(transaction=False)
        for p in range(keys.partitions):
            pipe.exists(keys.forgetting(p), keys.moving(p), keys.inbox(p))
            pipe.xlen(keys.outbox(p))
        return any(pipe.execute())


def _busy(client: redis.Redis, keys: Keys, partitions: Iterable[int]) -> list[int]:
    looked = list(partitions)
    with state_errors("look for what merges move"):
        pipe: Any = client.pipeline(transaction=False)
        for p in looked:
            pipe.exists(keys.forgetting(p), keys.moving(p), keys.inbox(p))
        return [p for p, found in zip(looked, pipe.execute(), strict=True) if found]


def _waiting(client: redis.Redis, keys: Keys, p: int) -> tuple[list[str], list[str], list[bytes]]:
    with state_errors("read what merges move"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.srandmember(keys.forgetting(p), _AT_ONCE)
        pipe.srandmember(keys.moving(p), _AT_ONCE)
        pipe.execute_command("LRANGE", keys.inbox(p), 0, _AT_ONCE - 1, NEVER_DECODE=True)
        found: tuple[list[str], list[str], list[bytes]] = tuple(pipe.execute())
        return found


def _forget(keys: Keys, p: int, user_ids: Sequence[str]) -> list[Command]:
    kept = [key for user_id in user_ids for key in (keys.user(user_id), keys.history(user_id))]
    return [
        *(("DEL", key) for key in kept),
        ("SADD", keys.changed_users(p), *user_ids),
        ("SREM", keys.forgetting(p), *user_ids),
    ]


def _move(client: redis.Redis, keys: Keys, p: int, user_ids: Sequence[str]) -> list[Command]:
    """Out of the merged users' keys, into the outbox."""
    commands: list[Command] = []
    for user_id, known in _read(client, keys, user_ids).items():
        parcel = Parcel(known.record, known.history, known.parts)
        if not parcel.is_empty:
            commands.append(parcel.posted(keys, user_id))
        for key in (keys.user(user_id), keys.history(user_id), keys.profile(user_id)):
            commands.append(("DEL", key))
    marks = ("SADD", keys.changed_users(p), *user_ids), ("SREM", keys.moving(p), *user_ids)
    return [*commands, *marks]


def _receive(client: redis.Redis, keys: Keys, p: int, inbox: Sequence[bytes], length: int) -> list[Command]:
    """Out of the inbox, into the users' records; on to where a user was merged into yet another."""
    commands: list[Command] = [("LTRIM", keys.inbox(p), str(len(inbox)), "-1")]
    parcels: dict[str, list[Parcel]] = {}
    for packed in inbox:
        user_id, parcel = msgpack.unpackb(packed)
        parcels.setdefault(user_id, []).append(Parcel.unpack(parcel))
    owners = read_owners(client, keys, {p: parcels})[p]
    known = _read(client, keys, list(parcels))
    for user_id, found in parcels.items():
        owner = owners.get(user_id, PLAIN)
        if owner.into is not None:
            commands += [parcel.posted(keys, user_id) for parcel in found]
        else:
            commands += _joining(keys, user_id, owner, known[user_id], found, length)
    return commands


def _joining(
    keys: Keys, user_id: str, owner: Owner, known: Known, parcels: Sequence[Parcel], length: int
) -> list[Command]:
    p = keys.partition(user_id)
    parts: dict[str, str] = {}
    for parcel in parcels:
        parts = {**parcel.parts, **parts}
    commands = _parts_commands(keys, user_id, {k: v for k, v in parts.items() if k not in known.parts})
    if owner.is_out:
        return commands
    try:
        state, history = joined(known, parcels, length)
    except UNREADABLE as error:
        entry = Entry(user_id, json.dumps({"user_id": user_id}, ensure_ascii=False))
        return [*commands, Refused("inbox", entry, f"a record cannot be read: {error}").letter(keys, p)]
    if history:
        commands += [("DEL", keys.history(user_id)), ("RPUSH", keys.history(user_id), *history)]
    if state.last_ms:
        commands.append(("SET", keys.user(user_id), state.encode()))
    return [*commands, ("SADD", keys.changed_users(p), user_id)]


def _parts_commands(keys: Keys, user_id: str, parts: Mapping[str, str]) -> list[Command]:
    """Gives a user the parts of a profile that it has not. One who is opted out by them is to be forgotten as well."""
    if not parts:
        return []
    p, profile = keys.partition(user_id), keys.profile(user_id)
    commands: list[Command] = [("HSETNX", profile, name, text) for name, text in parts.items()]
    commands += [("HINCRBY", profile, "version", "1"), ("SADD", keys.changed_profiles(p), user_id)]
    if parts.get("personalise") == "false":
        commands += [
            ("HSET", keys.consent(p), user_id, str(NEVER)),
            ("SADD", keys.forgetting(p), user_id),
        ]
    return commands


def _read(client: redis.Redis, keys: Keys, user_ids: Sequence[str]) -> dict[str, Known]:
    with state_errors("read users"):
        pipe: Any = client.pipeline(transaction=False)
        for user_id in user_ids:
            pipe.execute_command("GET", keys.user(user_id), NEVER_DECODE=True)
            pipe.lrange(keys.history(user_id), 0, -1)
            pipe.hgetall(keys.profile(user_id))
        replies = pipe.execute()
    kept = {*PARTS, INTEREST, "schema", "updated_ms"}
    return {
        user_id: Known(record or b"", history, {k: v for k, v in parts.items() if k in kept})
        for user_id, record, history, parts in zip(
            user_ids, replies[0::3], replies[1::3], replies[2::3], strict=True
        )
    }


def _forward(client: redis.Redis, keys: Keys, p: int) -> int:
    pipe: Any = client.pipeline(transaction=False)
    pipe.execute_command("XRANGE", keys.outbox(p), "-", "+", "COUNT", _AT_ONCE, NEVER_DECODE=True)
    (reply,) = pipe.execute()
    entries = [(entry_id.decode(), fields[b"user"].decode(), fields[b"parcel"]) for entry_id, fields in reply]
    users = list(dict.fromkeys(user_id for _, user_id, _ in entries))
    aliases: Any = dict(zip(users, client.hmget(keys.aliases(p), users), strict=True))  # type: ignore[arg-type]
    for entry_id, user_id, parcel in entries:
        if (into := aliases[user_id]) is not None:
            target = keys.partition(into)
            touched = keys.received(target), keys.inbox(target), keys.erased(target)
            packed = msgpack.packb((into, parcel))
            pipe.eval(_DELIVER, 3, *touched, str(p), entry_id, user_hash(into), packed)
    pipe.execute()
    client.xdel(keys.outbox(p), *(entry_id for entry_id, _, _ in entries))
    return len(entries)
