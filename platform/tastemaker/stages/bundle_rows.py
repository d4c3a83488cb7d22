"""Sources and encoders that know a bundle's own items alone, in a catalogue that has grown behind them.

Shape letters: B requests, K candidates, D dimension.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tastemaker.stages.session import QueryVectors
from tastemaker.stages.source import Asked, Source
from tastemaker.types import Float32, Int32, Query, VectorRows


class WithinBundle(Source):
    """A source that neither sees later items in queries nor has anything to say of them: NaN.

    Args:
        source: Of the bundle.
        num_bundle: Its items.
    """

    def __init__(self, source: Source, num_bundle: int) -> None:
        self.name, self.needs_history = source.name, source.needs_history
        self._source, self._num_bundle = source, num_bundle

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        return _AskedWithin(
            self._source.ask([within(query, self._num_bundle) for query in queries]), self._num_bundle
        )


class _AskedWithin:
    def __init__(self, asked: Asked, num_bundle: int) -> None:
        self._asked, self._num_bundle = asked, num_bundle

    def propose(self, k: int) -> tuple[Int32, Float32]:
        return self._asked.propose(k)

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        known = [rows < self._num_bundle for rows in items]
        scored = self._asked.score([rows[is_known] for rows, is_known in zip(items, known, strict=True)])
        found = [np.full(len(rows), np.nan, np.float32) for rows in items]
        for out_K, is_known, score_K in zip(found, known, scored, strict=True):
            out_K[is_known] = score_K
        return found


class BundleHistories:
    """Vectors of histories by an encoder that knows the bundle's items only.

    A history of later items alone has the mean of their vectors, which the item tower made of what they are.

    Args:
        encoder: Of the bundle.
        vectors_ID: Of all items, in the same space.
        num_bundle: Its items.
    """

    def __init__(self, encoder: QueryVectors, vectors_ID: VectorRows, num_bundle: int) -> None:
        self._encoder, self._vectors_ID, self._num_bundle = encoder, vectors_ID, num_bundle

    def encode_queries(self, queries: Sequence[Query]) -> Float32:
        """Vectors (B, D)."""
        known = [within(query, self._num_bundle) for query in queries]
        vector_BD = self._encoder.encode_queries(known)
        for b, (query, inside) in enumerate(zip(queries, known, strict=True)):
            if len(query.history_L) and not len(inside.history_L):
                mean_D = self._vectors_ID[query.history_L].mean(axis=0)
                vector_BD[b] = mean_D / max(float(np.linalg.norm(mean_D)), 1e-12)
        return vector_BD


def within(query: Query, num_bundle: int) -> Query:
    """The query without rows behind the first `num_bundle`."""
    rows = query.history_L, query.exclude, query.visit_L
    if query.allowed is None and not any(len(r) and r.max() >= num_bundle for r in rows):
        return query
    history_L, exclude, visit_L = (r[r < num_bundle] for r in rows)
    allowed = None if query.allowed is None else query.allowed[:num_bundle]
    return replace(query, history_L=history_L, exclude=exclude, visit_L=visit_L, allowed=allowed)
