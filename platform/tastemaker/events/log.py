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
from tastemaker.errors import StateError, StreamFullError
from tastemaker.events.schema import Event
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

FIELD = "e"
"""The one field of a stream entry: the record as JSON."""
_FIELD = FIELD.encode()

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


class Record(NamedTuple):
    """An event as the log keeps it. When it was received, by our clock, chooses its deduplication window."""

    event_id: str
    user_id: str
    json: str
    received_ms: int


def record_of(event: Event, received_ms: int) -> Record:
    """The record of an event."""
    return Record(event.event_id, event.user_id, event.model_dump_json(exclude_none=True), received_ms)


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
    return append_records(
        client, keys, [record_of(event, now_ms) for event in events], settings, durable=durable
    )


def append_records(
    client: redis.Redis,
    keys: Keys,
    records: Sequence[Record],
    settings: StateSettings,
    *,
    durable: bool = True,
) -> Appended:
    """The same as `append`, of records, each under its own time.

    Raises:
        StreamFullError: A partition has no room for its part; others may have taken theirs.
        StateError: See `append`.
    """
    if not records:
        return Appended(0, 0)
    with state_errors("append events"):
        pipe: Any = client.pipeline(transaction=False)
        _queue(pipe, keys, records, settings, durable)
        return _outcome(pipe.execute(raise_on_error=False), len(records), settings, durable)


async def append_records_async(
    client: AsyncRedis,
    keys: Keys,
    records: Sequence[Record],
    settings: StateSettings,
    *,
    durable: bool = True,
) -> Appended:
    """The same as `append_records`, for asyncio."""
    if not records:
        return Appended(0, 0)
    with state_errors("append events"):
        pipe: Any = client.pipeline(transaction=False)
        _queue(pipe, keys, records, settings, durable)
        return _outcome(await pipe.execute(raise_on_error=False), len(records), settings, durable)


def read(client: redis.Redis, stream: str, after: str = "0-0", count: int = 1000) -> list[Entry]:
    """At most `count` entries of a stream, oldest first, from behind the id `after`."""
    with state_errors(f"read {stream}"):
        return entries(queue_range(client, stream, after, "+", count))


def queue_range(client_or_pipe: Any, stream: str, after: str, until: str, count: int) -> Any:
    """Reads a stream from behind `after` up to `until`, or queues that; `entries` takes the reply."""
    return client_or_pipe.execute_command(
        "XRANGE", stream, f"({after}", until, "COUNT", count, NEVER_DECODE=True
    )


def entries(reply: Any) -> list[Entry]:
    """The entries in a reply to `queue_range`.

    Bytes that are no UTF-8 come escaped, and a record that is not there as an empty text: neither is JSON, so that who
    decodes the entry refuses it.
    """
    return [
        Entry(entry_id.decode(), (fields or {}).get(_FIELD, b"").decode(errors="backslashreplace"))
        for entry_id, fields in reply
    ]


def _queue(pipe: Any, keys: Keys, records: Iterable[Record], settings: StateSettings, durable: bool) -> None:
    window_seconds = settings.dedup_window_seconds
    for (partition, window), arguments in _grouped(keys, records, 1000 * window_seconds).items():
        pipe.eval(
            _APPEND, 3,
            keys.events(partition), keys.dedup(partition, window), keys.dedup(partition, window - 1),
            str(settings.stream_max_length), str(2 * window_seconds), *arguments,
        )  # fmt: skip
    if durable:
        pipe.execute_command("WAITAOF", 1, 0, _WAIT_DURABLE_MS)


def _grouped(keys: Keys, records: Iterable[Record], window_ms: int) -> Mapping[tuple[int, int], list[str]]:
    """Ids and JSON in turn, by partition and window."""
    groups: dict[tuple[int, int], list[str]] = {}
    for record in records:
        place = (keys.partition(record.user_id), record.received_ms // window_ms)
        arguments = groups.setdefault(place, [])
        arguments += (record.event_id, record.json)
    return groups


def _outcome(replies: list[Any], num_events: int, settings: StateSettings, durable: bool) -> Appended:
    for reply in replies:
        if isinstance(reply, Exception):
            if _FULL not in str(reply):
                raise reply
            raise StreamFullError(
                "a partition's event stream is full",
                limit=f"at most {settings.stream_max_length} entries",
                mend="see that the stream consumer runs, then send the batch again",
            )
    if durable and int(replies.pop()[0]) < 1:
        raise StateError("events are not yet on disk", mend="send the batch again; duplicates do no harm")
    accepted = sum(replies)
    return Appended(accepted, num_events - accepted)
