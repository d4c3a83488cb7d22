"""The source `trending`: what is taken now, by the events of the last minutes and days, in the request's country.

Where nothing is known of now (no events, or an evaluation of the past) it answers as the bundle's popularity does, whose
scores are of the same kind: the share of what is taken most.

Shape letters: B requests, K candidates, N items that trend.
"""

from collections.abc import Sequence

import numpy as np

from tastemaker.features.trending import TrendingRows
from tastemaker.models.popularity import Popularity
from tastemaker.stages.filtering import permitted
from tastemaker.stages.retrieval import Asked, PopularSource, Source
from tastemaker.types import Float32, Int32, Query


class TrendingSource(Source):
    """What trends now; without that, what trended at the bundle's fit.

    Args:
        name: Of the source.
        model: Stands in where nothing is known of now.
        rows: What trends, as rows of the bundle; None in evaluations.
    """

    needs_history = False

    def __init__(self, name: str, model: Popularity, rows: TrendingRows | None = None) -> None:
        self.name, self._fitted, self._rows = name, PopularSource(name, model), rows

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`. All queries are answered by one snapshot."""
        lists = self._rows.listed([query.context for query in queries]) if self._rows else None
        return self._fitted.ask(queries) if lists is None else _AskedLists(queries, lists)


class _AskedLists:
    """For each query rows, best first, and their scores; other items score 0."""

    def __init__(self, queries: Sequence[Query], lists: Sequence[tuple[Int32, Float32]]) -> None:
        self._queries, self._lists = queries, lists

    def propose(self, k: int) -> tuple[Int32, Float32]:
        rows_BK = np.full((len(self._queries), k), -1, np.int32)
        score_BK = np.full((len(self._queries), k), -np.inf, np.float32)
        for b, (query, (rows_N, score_N)) in enumerate(zip(self._queries, self._lists, strict=True)):
            kept = np.flatnonzero(permitted(query, rows_N))[:k]
            rows_BK[b, : len(kept)], score_BK[b, : len(kept)] = rows_N[kept], score_N[kept]
        return rows_BK, score_BK

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [_found(rows_K, *listed) for rows_K, listed in zip(items, self._lists, strict=True)]


def _found(rows_K: Int32, rows_N: Int32, score_N: Float32) -> Float32:
    """The scores of `rows_K`, 0 for those that are not listed."""
    if not len(rows_N):
        return np.zeros(len(rows_K), np.float32)
    order_N = np.argsort(rows_N)
    place_K = np.minimum(np.searchsorted(rows_N, rows_K, sorter=order_N), len(rows_N) - 1)
    at_K = order_N[place_K]
    found_K: Float32 = np.where(rows_N[at_K] == rows_K, score_N[at_K], np.float32(0))
    return found_K
