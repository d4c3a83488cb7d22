"""`make bench-retrieval`: each source of candidates and the whole stage over a million items, one thread.

Before: every item is scored and the best are picked, as the definition of a source says. After: as it serves. Both give
the same items, which is looked at here too; but for the vectors' sources, whose index is approximate. `--items` for less.

Shape letters: I catalogue, D dimension, S segments, G groups.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from report import circumstances, save, table, target_table
from turns import Part

from tastemaker.config_serving import ServingSettings
from tastemaker.index.building import build_index, fit_efforts
from tastemaker.index.config import RECALL_AT, IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.library import faiss
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.item_item import ItemItem, ItemItemConfig
from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.models.segments import Segments
from tastemaker.stages.asking import Asking, InTurn, SideBySide
from tastemaker.stages.merging import SourceConfig
from tastemaker.stages.nearest import AlsSource, RecentSource, VectorSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.popular import PopularHeads, PopularSource
from tastemaker.stages.retrieval import Retrieval, RetrievalConfig
from tastemaker.stages.source import Source, top_allowed
from tastemaker.stages.trending import TrendingSource
from tastemaker.types import Float32, Query

DIM, CLUSTERS, NEIGHBOURS, HISTORY, QUOTA, WARM = 64, 1000, 100, 50, 150, 20
STAGE: Final = ("two_tower", "als", "knn", "popular", "trending")
SERVED_SECONDS: Final = ServingSettings().source_ms / 1000
LIMIT_MS: Final = 10.0
RECALL: Final = 0.95


class MeanOfVectors:
    """Stands in for a query tower."""

    def __init__(self, vectors_ID: Float32) -> None:
        self._vectors_ID = vectors_ID

    def encode_queries(self, queries: Sequence[Query]) -> Float32:
        """The mean of the history's vectors."""
        return np.stack([self._vectors_ID[query.history_L].mean(axis=0) for query in queries])


@dataclass(frozen=True)
class Contender:
    """A source and what scores the whole catalogue in its place; items that score no more than `least` are none of its own."""

    source: Source
    score: Callable[[Query], Float32]
    least: float = -np.inf


def contenders(
    num_items: int, rng: np.random.Generator, keep: Path | None = None
) -> tuple[dict[str, Contender], Any]:
    """All sources over one synthetic catalogue, and the cluster of each item."""
    cluster_I = rng.integers(0, CLUSTERS, num_items)
    vectors_ID = _clustered(rng, cluster_I)
    factors_ID = _clustered(rng, cluster_I) * rng.gamma(2.0, 0.5, (num_items, 1)).astype(np.float32)
    towers = build_index(vectors_ID, IndexConfig()).index
    encoder, als = MeanOfVectors(vectors_ID), Als(AlsConfig(dim=DIM, half_life=5.0), factors_ID)
    graph = _graph(factors_ID, keep)
    users = [query.history_L for query in questions(200, cluster_I, rng)]
    factors, _ = fit_efforts(graph, als.fold_in(users), RECALL)
    knn, popularity = _knn(rng, num_items), _popularity(rng, num_items)
    popular = PopularSource("popular", PopularHeads(popularity))

    def nearest(query: Query) -> Float32:
        return vectors_ID @ encoder.encode_queries([query])[0]

    def recent(query: Query) -> Float32:
        weights = 0.5 ** (np.arange(3)[::-1, None] / 5)
        return (vectors_ID @ (vectors_ID[query.history_L[-3:]] * weights).T.astype(np.float32)).max(axis=1)

    def in_context(query: Query) -> Float32:
        return popularity.in_context(query.context)

    found = {
        "two_tower": Contender(VectorSource("two_tower", encoder, towers), nearest),
        "als": Contender(AlsSource("als", als, factors), lambda query: als.scores([query.history_L])[0]),
        "knn": Contender(ItemItemSource("knn", knn), lambda query: _laid_out(knn, query), 0.0),
        "recent": Contender(RecentSource("recent", towers), recent),
        "popular": Contender(popular, in_context),
        "trending": Contender(TrendingSource("trending", popular), in_context),
    }
    return found, cluster_I


