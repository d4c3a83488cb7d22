"""Promotions and rollbacks while requests come in: `make bench-swap`, which is a part of `make bench-serving`.

Requests arrive open-loop from a process of its own while a version is promoted, loaded by every process, tried and flipped
to, and while `tastemaker rollback` brings the one before back. Every second item has another id in the promoted bundles,
so that an answer made of two bundles is seen.
"""

import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from serving_load import LOST_SECONDS
from serving_processes import Kind, Running, made_world, running
from turns import Effort, Part, shown

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry

KINDS: Final[tuple[Kind, ...]] = ("fused", "spread")
RATE: Final = 25.0
NUM_ITEMS, NUM_USERS = 1_000_000, 2000
SETTLE_SECONDS: Final = 3.0
SWAP_SECONDS: Final = 300.0
LEVELS: Final = (50, 99)


class Asked(NamedTuple):
    """One request: when it was due (wall clock, s), how long it took from then on, and what answered."""

    due: float
    latency_ms: float
    status: int
    bundle: str
    mixed: bool
    degraded: bool


@dataclass(frozen=True)
class Swap:
    """One promotion and one rollback."""

    promoted_at: float
    flipped_at: float
    rollback_seconds: float
    """From the command's start until every gateway answers and it returns."""


def swaps(effort: Effort) -> Part:
    """Answers before, during and after promotions, and how long a rollback takes."""
    seconds, num = (20.0, 5) if effort.divide == 1 else (6.0, 1)
    titles = (
        "graph",
        "before: p50, ms",
        "p99, ms",
        "during: p50, ms",
        "p99, ms",
        "p99 over before",
        "load, s",
        "rollback, s",
    )
    part = Part(
        f"Swaps at {RATE:.0f} requests/s, {NUM_ITEMS // effort.divide:,} items", titles, num_turns=num
    )
    with tempfile.TemporaryDirectory() as folder:
        home = made_world(Path(folder), NUM_ITEMS // effort.divide, NUM_USERS)
        for kind in KINDS:
            with running(kind, home) as served:
                found, asked = measure(served, home, num, seconds)
            _add(part, kind, found, asked)
    part.notes = [
        "During: from the promotion until all gateways answer from the new version; latencies count from the moment at "
        "which a request was due. A rollback is `tastemaker rollback`, from its start until every gateway answers and it returns."
    ]
    return part


def measure(served: Running, home: Home, num: int, seconds: float) -> tuple[list[Swap], list[Asked]]:
    """Promotes and rolls back `num` times under load, with `seconds` of quiet before a promotion and a quarter of them before a rollback."""
    settings = Settings(home=home.root)
    registry = Registry(settings, home)
    catalogue = settings.catalogue
    odd = renamed(home, settings, num)
    done: list[Swap] = []
    with _load(served.url, set(odd[0].names)) as log:
        for bundle in odd:
            time.sleep(SETTLE_SECONDS + seconds)
            number = registry.publish(catalogue, bundle.ref, {}).number
            promoted = time.time()
            registry.set_alias(catalogue, "champion", number, "bench", "swap")
            flipped = _until(lambda sha=bundle.ref.bundle_id: log[-1].bundle == sha and log[-2].bundle == sha)
            time.sleep(SETTLE_SECONDS + seconds / 4)
            done.append(Swap(promoted, flipped, _roll_back(home)))
        time.sleep(SETTLE_SECONDS)
    return done, log


class Renamed(NamedTuple):
    """A bundle, and the ids that only the other one has."""

    ref: BundleRef
    names: Sequence[str]


def renamed(home: Home, settings: Settings, num: int) -> list[Renamed]:
    """So many bundles like the champion but for the ids of every second item."""
    store = BundleStore.of(settings, home)
    champion = Registry(settings, home).aliases(settings.catalogue)["champion"]
    bundle = Bundle.open(store, champion.ref, whole=False)
    items = bundle.table("items.parquet")
    ids = bundle.item_ids
    new = [f"other {item_id}" if row % 2 else item_id for row, item_id in enumerate(ids)]
    buffer = io.BytesIO()
    pq.write_table(items.set_column(items.column_names.index("item_id"), "item_id", pa.array(new)), buffer)
    entry = {"sha256": store.put(buffer.getvalue()), "size": buffer.tell()}
    found = []
    for n in range(num):
        manifest = json.loads(bundle.manifest.to_bytes())
        manifest["files"]["items.parquet"].update(entry)
        manifest["recipe"] = f"swap {n}"
        found.append(
            Renamed(store.put_manifest(settings.catalogue, json.dumps(manifest).encode()), ids[1::2])
        )
    return found


def _roll_back(home: Home) -> float:
    began = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-m", "tastemaker.cli", "--home", str(home.root), "rollback"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def _until(condition: Callable[[], bool]) -> float:
    give_up = time.monotonic() + SWAP_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise RuntimeError(f"no answer from the promoted version within {SWAP_SECONDS:.0f} s")
        time.sleep(0.05)
    return time.time()


@contextmanager
def _load(url: str, renamed_ids: set[str]) -> Iterator[list[Asked]]:
    """A growing log of requests, sent by another process; it ends with the block."""
    log: list[Asked] = []
    script = Path(__file__).with_name("serving_swap_load.py")
    command = [sys.executable, str(script), url, "--rate", str(RATE), "--users", str(NUM_USERS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None

        def read() -> None:
            for line in process.stdout or ():
                log.append(_asked(json.loads(line), renamed_ids))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        _until(lambda: len(log) > 2 * RATE)
        yield log
        process.stdin.close()
        process.wait(timeout=2 * LOST_SECONDS)
        reader.join()


def _asked(row: list[Any], renamed_ids: set[str]) -> Asked:
    due, latency_ms, status, bundle, ids, degraded = row
    has_other = any(item_id.startswith("other ") for item_id in ids)
    has_renamed = any(item_id in renamed_ids for item_id in ids)
    return Asked(due, latency_ms, status, bundle, has_other and has_renamed, degraded)


def _add(part: Part, kind: Kind, found: Sequence[Swap], asked: Sequence[Asked]) -> None:
    before, during = [], []
    for swap in found:
        quiet = [one for one in asked if swap.promoted_at - 20 <= one.due < swap.promoted_at]
        inside = [one for one in asked if swap.promoted_at <= one.due < swap.flipped_at]
        before.append([float(np.percentile([one.latency_ms for one in quiet], level)) for level in LEVELS])
        during.append([float(np.percentile([one.latency_ms for one in inside], level)) for level in LEVELS])
    ratios = [inside[1] / quiet[1] for inside, quiet in zip(during, before, strict=True)]
    columns = [[row[level] for row in rows] for rows in (before, during) for level in range(len(LEVELS))]
    loads = [swap.flipped_at - swap.promoted_at for swap in found]
    rollbacks = [swap.rollback_seconds for swap in found]
    part.rows.append(
        (kind, *(shown(column) for column in columns), shown(ratios, 2), shown(loads), shown(rollbacks, 2))
    )
    failed = sum(one.status != 200 for one in asked)
    part.target(f"{kind}: failed of {len(asked)}", failed, 0, "lower")
    part.target(f"{kind}: answers of two bundles", sum(one.mixed for one in asked), 0, "lower")
    part.target(f"{kind}: p99 during a swap over before", float(np.median(ratios)), 2.0, "lower")
    part.target(f"{kind}: rollback, s", max(rollbacks), 10.0, "lower")
    part.figures[kind] = {
        "degraded": float(np.mean([one.degraded for one in asked])),
        "p99_by_second_of_first_swap": _by_second(asked, found[0]),
    }


def _by_second(asked: Sequence[Asked], swap: Swap) -> list[tuple[int, float]]:
    seconds: dict[int, list[float]] = {}
    for one in asked:
        if swap.promoted_at - 5 <= one.due < swap.flipped_at + 5:
            seconds.setdefault(int(one.due - swap.promoted_at), []).append(one.latency_ms)
    return [(second, max(values)) for second, values in sorted(seconds.items())]
