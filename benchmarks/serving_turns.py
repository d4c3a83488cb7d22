"""The turns of `make bench-serving`: every contender started, asked and stopped, again and again; and what a run says."""

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from serving_load import send
from serving_processes import Kind, Running, made_world, running
from turns import Effort

KINDS: Final[tuple[Kind, ...]] = ("bare", "fused", "fused x 2", "spread")
RATES: Final = (10, 25, 50)
LEVELS: Final = (50, 95, 99)
MANY: Final = 8
PATIENT_MS: Final = 5000
"""A deadline that cuts nothing off: what many at a time take is measured, not what is given up."""
NUM_ITEMS, NUM_USERS = 1_000_000, 2000
Turns = dict[Kind, list[dict[str, Any]]]


@functools.cache
def measured(effort: Effort) -> Turns:
    """Every contender in every turn; the order turns round, so that none is always first."""
    count = 1 if effort.divide > 1 else 2 if effort.turns <= 5 else 6
    seconds = 12.0 if effort.divide == 1 else 4.0
    found: Turns = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        home = made_world(Path(folder), num_items(effort), NUM_USERS)
        for turn in range(count):
            for kind in KINDS[turn % len(KINDS) :] + KINDS[: turn % len(KINDS)]:
                print(f"  turn {turn + 1} of {count}: {kind}", flush=True)
                with running(kind, home) as contender:
                    found[kind].append(_one(contender, seconds, turn))
    return found


def _one(contender: Running, seconds: float, turn: int) -> dict[str, Any]:
    common = {"users": NUM_USERS, "seed": turn}
    send(contender.url, in_flight=2, seconds=3.0, deadline_ms=PATIENT_MS, **common)
    found: dict[str, Any] = {"started": contender.started_seconds}
    found["alone"] = send(contender.url, in_flight=1, seconds=seconds / 2, deadline_ms=PATIENT_MS, **common)
    before = contender.cpu_seconds()
    found["many"] = send(
        contender.url, in_flight=MANY, seconds=seconds / 2, warm_up=0.0, deadline_ms=PATIENT_MS, **common
    )
    after = contender.cpu_seconds()
    found["many"]["cpu_seconds"] = {role: after[role] - before.get(role, 0.0) for role in after}
    if contender.kind != "bare":
        for rate in RATES:
            found[f"{rate}/s"] = send(contender.url, rate=rate, seconds=1.5 * seconds, **common)
    found["memory"] = contender.memory_mb()
    return found


def num_turns(found: Turns) -> int:
    return len(found["fused"])


def num_items(effort: Effort) -> int:
    return NUM_ITEMS // effort.divide


def percentiles(runs: Sequence[dict[str, Any]], level: float) -> list[float]:
    return [float(np.percentile(run["latency_ms"], level)) for run in runs]


def degraded(run: dict[str, Any]) -> float:
    return float(run["degraded"]) / max(len(run["latency_ms"]), 1)


def num_failed(run: dict[str, Any]) -> int:
    return sum(number for status, number in run["status"].items() if status != "200")


def per_second(run: dict[str, Any]) -> float:
    """Whole answers a second."""
    whole = len(run["latency_ms"]) - run["degraded"] - num_failed(run)
    return float(whole / run["seconds"])


def per_core_second(run: dict[str, Any]) -> float:
    """Answers a second of a core's time, Ray's own processes left out."""
    used = sum(seconds for role, seconds in run["cpu_seconds"].items() if role != "other")
    return float(len(run["latency_ms"]) / max(used, 1e-9))


def summary(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn without its single latencies."""
    found: dict[str, Any] = {"started": turn["started"]}
    for name, run in turn.items():
        if isinstance(run, dict) and "latency_ms" in run:
            spans = {"whole": run["latency_ms"], **run["stages"]}
            found[name] = {
                "sent": len(run["latency_ms"]), "status": run["status"], "degraded": run["degraded"], "rungs": run["rungs"],
                "per_second": len(run["latency_ms"]) / run["seconds"], "cpu_seconds": run.get("cpu_seconds"),
                "ms": {span: {f"p{level}": float(np.nanpercentile(times, level)) for level in LEVELS} for span, times in spans.items() if times},
            }  # fmt: skip
    return found
