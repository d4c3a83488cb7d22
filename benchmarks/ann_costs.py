"""What searching costs beside the curves: hard rules, shards and loading, over a million trained vectors."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import ann_loading
import numpy as np
from ann_curves import MILLION, NUM_QUERIES
from ann_vectors import Vectors, trained
from turns import Effort, Part

from tastemaker.index.building import build_index
from tastemaker.index.config import RECALL_AT, IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import borders, recall, search_each
from tastemaker.index.sharded import ShardedIndex, merge_top
from tastemaker.types import Bool, Float32, Int32


def _vectors(effort: Effort) -> Vectors:
    return trained(MILLION // effort.divide, NUM_QUERIES)


def _indexes(effort: Effort) -> tuple[Vectors, list[FaissIndex]]:
    """One index of each kind over a million trained vectors, at efforts that find 95%."""
    vectors = _vectors(effort)
    kinds = ("flat", "ivf-flat", "ivf-pq", *(["hnsw"] if effort.divide > 1 else []))
    configs = [IndexConfig(kind=kind) for kind in kinds]
    return vectors, [build_index(vectors.item_ID, config).index for config in configs]


def rules(effort: Effort) -> Part:
    """Times and recall where hard rules leave less to find."""
    vectors, indexes = _indexes(effort)
    items, queries = vectors.item_ID, vectors.query_UD[:100]
    rng = np.random.default_rng(1)
    drawn = rng.random(len(items))
    masks: dict[str, Bool | None] = {"nothing": None}
    masks |= {f"a mask leaves {share:.1%}": drawn < share for share in (0.9, 0.5, 0.1, 0.01, 0.001)}
    toward = items @ queries.mean(axis=0)
    masks["a mask leaves the half that is far"] = toward < np.median(toward)
    part = Part(
        f"Hard rules inside the search, {len(items):,} trained vectors",
        ("rule", "index", "recall@100", "p50 ms", "p99 ms"),
        notes=[
            "`exclude`: rows of the user's own, drawn from the 20,000 nearest to the query, where they hurt most."
        ],
    )
    for name, mask in masks.items():
        left = items if mask is None else items[mask]
        border = borders(queries, left, min(RECALL_AT, len(left)))
        for index in indexes:
            part.rows.append(_ruled(name, index, queries, border, mask, None))
    near = FaissIndex.build(items).search(queries, min(20_000, len(items) // 2))[0]
    for count in (50, 1000, 5000):
        gone = [rng.choice(rows, min(count, len(rows) // 2), replace=False).astype(np.int32) for rows in near]
        border = np.array(
            [_border_without(items, q, rows) for q, rows in zip(queries, gone, strict=True)], np.float32
        )
        for index in indexes:
            part.rows.append(_ruled(f"exclude {count:,}", index, queries, border, None, gone))
    return part


def _border_without(items: Float32, query: Float32, gone: Int32) -> float:
    scores = items @ query
    scores[gone] = -np.inf
    return float(np.partition(scores, -RECALL_AT)[-RECALL_AT])


def _ruled(
    name: str,
    index: FaissIndex,
    queries: Float32,
    border: Float32,
    mask: Bool | None,
    gone: Sequence[Int32] | None,
) -> tuple[str, ...]:
    found, times = [], []
    for b in range(len(queries)):
        began = time.thread_time()
        rows, _ = index.search(queries[b : b + 1], RECALL_AT, mask, None if gone is None else [gone[b]])
        times.append(time.thread_time() - began)
        found.append(rows[0])
    most = RECALL_AT if mask is None else min(RECALL_AT, int(np.count_nonzero(mask)))
    value = recall(np.stack(found)[:, :most], queries, index.vectors(), border)
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return name, index.kind, f"{value:.4f}", f"{1e3 * p50:.3f}", f"{1e3 * p99:.3f}"


def shards(effort: Effort) -> Part:
    """What one shard takes of a whole's time, and what merging adds."""
    vectors = _vectors(effort)
    queries = vectors.query_UD[:200]
    border = borders(queries, vectors.item_ID, RECALL_AT)
    part = Part(
        f"Shards by ranges of rows, {len(vectors.item_ID):,} trained vectors",
        ("shards", "kind", "recall@100 merged", "slowest shard's p50 ms", "merging, ms", "MB a shard"),
        notes=[
            "Shards are asked one after the other here; replicas would be asked at once, and the slowest counts."
        ],
    )
    for kind in ("flat", "ivf-pq"):
        for num in (1, 4):
            whole = ShardedIndex.build(vectors.item_ID, num, IndexConfig(kind=kind))
            times = [np.median(search_each(s.index, queries, RECALL_AT).cpu_B) for s in whole.shards]
            parts = [shard.search(queries[:1], RECALL_AT) for shard in whole.shards]
            began = time.perf_counter()
            for _ in range(100):
                merge_top(parts, RECALL_AT)
            merging = (time.perf_counter() - began) / 100
            found, _ = whole.search(queries, RECALL_AT)
            value = recall(found, queries, vectors.item_ID, border)
            memory = max(s.index.memory_bytes for s in whole.shards) / 1e6  # type: ignore[attr-defined]
            cells = (f"{value:.4f}", f"{1e3 * max(times):.3f}", f"{1e3 * merging:.3f}", f"{memory:,.0f}")
            part.rows.append((f"{num}", kind, *cells))
    return part


def loading(effort: Effort) -> Part:
    """Time and memory of opening a bundle and reading its index, in a process of its own."""
    vectors = _vectors(effort)
    part = Part(
        f"Opening a bundle and reading its index, {len(vectors.item_ID):,} trained vectors",
        ("kind", "file MB", "opened in s", "read in s", "MB held", "MB at the peak"),
        notes=[
            "Opening hashes every file, reading hashes the index once more as it streams: no copy of the file is held."
        ],
    )
    for kind in ("flat", "ivf-flat", "ivf-pq"):
        with tempfile.TemporaryDirectory() as folder:
            uri = ann_loading.release(folder, vectors.item_ID, IndexConfig(kind=kind))
            command = [sys.executable, ann_loading.__file__, folder, uri]
            out = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
            part.rows.append((kind, *out.split()))
    return part
