"""How many live events a second one consumer process applies, on one core, with all that it does to state.

Appends realistic events (Zipf users and items, 64 partitions, categories) to an embedded Valkey, then has a process that
is held to one core apply them: users' records, items' counters, histories, offsets, item totals and rankings, Parquet
days. Each turn goes on from the state that the turn before left.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from turns import Effort, Part, column, shown

from tastemaker.config import Settings
from tastemaker.data.schema import ITEMS_SCHEMA, imported_folder
from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys, url_of
from tastemaker.state.server import EmbeddedValkey

NUM_USERS, NUM_ITEMS, NUM_EVENTS = 50_000, 20_000, 200_000
KINDS = {
    "impression": 0.6,
    "view": 0.2,
    "click": 0.13,
    "like": 0.02,
    "purchase": 0.02,
    "skip": 0.02,
    "hide": 0.01,
}
TARGET_PER_SECOND = 10_000


def stream(effort: Effort) -> Part:
    num_events = NUM_EVENTS // effort.divide
    part = Part(
        f"The stream consumer: {num_events:,} live events of {NUM_USERS:,} users on {NUM_ITEMS:,} items, one core",
        ("what", "median [least, most]"),
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        write_items(home)
        with EmbeddedValkey(home):
            found = [turn(home, number, num_events) for number in range(min(effort.turns, 3))]
    speed = column(found, "events_per_second")
    part.rows = [
        ("events a second", shown(speed, 0)),
        ("consumer's CPU, us an event", shown(column(found, "cpu_us"))),
        ("Valkey's CPU, us an event", shown(column(found, "valkey_us"))),
        ("share that was in Parquet by then", shown(column(found, "archived_ratio"), 2)),
        ("memory of the consumer, MiB", shown(column(found, "peak_mib"), 0)),
    ]
    part.target("live events a second, one consumer on one core", median(speed), TARGET_PER_SECOND, "higher")
    part.figures, part.num_turns = {"turns": found}, len(found)
    return part


def turn(home: Home, number: int, num_events: int) -> dict[str, float]:
    """Appends a turn's events and has a process of its own apply them."""
    settings = Settings(home=home.root, catalogue="bench")
    with connect(url_of(settings, home), timeout_seconds=60.0) as client:
        keys = open_keys(client, settings)
        now_ms = int(time.time() * 1000)
        events = make_events(num_events, number, now_ms)
        for start in range(0, num_events, 5_000):
            append(client, keys, events[start : start + 5_000], settings.state, now_ms, durable=False)
    valkey = psutil.Process(json.loads((home / "run" / "valkey.json").read_text())["pid"])
    before = valkey.cpu_times()
    command = [sys.executable, __file__, str(home.root)]
    measured: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    after = valkey.cpu_times()
    assert measured["events"] == num_events, measured
    valkey_seconds = after.user + after.system - before.user - before.system
    return measured | {"valkey_us": 1e6 * valkey_seconds / num_events}


def consume(home: Home) -> dict[str, float]:
    """Applies all that the streams hold, as a consumer's process does, held to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    settings = Settings(home=home.root, catalogue="bench")
    client = connect(url_of(settings, home), timeout_seconds=60.0)
    keys = open_keys(client, settings)
    effects = StreamFeatures(client, keys, home)
    consumer = StreamConsumer(client, keys, home, settings, RewardJoiner(client, keys), effects)
    num_events, archived, began, cpu = 0, 0, time.perf_counter(), time.process_time()
    while True:
        step = consumer.step()
        num_events, archived = num_events + step.events, archived + step.archived
        if not step.behind:
            break
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    consumer.drain(60.0)
    consumer.close()
    return {
        "events": num_events,
        "events_per_second": num_events / seconds,
        "archived_ratio": archived / num_events,
        "cpu_us": 1e6 * cpu_seconds / num_events,
        "peak_mib": psutil.Process().memory_info().rss / 2**20,
    }


def make_events(count: int, seed: int, now_ms: int) -> list[Event]:
    """Impressions and what follows them, over the last hour."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(KINDS), count, p=list(KINDS.values()))
    users, items = zipf(rng, NUM_USERS, 0.8, count), zipf(rng, NUM_ITEMS, 1.0, count)
    times = now_ms - np.sort(rng.integers(0, 3_600_000, count))[::-1]
    return [
        Event(
            event_id=f"event-{seed}-{n}", user_id=f"user-{users[n]}", item_id=f"item-{items[n]}", kind=str(kinds[n]),
            timestamp_ms=int(times[n]), request_id=f"request-{seed}-{n // 10}", position=n % 10,
            context={"device": "tv", "country": "de"},
        )
        for n in range(count)
    ]  # fmt: skip


def zipf(rng: np.random.Generator, number: int, exponent: float, count: int) -> Any:
    share = 1.0 / np.arange(1, number + 1) ** exponent
    return rng.choice(number, count, p=share / share.sum())


def write_items(home: Home) -> None:
    folder = imported_folder(home, "bench")
    folder.mkdir(parents=True)
    ids = [f"item-{n}" for n in range(NUM_ITEMS)]
    columns = [
        ids,
        ids,
        [f"category-{n % 20}" for n in range(NUM_ITEMS)],
        [[]] * NUM_ITEMS,
        [None] * NUM_ITEMS,
    ]
    pq.write_table(
        pa.table(dict(zip(ITEMS_SCHEMA.names, columns, strict=True)), schema=ITEMS_SCHEMA),
        folder / "items.parquet",
    )


if __name__ == "__main__":
    print(json.dumps(consume(Home.open(Path(sys.argv[1])))))
