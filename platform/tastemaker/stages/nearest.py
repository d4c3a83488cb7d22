"""Sources that search an index of item vectors: by a query tower or another encoder, by ALS factors, by the items taken last.

Models of the zoo, those of sequences among them: see `model_source`.

Shape letters: B requests, K candidates, I catalogue, D dimension, N items taken last.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from tastemaker.features.recency import recency_weights
from tastemaker.models.als import Als
from tastemaker.stages.session import QueryVectors
from tastemaker.stages.source import Asked, Source, best_allowed, filled, forbidden, has_history
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Int32, Query, VectorRows

if TYPE_CHECKING:
    from tastemaker.index.vector_index import VectorIndex


class RecentConfig(Strict):
    """What the source `recent` reads of a history."""

    num_items: int = Field(3, ge=1, le=20, description="newest items whose neighbours are proposed")
    half_life: float | None = Field(
        5.0, gt=0, description="items back where a similarity counts half; empty: all alike"
    )


class VectorSource(Source):
    """Items whose vectors, in an index, are nearest to the query's, by an encoder of the same space."""

    def __init__(self, name: str, encoder: QueryVectors, index: "VectorIndex") -> None:
        self.name, self._encoder, self._index = name, encoder, index
        self._vectors_ID = index.vectors()

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        vector_BD = self._encoder.encode_queries(queries)
        return AskedIndex(queries, vector_BD, has_history(queries), self._index, self._vectors_ID)


class AlsSource(Source):
    """ALS factors, the history folded in.

    Args:
        name: Of the source.
        model: Folds histories in.
        index: Of the model's item factors; unset, an exact one is made.
    """

    def __init__(self, name: str, model: Als, index: "VectorIndex | None" = None) -> None:
        self.name, self._model = name, model
        if index is None:
            from tastemaker.index.faiss_index import FaissIndex  # late: only those who search need FAISS

            index = FaissIndex.build(model.item_factors_ID)
        self._index = index

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        vector_BD = self._model.fold_in([query.history_L for query in queries])
        return AskedIndex(queries, vector_BD, has_history(queries), self._index, self._model.item_factors_ID)


class AskedIndex:
    """Vectors of the queries and the index to search; `known_B` says which queries have one. `vectors` are the index's."""

    def __init__(
        self,
        queries: Sequence[Query],
        vector_BD: Float32,
        known_B: Bool,
        index: "VectorIndex",
        vectors: VectorRows,
    ) -> None:
        self._queries, self._vector_BD, self._known_B = queries, vector_BD, known_B
        self._index, self._vectors = index, vectors

    def propose(self, k: int) -> tuple[Int32, Float32]:
        """See `Asked.propose`."""
        allowed = [query.allowed for query in self._queries]
        found = self._index.search(self._vector_BD, k, allowed, [forbidden(query) for query in self._queries])
        rows, scores = found
        rows[~self._known_B], scores[~self._known_B] = -1, -np.inf
        return rows, scores

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        """See `Asked.score`."""
        return [
            self._vectors[rows] @ vector if known else np.full(len(rows), np.nan, np.float32)
            for rows, vector, known in zip(items, self._vector_BD, self._known_B, strict=True)
        ]


class RecentSource(Source):
    """Items near any of those taken last: the largest of the similarities, each times how recent its item is.

    A long-term vector is the mean of many tastes; this source answers the last of them each for itself.

    Args:
        name: Of the source.
        index: Of all items' vectors.
        config: How many of the newest items, and how they count.
    """

    def __init__(self, name: str, index: "VectorIndex", config: RecentConfig | None = None) -> None:
        self.name, self._index, self._config = name, index, config or RecentConfig()
        self._vectors_ID = index.vectors()

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        return _AskedRecent(queries, [self._newest(query) for query in queries], self._index)

    def _newest(self, query: Query) -> Float32:
        newest_N = query.history_L[-self._config.num_items :]
        weight_N = recency_weights(len(newest_N), self._config.half_life)
        vector_ND: Float32 = self._vectors_ID[newest_N] * weight_N[:, None]
        return vector_ND


class _AskedRecent:
    """Of each query the vectors (N, D) of the items taken last, each at its weight."""

    def __init__(self, queries: Sequence[Query], vectors: Sequence[Float32], index: "VectorIndex") -> None:
        self._queries, self._vectors, self._index = queries, vectors, index
        self._vectors_ID = index.vectors()

    def propose(self, k: int) -> tuple[Int32, Float32]:
        found = zip(self._queries, self._vectors, strict=True)
        return filled([self._best(query, vector_ND, k) for query, vector_ND in found], k)

    def _best(self, query: Query, vector_ND: Float32, k: int) -> tuple[Int32, Float32]:
        if not len(vector_ND):
            return np.empty(0, np.int32), np.empty(0, np.float32)
        rules = [query.allowed] * len(vector_ND), [forbidden(query)] * len(vector_ND)
        row_NK, _ = self._index.search(vector_ND, k, *rules)
        rows = np.unique(row_NK[row_NK >= 0])
        return best_allowed(rows, self._nearest(rows, vector_ND), query, k)

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [self._nearest(rows, vectors) for rows, vectors in zip(items, self._vectors, strict=True)]

    def _nearest(self, rows_K: Int32, vector_ND: Float32) -> Float32:
        if not len(vector_ND):
            return np.full(len(rows_K), np.nan, np.float32)
        largest_K: Float32 = (self._vectors_ID[rows_K] @ vector_ND.T).max(axis=1)
        return largest_K
