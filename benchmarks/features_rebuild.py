"""How many archived events a second a rebuild turns into online features, on one core.

Writes Parquet days of synthetic events (Zipf users and items, 64 partitions, one file per two minutes of a day, then
compacted), and has a process that is held to one core rebuild users' records, histories, items' counters, totals and
rankings in an embedded Valkey.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
from features_stream import KINDS, NUM_ITEMS, NUM_USERS, write_items, zipf
from turns import Effort, Part, column, shown

from tastemaker.config import Settings
from tastemaker.events.archive import EVENT_SCHEMA, write_days
from tastemaker.events.compaction import compact
from tastemaker.features.rebuild import rebuild
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys, url_of
from tastemaker.state.server import EmbeddedValkey

NUM_EVENTS, NUM_DAYS = 1_000_000, 10
TARGET_PER_SECOND = 30_000
DAY_MS = 86_400_000
START_MS = 20_000 * DAY_MS


def rebuilding(effort: Effort) -> Part:
    num_events = NUM_EVENTS // effort.divide
    part = Part(
        f"A rebuild of {num_events:,} events of {NUM_USERS:,} users on {NUM_ITEMS:,} items, {NUM_DAYS} days, one core",
        ("what", "median [least, most]"),
    )
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        write_items(home)
        compacted = write_log(home, num_events)
        with EmbeddedValkey(home):
            command = [sys.executable, __file__, str(home.root)]
            turns = range(min(effort.turns, 3))
            found = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in turns
            ]
    assert all(turn["events"] == num_events for turn in found), found
    speed = [turn["events"] / turn["seconds"] for turn in found]
    part.rows = [
        ("events a second", shown(speed, 0)),
        (
            "CPU of the rebuild, us an event",
            shown([1e6 * turn["cpu_seconds"] / num_events for turn in found]),
        ),
        ("its peak memory, MiB", shown(column(found, "peak_mib"), 0)),
        ("compaction beforehand, events a second", shown([compacted], 0)),
    ]
    part.target("rebuilt events a second on one core", median(speed), TARGET_PER_SECOND, "higher")
    part.figures, part.num_turns = {"turns": found}, len(found)
    return part


def write_log(home: Home, num_events: int) -> float:
    """Writes the days as the consumer would, then compacts them; gives the compaction's events a second."""
    folder, rng = home / "events" / "bench", np.random.default_rng(0)
    num_files = NUM_DAYS * 20
    for number in range(num_files):
        write_days(folder, events(rng, num_events // num_files, number, num_files))
    rest = num_events - num_events // num_files * num_files
    if rest:
        write_days(folder, events(rng, rest, num_files, num_files))
    started = time.perf_counter()
    rows = compact(folder, now_ms=START_MS + (NUM_DAYS + 2) * DAY_MS).rows
    assert rows == num_events
    return rows / (time.perf_counter() - started)


def events(rng: np.random.Generator, count: int, number: int, num_files: int) -> pa.Table:
    """The events of one file, of a slice of the days."""
    span = NUM_DAYS * DAY_MS // num_files
    received_ms = START_MS + number * span + np.sort(rng.integers(0, span, count))
    columns = {
        "event_id": [f"e{number}-{n}" for n in range(count)],
        "user_id": [f"user-{n}" for n in zipf(rng, NUM_USERS, 0.8, count)],
        "item_id": [f"item-{n}" for n in zipf(rng, NUM_ITEMS, 1.0, count)],
        "kind": rng.choice(list(KINDS), count, p=list(KINDS.values())).tolist(),
        "timestamp_ms": received_ms - rng.integers(0, 3000, count),
        "received_ms": received_ms,
        "origin": ["live"] * count,
        "sequence": np.zeros(count, np.int64),
    }
    absent = {
        name: pa.nulls(count, EVENT_SCHEMA.field(name).type)
        for name in EVENT_SCHEMA.names
        if name not in columns
    }
    return pa.table({name: (columns | absent)[name] for name in EVENT_SCHEMA.names}, schema=EVENT_SCHEMA)


def measure(root: str) -> None:
    """Rebuilds in this process, on one core, and prints what it took as JSON."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    home = Home.open(Path(root))
    settings = Settings(home=home.root, catalogue="bench")
    with connect(url_of(settings, home), timeout_seconds=60.0) as client:
        before = time.process_time()
        done = rebuild(client, open_keys(client, settings), home, settings.state)
    used = {
        "cpu_seconds": time.process_time() - before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(asdict(done) | used))


if __name__ == "__main__":
    measure(sys.argv[1])
