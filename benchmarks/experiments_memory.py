"""How much memory a report takes as the log grows: each in a process of its own, that says its peak.

`python experiments_memory.py HOME` makes one report of the log under HOME and prints its figures as JSON.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from turns import Effort, Part

from tastemaker.events.archive import EVENT_SCHEMA, write_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment, Fixed, Variant
from tastemaker.home import Home

SIZES = (200_000, 400_000, 800_000)
NUM_ITEMS, PLACES, SEEN, CLICKED = 20_000, 10, 4, 0.4
ANSWERS_OF_A_USER = 8
START_MS, SPAN_MS = 1_750_000_000_000, 8 * 86_400_000
CATALOGUE, CHUNK = "bench", 20_000
MIB = 2**20
TARGET_BYTES = 300
"""Of memory for each answer with its list and five events."""


def memory(effort: Effort) -> Part:
    part = Part(
        f"Memory of a report, lists of {PLACES}, {1 + SEEN + CLICKED:.1f} events a list",
        (
            "answers",
            "events",
            "log on disk, MiB",
            "peak while joining, MiB",
            "peak of the report, MiB",
            "seconds",
        ),
    )
    found = []
    for size in SIZES:
        answers = size // effort.divide
        print(f"  {answers:,} answers", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            home = Home.make(Path(folder) / "home")
            events = write_log(home, answers)
            found.append(report(home) | {"answers": answers, "events": events, "disk": _size(home.root)})
        one = found[-1]
        cells = (one["disk"], one["joined"], one["peak"])
        part.rows.append(
            (f"{answers:,}", f"{one['events']:,}", *(f"{c:.0f}" for c in cells), f"{one['seconds']:.0f}")
        )
    first, last = found[0], found[-1]
    slope = MIB * (last["peak"] - first["peak"]) / (last["answers"] - first["answers"])
    if effort.divide == 1:  # of small logs what a reader takes in any case is most
        part.target(
            "bytes of memory that a further answer takes, with its list and events",
            slope,
            TARGET_BYTES,
            "lower",
        )
    part.notes.append(
        "Peaks are resident memory above what the process had after its imports. Texts are joined part by part, and events folded into totals there: most of a "
        "peak is one part's, whatever the log's size; what grows with the log are numbers of each answer, each place of its list and each visit."
    )
    part.notes.append(
        "Between neighbouring sizes a further answer took "
        f"{' and '.join(f'{one:.0f}' for one in slopes(found))} bytes: peaks differ by tens of MiB from run to run, and the target's "
        "figure, of the first and the last size, is no more exact than that."
    )
    part.figures = {"found": found}
    return part


def slopes(found: Sequence[Mapping[str, float]]) -> list[float]:
    """Bytes by which the peak grew for each further answer, from each size to the next."""
    return [
        MIB * (more["peak"] - less["peak"]) / (more["answers"] - less["answers"])
        for less, more in pairwise(found)
    ]


def experiment() -> Experiment:
    """What the log is of."""
    arms = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))
    return Experiment(
        name="exp", hypothesis="h", salt="s", variants=arms, allocation=Fixed(weights=(0.5, 0.5))
    )


def write_log(home: Home, answers: int) -> int:
    """A live log of that many answers and their events, chunk by chunk; gives the number of events."""
    generator, num_events = np.random.default_rng(0), 0
    for start in range(0, answers, CHUNK):
        num = min(CHUNK, answers - start)
        at_ms = START_MS + (start + np.sort(generator.integers(0, num, num))) * (SPAN_MS // answers)
        user = generator.integers(0, answers // ANSWERS_OF_A_USER, num)
        shown = generator.integers(0, NUM_ITEMS, (num, PLACES))
        decisions = _decisions(start, at_ms, user, shown)
        write_days(
            home / "decisions" / CATALOGUE,
            pa.table({n: decisions[n] for n in DECISION_SCHEMA.names}, schema=DECISION_SCHEMA),
        )
        events = _events(generator, start, at_ms, user, shown)
        write_days(
            home / "events" / CATALOGUE,
            pa.table({n: events[n] for n in EVENT_SCHEMA.names}, schema=EVENT_SCHEMA),
        )
        num_events += len(events["event_id"])
    return num_events


def _decisions(start: int, at_ms: Any, user: Any, shown: Any) -> dict[str, Any]:
    num = len(user)
    ids = [f"{start + n:032x}" for n in range(num)]
    variant = ["ab"[u % 2] for u in user.tolist()]
    timings = [(stage, 3.25) for stage in ("history", "retrieve", "rank", "rerank", "total")]
    drawn = [
        json.dumps({"layer": "default", "experiment": "exp", "variant": v, "unit": f"user-{u}", "epoch": 0, "propensity": 0.5, "propensities": [0.5, 0.5], "policy_version": "fixed", "policy_hash": "0" * 16})
        for u, v in zip(user.tolist(), variant, strict=True)
    ]  # fmt: skip
    names = [[f"item-{item}" for item in row] for row in shown.tolist()]
    every: dict[str, Any] = {name: [None] * num for name in DECISION_SCHEMA.names}
    return every | {
        "decision_id": ids, "request_id": ids, "timestamp_ms": at_ms, "received_ms": at_ms, "catalogue": [CATALOGUE] * num,
        "origin": ["live"] * num, "unit": [f"user-{u}" for u in user.tolist()], "user_id": [f"user-{u}" for u in user.tolist()],
        "bundle": ["b" * 12] * num, "experiment": ["exp"] * num, "variant": variant, "epoch": [0] * num,
        "propensity": [0.5] * num, "propensities": [[0.5, 0.5]] * num, "item_ids": names, "scores": [[0.5] * PLACES] * num,
        "source_masks": [[3] * PLACES] * num, "rungs": [[]] * num, "timings_ms": [timings] * num,
        "context": [[("device", "phone" if u % 3 else "tv"), ("country", "de" if u % 5 else "fr")] for u in user.tolist()],
        "request": ['{"user_id":"-"}'] * num, "assignments": [[one] for one in drawn], "held_out": [False] * num,
    }  # fmt: skip


def _events(generator: np.random.Generator, start: int, at_ms: Any, user: Any, shown: Any) -> dict[str, Any]:
    rows: list[tuple[int, int, str, int]] = []
    for n in range(len(user)):
        rows += [
            (n, int(item), "impression", 1_000 + 10 * place) for place, item in enumerate(shown[n, :SEEN])
        ]
        if generator.random() < CLICKED:
            rows.append((n, int(shown[n, generator.integers(SEEN)]), "click", 5_000))
        rows.append((n, int(generator.integers(NUM_ITEMS)), "view", 60_000))
    num = len(rows)
    moment = [int(at_ms[n]) + later for n, _, _, later in rows]
    every: dict[str, Any] = {name: [None] * num for name in EVENT_SCHEMA.names}
    return every | {
        "event_id": [f"e-{start}-{n}" for n in range(num)], "user_id": [f"user-{user[n]}" for n, *_ in rows],
        "item_id": [f"item-{item}" for _, item, *_ in rows], "kind": [kind for _, _, kind, _ in rows],
        "timestamp_ms": moment, "received_ms": moment, "origin": ["live"] * num, "sequence": [0] * num,
        "request_id": [None if kind == "view" else f"{start + n:032x}" for n, _, kind, _ in rows],
    }  # fmt: skip


def report(home: Home) -> dict[str, float]:
    """What a process of its own found."""
    words = [sys.executable, __file__, str(home.root)]
    found: dict[str, float] = json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)
    return found


def _report(root: Path) -> dict[str, float]:
    from tastemaker.experiments.reporting.observations import read_observations
    from tastemaker.experiments.reporting.report import build_report

    home, now_ms = Home.open(root), START_MS + 30 * 86_400_000
    before = _peak()
    read_observations(home, CATALOGUE, experiment(), now_ms)
    joined = _peak()
    began = time.perf_counter()
    build_report(home, CATALOGUE, experiment(), now_ms=now_ms)
    return {
        "joined": joined - before,
        "peak": _peak() - before,
        "seconds": time.perf_counter() - began,
    }


def _peak() -> float:
    """Of resident memory since this program began: `ru_maxrss` would have its parent's in it, which forked it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(found) * 1024 / MIB


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet")) / MIB


if __name__ == "__main__":
    print(json.dumps(_report(Path(sys.argv[1]))))
