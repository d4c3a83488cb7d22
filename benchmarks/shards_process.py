"""What a retriever's process holds and takes, of a catalogue in one piece and of one shard of it.

Each case is a process of its own that opens the champion of a world (`serving_world`), answers queries and tells its memory: what is
its own, and what of mapped files it has looked at, which the system shares between processes and may take back. In the last
case a process has both shards, and their answers are merged: what a gateway does beside.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from serving_world import make_world
from turns import Effort, Part

from tastemaker.bundle.part import BundlePart
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.index.sharded import ShardOf
from tastemaker.models.popularity import Popularity
from tastemaker.registry.client import Registry
from tastemaker.stages.live import LiveStages
from tastemaker.stages.merging import Merging, ShardAnswer
from tastemaker.state.keys import Keys
from tastemaker.types import Query

NUM_ITEMS, NUM_QUERIES, MERGED = 1_000_000, 500, 100
SHARDS = (1, 2, 4, 8)
HISTORY, WARM = 50, 50


def shards(effort: Effort) -> Part:
    """One process for each number of shards, and merging."""
    num_items, num_queries = NUM_ITEMS // effort.divide, NUM_QUERIES // effort.divide
    with tempfile.TemporaryDirectory() as folder:
        home = make_world(Path(folder), num_items, 100, "auto").home.root
        cases = {num: apart("case", home, num - 1, num, num_queries) for num in SHARDS}
        merged = apart("merging", home, 2, MERGED // effort.divide)
    part = Part(
        f"A retriever's process by the number of shards, {num_items:,} items of 64 numbers",
        ("shards", "own memory, MB", "of files, MB", "p50, ms of CPU", "p99", "opened in s"),
    )
    for num, one in cases.items():
        part.rows.append((
            str(num), f"{one['own']:,.0f}", f"{one['files']:,.0f}", f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}",
            f"{one['seconds']:.0f}",
        ))  # fmt: skip
    part.notes = [
        f"Sources two_tower, als, recent, trending and popular; {num_queries} queries, each with {HISTORY} items drawn evenly from the "
        f"catalogue. Of own memory {cases[1]['before']:,.0f} MB are there before anything is opened. What is looked at of files the system may "
        "take back, and has once for all processes of a machine.",
        f"Merging two shards' answers takes a gateway {merged['p50_ms']:.2f} ms (p99 {merged['p99_ms']:.2f}); they are {merged['kb']:,.0f} kB "
        f"a request. {100 * merged['same']:.2f}% of the whole's candidates are among theirs.",
    ]
    part.figures = {"cases": {str(num): one for num, one in cases.items()}, "merging": merged}
    return part


def apart(what: str, home: Path, *numbers: int) -> dict[str, Any]:
    """A case in a process of its own."""
    command = [sys.executable, __file__, what, str(home), *map(str, numbers)]
    ran = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def memory_mb() -> dict[str, float]:
    """Memory of this process: its own, and what it looks at of files, both as its share of what it has with others (PSS)."""
    found = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        found[key] = float(value.split()[0]) / 1000
    return {"own": found["Pss_Anon"], "files": found["Pss_File"]}


def opened(home: Home, shard: ShardOf | None) -> tuple[LiveStages, float, Bundle]:
    """A retriever's stages, and the seconds that opening them took."""
    settings = Settings(home=home.root)
    store = BundleStore.of(settings, home)
    version = Registry(settings, home).aliases(Keys(settings.catalogue, settings.state.partitions).catalogue)[
        "champion"
    ]
    began = time.perf_counter()
    bundle = (
        Bundle.open(store, version.ref) if shard is None else BundlePart.open_part(store, version.ref, shard)
    )
    live = LiveStages(bundle, frozenset({"retrieve"}))
    return live, time.perf_counter() - began, bundle


def queries(num_items: int, num: int) -> list[Query]:
    """Of users whose items are drawn evenly, so that histories are read from all over the catalogue."""
    rng = np.random.default_rng(1)
    return [Query(rng.integers(0, num_items, HISTORY).astype(np.int32), k=50, seed=n) for n in range(num)]


def case(home: Home, number: int, num_shards: int, num: int) -> dict[str, float]:
    """One process: a retriever of the whole, or of a shard."""
    before = memory_mb()
    live, seconds, bundle = opened(home, ShardOf(number, num_shards) if num_shards > 1 else None)
    asked, took_ms = queries(len(bundle.item_ids), WARM + num), []
    for query in asked:
        began = time.thread_time()
        if num_shards > 1:
            live.pipeline.shard_answers([query])
        else:
            live.pipeline.retrieve([query])
        took_ms.append(1000 * (time.thread_time() - began))
    p50, p99 = np.percentile(took_ms[WARM:], [50, 99])
    held = memory_mb()
    return {
        "before": before["own"], "own": held["own"], "files": held["files"] - before["files"],
        "seconds": seconds, "p50_ms": float(p50), "p99_ms": float(p99),
    }  # fmt: skip


def merging(home: Home, num_shards: int, num: int) -> dict[str, Any]:
    """What merging takes, how large the shards' answers are, and how many candidates are those of the whole."""
    whole, _, bundle = opened(home, None)
    shards = [opened(home, ShardOf(number, num_shards))[0] for number in range(num_shards)]
    counts_I = bundle.model("popularity", Popularity).counts_I
    merge = Merging.parse(bundle.json("pipeline.json")["retrieval"], "bench", counts_I)
    took_ms, same, size = [], [], []
    for query in queries(len(bundle.item_ids), num):
        answers = [shard.pipeline.shard_answers([query])[0] for shard in shards]
        began = time.thread_time()
        found = merge.whole(query, answers)
        took_ms.append(1000 * (time.thread_time() - began))
        expected = whole.pipeline.retrieve([query])[0]
        same.append(np.isin(expected.item_index, found.item_index).mean())
        size.append(sum(_num_bytes(answer) for answer in answers) / 1000)
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "same": float(np.mean(same)),
        "kb": float(np.mean(size)),
    }


def _num_bytes(answer: ShardAnswer) -> int:
    return answer.row_K.nbytes + answer.proposed_KP.nbytes + answer.score_KS.nbytes


if __name__ == "__main__":
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    what, folder, *numbers = sys.argv[1:]
    print(json.dumps({"case": case, "merging": merging}[what](Home.make(Path(folder)), *map(int, numbers))))