def _graph(factors_ID: Float32, keep: Path | None) -> FaissIndex:
    """Of the ALS factors: built, which takes minutes, or as an earlier run kept it."""
    file = None if keep is None else keep / f"als-{len(factors_ID)}.faiss"
    if file is not None and file.exists():
        with file.open("rb") as stream:
            return FaissIndex.read(stream.read)
    graph = FaissIndex.build(factors_ID, IndexConfig(kind="hnsw"))
    if file is not None:
        file.write_bytes(graph.to_bytes())
    return graph


def _clustered(rng: np.random.Generator, cluster_I: Any) -> Float32:
    vectors_ID = rng.standard_normal((CLUSTERS, DIM), np.float32)[cluster_I]
    vectors_ID += np.float32(0.8) * rng.standard_normal(vectors_ID.shape, np.float32)
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return vectors_ID


def _knn(rng: np.random.Generator, num_items: int) -> ItemItem:
    indptr = np.arange(num_items + 1, dtype=np.int64) * NEIGHBOURS
    indices = rng.integers(0, num_items, num_items * NEIGHBOURS, np.int32)
    data = rng.random(len(indices), np.float32)
    weights = sp.csr_matrix((data, indices, indptr), (num_items, num_items))
    return ItemItem(ItemItemConfig(kind="cosine", num_items=num_items, half_life=5.0), weights)


def _laid_out(model: ItemItem, query: Query) -> Float32:
    weights = 0.5 ** (np.arange(len(query.history_L))[::-1] / 5)
    history = model.weights()[query.history_L]
    return np.bincount(
        history.indices, history.data * np.repeat(weights, np.diff(history.indptr)), model.config.num_items
    ).astype(np.float32)


def _popularity(rng: np.random.Generator, num_items: int) -> Popularity:
    segments = tuple(f"category=c{c}" for c in range(50))
    groups = ("device=mobile", "device=desktop", "device=tv")
    category_I = rng.integers(0, len(segments), num_items)
    members = Segments.of(num_items, [np.flatnonzero(category_I == c) for c in range(len(segments))])
    counts_I = rng.zipf(1.3, num_items).clip(max=10**6).astype(np.float32)
    trending_I = (counts_I * rng.random(num_items)).astype(np.float32)
    group_GI = rng.random((len(groups), num_items), np.float32)
    config = PopularityConfig(num_items=num_items, segments=segments, groups=groups)
    return Popularity(config, counts_I, trending_I, members, group_GI)


