"""What users, items and the deduplication window take in Redis/Valkey, and what ten million users would.

Each is added alone to an empty server, which then says how much more it uses; so index, key names and allocator are in
it. The users have the events that the stream's benchmark draws, by the same functions that the consumer calls.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import redis
from features_stream import NUM_ITEMS, NUM_USERS, make_events
from turns import Effort, Part, shown

from tastemaker.config import Settings
from tastemaker.events.history import NOT_HISTORY
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters
from tastemaker.features.countries import count_weights, local_name
from tastemaker.features.user_state import UserState, after, count_events
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys, url_of
from tastemaker.state.keys import Keys
from tastemaker.state.server import EmbeddedValkey

MANY_USERS = 10_000_000
GIB_MONTH_DOLLARS = 10.0
"""Assumed: about what a GiB of managed Redis in memory costs a month, one replica included."""
Write = Callable[[redis.Redis, Keys], int]


def memory(effort: Effort) -> Part:
    num_events = 1_000_000 // effort.divide
    part = Part(
        f"Memory in Valkey, {num_events:,} events of up to {NUM_USERS:,} users on {NUM_ITEMS:,} items",
        ("what", "number", "bytes of each", "what one holds"),
    )
    now_ms = int(time.time() * 1000)
    events = make_events(num_events, 0, now_ms)
    writes: dict[str, tuple[Write, str]] = {
        "user's record": (lambda c, k: _records(c, k, events), f"{num_events // NUM_USERS} events"),
        "user's history": (lambda c, k: _histories(c, k, events), "newest items, at most 50"),
        "item's counters, of one partition": (
            lambda c, k: _items(c, k, events),
            "11 rows of 5 windows at most",
        ),
        "item's weight in a country, of one partition": (
            lambda c, k: _in_countries(c, k, events),
            "1 row of 5 windows",
        ),
        "event id in the deduplication window": (
            lambda c, k: _dedup(c, k, events[: num_events // 5]),
            "24 h by default",
        ),
    }
    bytes_of: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        settings = Settings(home=home.root, catalogue="bench")
        with EmbeddedValkey(home), connect(url_of(settings, home), timeout_seconds=60.0) as client:
            for name, (write, holds) in writes.items():
                found = [_taken(client, settings, write) for _ in range(min(effort.turns, 2))]
                part.num_turns = len(found)
                bytes_of[name] = median(size for _, size in found)
                part.rows.append((name, f"{found[0][0]:,}", shown([size for _, size in found], 0), holds))
    user = bytes_of["user's record"] + bytes_of["user's history"]
    gib = MANY_USERS * user / 2**30
    part.notes.append(
        f"{MANY_USERS:,} such users take {gib:,.0f} GiB, {GIB_MONTH_DOLLARS * gib:,.0f} dollars a month at "
        f"{GIB_MONTH_DOLLARS:.0f} dollars a GiB and month. A million events a day keep "
        f"{1e6 * bytes_of['event id in the deduplication window'] / 2**20:,.0f} to twice as many MiB of ids."
    )
    part.figures = {"bytes": bytes_of}
    return part


def _taken(client: redis.Redis, settings: Settings, write: Write) -> tuple[int, float]:
    """How many things were written, and the bytes of each."""
    client.execute_command("FLUSHALL", "SYNC")  # by default the server frees the memory later
    before = int(client.info("memory")["used_memory"])  # type: ignore[index]
    number = write(client, open_keys(client, settings))
    return number, (int(client.info("memory")["used_memory"]) - before) / number  # type: ignore[index]


def _by_user(events: list[Event]) -> dict[str, list[Event]]:
    own: dict[str, list[Event]] = {}
    for event in events:
        own.setdefault(event.user_id, []).append(event)
    return own


def _records(client: redis.Redis, keys: Keys, events: list[Event]) -> int:
    own = _by_user(events)
    states = after(
        [UserState() for _ in own], list(own.values()), lambda item_id: f"category-{int(item_id[5:]) % 20}"
    )
    pipe = client.pipeline(transaction=False)
    for user_id, state in zip(own, states, strict=True):
        pipe.set(keys.user(user_id), state.encode())
    pipe.execute()
    return len(own)


def _histories(client: redis.Redis, keys: Keys, events: list[Event]) -> int:
    taken = {
        user_id: [event.item_id for event in own if event.kind not in NOT_HISTORY]
        for user_id, own in _by_user(events).items()
    }
    pipe = client.pipeline(transaction=False)
    for user_id, items in taken.items():
        if items:
            pipe.rpush(keys.history(user_id), *list(dict.fromkeys(reversed(items)))[:50])
    pipe.execute()
    return len(taken)


def _items(client: redis.Redis, keys: Keys, events: list[Event]) -> int:
    place: dict[tuple[int, str], int] = {}
    rows = [(place.setdefault((keys.partition(e.user_id), e.item_id), len(place)), e) for e in events]
    return _put(client, keys.item_counters, place, count_events(Counters.zeros(len(place)), rows))


def _in_countries(client: redis.Redis, keys: Keys, events: list[Event]) -> int:
    place: dict[tuple[int, str], int] = {}
    named = [(keys.partition(e.user_id), name, e) for e in events if (name := local_name(e))]
    rows = [(place.setdefault((partition, name), len(place)), e) for partition, name, e in named]
    return _put(client, keys.local_counters, place, count_weights(Counters.zeros(len(place)), rows))


def _put(
    client: redis.Redis, key_of: Callable[[int], str], place: Iterable[tuple[int, str]], counters: Counters
) -> int:
    """Writes each counter into its partition's hash; gives how many."""
    pipe, records = client.pipeline(transaction=False), counters.encode()
    for (partition, name), record in zip(place, records, strict=True):
        pipe.hset(key_of(partition), name, record)
    pipe.execute()
    return len(records)


def _dedup(client: redis.Redis, keys: Keys, events: list[Event]) -> int:
    settings = Settings(catalogue=keys.catalogue).state
    now_ms = int(time.time() * 1000)
    for start in range(0, len(events), 5_000):
        append(client, keys, events[start : start + 5_000], settings, now_ms, durable=False)
    for partition in range(keys.partitions):
        client.delete(keys.events(partition))
    return len(events)
