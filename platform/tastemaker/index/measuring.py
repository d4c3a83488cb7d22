"""What a search finds and costs: recall against the exact one, and times of single queries. Not for choosing.

Shape letters: B queries, I catalogue, D dimension, K results.
"""

import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tastemaker.index.config import RECALL_AT, MeasuredIndex, QueryKind
from tastemaker.types import Float32, Float64, Int32

if TYPE_CHECKING:
    from tastemaker.index.faiss_index import FaissIndex
    from tastemaker.index.vector_index import VectorIndex

PERTURBATION = 0.5
"""Length of the noise beside an item's vector, where items stand in for users."""
_ITEMS_AT_ONCE = 50_000
_ROUNDING = 1e-5


class IndexQueries(NamedTuple):
    """Vectors to search for, and what they are."""

    vectors_BD: Float32
    kind: QueryKind

    def half(self, number: int) -> "IndexQueries":
        """Every second one, from the first or the second on: what one half was fitted to the other can be measured with."""
        return IndexQueries(self.vectors_BD[number::2], self.kind)


def perturbed(vectors_ID: Float32, num_queries: int, seed: int = 0) -> Float32:
    """Vectors (B, D) near those of items drawn by `seed`: each with noise of `PERTURBATION` times its length."""
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(vectors_ID), num_queries, replace=num_queries > len(vectors_ID))
    item_BD = vectors_ID[rows]
    noise_BD = rng.standard_normal(item_BD.shape, np.float32)
    noise_BD *= np.linalg.norm(item_BD, axis=1, keepdims=True) / np.linalg.norm(
        noise_BD, axis=1, keepdims=True
    )
    near_BD: Float32 = item_BD + np.float32(PERTURBATION) * noise_BD
    return near_BD


def borders(queries_BD: Float32, vectors_ID: Float32, k: int) -> Float32:
    """Each query's k-th largest inner product (B,), over all items."""
    best_BK = np.full((len(queries_BD), k), -np.inf, np.float32)
    for begin in range(0, len(vectors_ID), _ITEMS_AT_ONCE):
        scores = queries_BD @ vectors_ID[begin : begin + _ITEMS_AT_ONCE].T
        both = np.concatenate([best_BK, scores], axis=1)
        best_BK = np.partition(both, -k, axis=1)[:, -k:]
    border_B: Float32 = best_BK.min(axis=1)
    return border_B


def recall(found_BK: Int32, queries_BD: Float32, vectors_ID: Float32, border_B: Float32) -> float:
    """Share of the results that score as high as the true k-th best, but for float32 rounding.

    Args:
        found_BK: Rows that were found, -1 for none.
        queries_BD: What was searched for.
        vectors_ID: Of the catalogue.
        border_B: See `borders`, of the same k.
    """
    scores_BK = np.einsum("bkd,bd->bk", vectors_ID[np.maximum(found_BK, 0)], queries_BD)
    slack = _ROUNDING * float(np.abs(scores_BK).max(initial=1e-30))
    good_BK = (scores_BK >= border_B[:, None] - slack) & (found_BK >= 0)
    return float(good_BK.mean())


class Searched(NamedTuple):
    """Rows (B, K) that a search for each query alone found, and its seconds (B,): of its thread's CPU, and by the clock.

    A search waits for nothing, so that both are the same on an idle machine.
    """

    found_BK: Int32
    cpu_B: Float64
    wall_B: Float64


def search_each(index: "VectorIndex", queries_BD: Float32, k: int) -> Searched:
    """Searches for one query after the other, after the first was searched for once."""
    index.search(queries_BD[:1], k)
    found_BK, time_B2 = np.empty((len(queries_BD), k), np.int32), np.empty((len(queries_BD), 2))
    for b in range(len(queries_BD)):
        began = time.thread_time(), time.perf_counter()
        found_BK[b] = index.search(queries_BD[b : b + 1], k)[0][0]
        time_B2[b] = time.thread_time() - began[0], time.perf_counter() - began[1]
    return Searched(found_BK, time_B2[:, 0], time_B2[:, 1])


def measure(
    index: "FaissIndex",
    queries_BD: Float32,
    queries: QueryKind,
    build_seconds: float,
    border_B: Float32 | None = None,
) -> MeasuredIndex:
    """Recall and times of a search for each query, at 100 results or all items where there are fewer.

    Args:
        index: What is measured.
        queries_BD: What is searched for.
        queries: What those are.
        build_seconds: As it was when it was built.
        border_B: See `borders`; found anew unless given.
    """
    k = min(RECALL_AT, index.num_items)
    vectors_ID = index.vectors()
    if border_B is None:
        border_B = borders(queries_BD, vectors_ID, k)
    searched = search_each(index, queries_BD, k)
    p50, p99 = np.quantile(searched.cpu_B, [0.5, 0.99])
    return MeasuredIndex(
        queries=queries,
        num_queries=len(queries_BD),
        k=k,
        recall=recall(searched.found_BK, queries_BD, vectors_ID, border_B),
        p50_ms=1e3 * float(p50),
        p99_ms=1e3 * float(p99),
        wall_p99_ms=1e3 * float(np.quantile(searched.wall_B, 0.99)),
        build_seconds=build_seconds,
        memory_bytes=index.memory_bytes,
    )
