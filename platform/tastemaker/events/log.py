"""The event log's front: append with deduplication, and read back. Each partition is one stream.

An `event_id` is remembered for at least `dedup_window_seconds` and at most twice that: ids are kept in one
set per window of time, and an append looks into the present and the previous one. Check and append are one
script, so that two gateways cannot both accept an id. A stream never drops what was not yet archived: at its
cap an append is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.config import StateSettings
from tastemaker.errors import StateError
from tastemaker.events.schema import Event
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

FIELD = "e"
"""The one field of a stream entry: the record as JSON."""

_FULL = "STREAM_FULL"
# KEYS: stream, ids of this window, ids of the previous one. ARGV: cap, seconds to keep the set, then id and
# JSON in turn.
_APPEND = f"""
local free = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
if free < (#ARGV - 2) / 2 then return redis.error_reply('{_FULL}') end
local accepted = 0
for i = 3, #ARGV, 2 do
  if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 0 and redis.call('SADD', KEYS[2], ARGV[i]) == 1 then
    redis.call('XADD', KEYS[1], '*', '{FIELD}', ARGV[i + 1])
    accepted = accepted + 1
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return accepted
"""
_WAIT_DURABLE_MS = 2000


class Appended(NamedTuple):
    """What became of a batch: events newly in the log, and events that were in it already."""

    accepted: int
    duplicates: int


class Entry(NamedTuple):
    """A record of a stream: its id, and its JSON."""

    id: str
    json: str

    @property
    def received_ms(self) -> int:
        """When the server took it, by the server's clock."""
        return int(self.id.partition("-")[0])


def append(
    client: redis.Redis,
    keys: Keys,
    events: Sequence[Event],
    settings: StateSettings,
    now_ms: int,
    *,
    durable: bool = True,
) -> Appended:
    """Appends events that the log does not hold yet, each to its user's partition, keeping their order there.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        events: Any number.
        settings: Deduplication window and cap.
        now_ms: Chooses the window; the server's clock, not a client's.
        durable: Return only after the server's append-only file was flushed (WAITAOF).

    Raises:
        StateError: Not (all) appended, or not known to be on disk. Appending the same again does no harm.
    """
    if not events:
        return Appended(0, 0)
    with state_errors("append events"):
        pipe: Any = client.pipeline(transaction=False)
        _queue(pipe, keys, events, settings, now_ms)
        if durable:
            pipe.execute_command("WAITAOF", 1, 0, _WAIT_DURABLE_MS)
        return _outcome(pipe.execute(raise_on_error=False), len(events), settings, durable)


async def append_async(
    client: AsyncRedis,
    keys: Keys,
    events: Sequence[Event],
    settings: StateSettings,
    now_ms: int,
    *,
    durable: bool = True,
) -> Appended:
    """The same as `append`, for asyncio."""
    if not events:
        return Appended(0, 0)
    with state_errors("append events"):
        pipe: Any = client.pipeline(transaction=False)
        _queue(pipe, keys, events, settings, now_ms)
        if durable:
            pipe.execute_command("WAITAOF", 1, 0, _WAIT_DURABLE_MS)
        return _outcome(await pipe.execute(raise_on_error=False), len(events), settings, durable)


def read(client: redis.Redis, stream: str, after: str = "0-0", count: int = 1000) -> list[Entry]:
    """At most `count` entries of a stream, oldest first, from behind the id `after`."""
    with state_errors(f"read {stream}"):
        return entries(client.xrange(stream, min=f"({after}", count=count))


def entries(reply: Any) -> list[Entry]:
    """The entries in a reply to XRANGE."""
    return [Entry(entry_id, fields[FIELD]) for entry_id, fields in reply]


def _queue(pipe: Any, keys: Keys, events: Iterable[Event], settings: StateSettings, now_ms: int) -> None:
    window_seconds = settings.dedup_window_seconds
    window = now_ms // (1000 * window_seconds)
    for partition, arguments in _by_partition(keys, events).items():
        pipe.eval(
            _APPEND, 3,
            keys.events(partition), keys.dedup(partition, window), keys.dedup(partition, window - 1),
            str(settings.stream_max_length), str(2 * window_seconds), *arguments,
        )  # fmt: skip


def _by_partition(keys: Keys, events: Iterable[Event]) -> Mapping[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for event in events:
        arguments = groups.setdefault(keys.partition(event.user_id), [])
        arguments += (event.event_id, event.model_dump_json(exclude_none=True))
    return groups


def _outcome(replies: list[Any], num_events: int, settings: StateSettings, durable: bool) -> Appended:
    for reply in replies:
        if isinstance(reply, Exception):
            if _FULL not in str(reply):
                raise reply
            raise StateError(
                "a partition's event stream is full",
                limit=f"at most {settings.stream_max_length} entries",
                mend="see that the stream consumer runs, then send the batch again",
            )
    if durable and int(replies.pop()[0]) < 1:
        raise StateError("events are not yet on disk", mend="send the batch again; duplicates do no harm")
    accepted = sum(replies)
    return Appended(accepted, num_events - accepted)