def questions(num: int, cluster_I: Any, rng: np.random.Generator) -> list[Query]:
    """Users who take from a few clusters, on devices, some of them looking at a category."""
    order_I = np.argsort(cluster_I, kind="stable")
    start_C = np.searchsorted(cluster_I[order_I], np.arange(CLUSTERS + 1))
    found = []
    for n in range(num):
        own = rng.choice(CLUSTERS, 4)
        items = np.concatenate([rng.choice(order_I[start_C[c] : start_C[c + 1]], HISTORY // 4) for c in own])
        context = {"device": str(rng.choice(["mobile", "desktop", "tv"]))}
        context |= {"category": f"c{rng.integers(5)}"} if n % 4 == 0 else {}
        history_L = rng.permutation(np.unique(items)).astype(np.int32)
        found.append(Query(history_L, k=50, context=context, user_id=f"u{n}"))
    return found


def timed(work: Callable[[Query], Any], queries: Sequence[Query]) -> dict[str, float]:
    """Milliseconds of one query after the other at p50 and p99: by the clock, and of the processor, which others leave alone."""
    taken, worked = [], []
    for query in queries:
        began, at_work = time.perf_counter(), time.process_time()
        work(query)
        taken.append((time.perf_counter() - began) * 1000)
        worked.append((time.process_time() - at_work) * 1000)
    return {
        "p50_ms": float(np.percentile(taken, 50)),
        "p99_ms": float(np.percentile(taken, 99)),
        "cpu_p50_ms": float(np.percentile(worked, 50)),
        "cpu_p99_ms": float(np.percentile(worked, 99)),
    }


def measure(name: str, contender: Contender, queries: Sequence[Query], num_before: int) -> dict[str, Any]:
    """One source: its times and the whole catalogue's, and how many of the latter's first hundred are its own."""

    def before(query: Query) -> Any:
        score_I = contender.score(query)
        return top_allowed(score_I, query, QUOTA, contender.least)

    def after(query: Query) -> Any:
        asked = contender.source.ask([query])
        rows = asked.propose(QUOTA)[0][0]
        return rows, asked.score([rows[rows >= 0]])

    for query in queries[:WARM]:
        after(query)
    shares = []
    for query in queries[WARM : WARM + 30]:
        expected = before(query)[0][:RECALL_AT]
        shares.append(len(np.intersect1d(expected, after(query)[0][:RECALL_AT])) / max(len(expected), 1))
    return {
        "source": name,
        "before": timed(before, queries[:num_before]),
        "after": timed(after, queries[WARM:]),
        "agrees_ratio": float(np.mean(shares)),
    }


def stage(
    found: dict[str, Contender], queries: Sequence[Query], asking: Asking, counts_I: Float32
) -> dict[str, float]:
    """The whole stage with its five sources: 500 candidates of a request, each scored by all."""
    sources = tuple(SourceConfig(name=name, quota=QUOTA) for name in STAGE)
    config = RetrievalConfig(sources=sources, num_candidates=500)
    retrieval = Retrieval({name: found[name].source for name in STAGE}, config, counts_I, asking=asking)
    for query in queries[:WARM]:
        retrieval([query])
    return timed(lambda query: retrieval([query]), queries[WARM:])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument(
        "--keep", type=Path, help="folder where the graph of ALS factors stays for the next run"
    )
    asked, rng = parser.parse_args(), np.random.default_rng(0)
    faiss.omp_set_num_threads(1)
    began = time.monotonic()
    found, cluster_I = contenders(asked.items, rng, asked.keep)
    built = time.monotonic() - began
    queries = questions(WARM + asked.queries, cluster_I, rng)
    rows = [measure(name, contender, queries, 30) for name, contender in found.items()]
    counts_I = np.zeros(asked.items, np.float32)
    whole = {
        "in turn": stage(found, queries, InTurn(), counts_I),
        "as served": stage(found, queries, SideBySide(SERVED_SECONDS, lambda *_: None), counts_I),
    }
    exact = min(row["agrees_ratio"] for row in rows if row["source"] in ("knn", "popular", "trending"))
    recall = min(row["agrees_ratio"] for row in rows if row["source"] in ("two_tower", "als"))
    part = Part(
        "Retrieval",
        ("source", "before p50 / p99 ms", "its processor", "after p50 / p99 ms", "its processor", "agrees"),
    )
    for name, times in whole.items():
        part.target(f"retrieval of five sources {name}, p99 ms", times["p99_ms"], LIMIT_MS, "lower")
        part.target(f"its processor's time {name}, p99 ms", times["cpu_p99_ms"], LIMIT_MS, "lower")
    part.target("what lists and neighbours agree with the whole catalogue", exact, 1.0, "higher")
    part.target("what the indexes agree with the whole catalogue", recall, RECALL, "higher")
    result = circumstances() | {
        "items": asked.items, "built_seconds": built, "sources": rows, "stage": whole, "targets": part.targets,
    }  # fmt: skip
    lines = table(part.header, [_row(row) for row in rows])
    stages = [(name, *_times(ms)) for name, ms in whole.items()]
    lines += ["", *table(("stage", "p50 / p99 ms", "its processor"), stages), "", *target_table(part.targets)]
    load = os.getloadavg()[0]
    head = [
        f"# Retrieval, {result['date']}", "",
        f"`make bench-retrieval`, commit {result['commit']}, {result['machine']}, one thread, {asked.items:,} items of "
        f"{DIM} numbers, histories of {HISTORY}, {NEIGHBOURS} neighbours an item, quota {QUOTA}. Load of the machine {load:.0f}: "
        "where that is over its cores, the clock measures who else was at work, and the processor's time what is ours.", "",
    ]  # fmt: skip
    text = "\n".join([*head, *lines]) + "\n"
    save("retrieval", result, text if asked.items >= 1_000_000 else None)
    print(text)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    return row["source"], *_times(row["before"]), *_times(row["after"]), f"{row['agrees_ratio']:.3f}"


def _times(ms: dict[str, float]) -> tuple[str, str]:
    by_clock, of_processor = (
        f"{ms[f'{kind}p50_ms']:.2f} / {ms[f'{kind}p99_ms']:.2f}" for kind in ("", "cpu_")
    )
    return by_clock, of_processor


if __name__ == "__main__":
    main()
