"""The source `popular`: what is taken lately and of all time, raised where the query's context names a segment.

Scores depend on a context by its class alone, see `Popularity.class_of`. The best of each class are kept, so that a request
looks at a list and not at the catalogue; where its rules leave too little of the list, at what they allow.

Shape letters: B requests, K candidates, H items of a head, I catalogue.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from tastemaker.models.popularity import Popularity
from tastemaker.stages.source import Asked, Source, best_allowed, filled, top_allowed
from tastemaker.types import Float32, Int32, Query

DEPTH: Final = 4096
"""Items of a head."""
CLASSES_KEPT: Final = 256
"""Of contexts, 32 KB each."""
NOBODY: Final = Query(np.empty(0, np.int32))


class PopularHeads:
    """The best items of each class of contexts, made when one is first asked for: some 10 ms for a million items.

    Thread-safe.
    """

    def __init__(self, model: Popularity, depth: int = DEPTH) -> None:
        self.model, self._depth = model, depth
        self._head = lru_cache(CLASSES_KEPT)(self._made)

    def best(self, query: Query, k: int) -> tuple[Int32, Float32]:
        """The at most k best rows that the query's hard rules allow, with their scores; ties by row."""
        head = self._head(self.model.class_of(query.context))
        found = best_allowed(*head, query, k)
        if len(found[0]) == k or len(head[0]) == self.model.config.num_items:
            return found
        rows = np.arange(self.model.config.num_items, dtype=np.int32)
        if query.allowed is not None:
            rows = rows[query.allowed[: len(rows)]]
        return best_allowed(rows, self.model.score(rows, query.context), query, k)

    def _made(self, names: tuple[str, ...]) -> tuple[Int32, Float32]:
        return top_allowed(self.model.in_class(names), NOBODY, self._depth)


class PopularSource(Source):
    """The best by a popularity model.

    Args:
        name: Of the source.
        model: Of the first items.
        num_items: Of the catalogue; unset, the model's. Items behind those of the model score 0.
    """

    needs_history = False
    is_light = True

    def __init__(self, name: str, model: Popularity | PopularHeads, num_items: int | None = None) -> None:
        self.name = name
        self._heads = model if isinstance(model, PopularHeads) else PopularHeads(model)
        self._num_items = self._heads.model.config.num_items if num_items is None else num_items

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        return _AskedPopular(queries, self._heads, self._num_items)


class _AskedPopular:
    def __init__(self, queries: Sequence[Query], heads: PopularHeads, num_items: int) -> None:
        self._queries, self._heads, self._num_items = queries, heads, num_items

    def propose(self, k: int) -> tuple[Int32, Float32]:
        return filled([self._best(query, k) for query in self._queries], k)

    def _best(self, query: Query, k: int) -> tuple[Int32, Float32]:
        rows, scores = self._heads.best(query, k)
        if len(rows) == k or self._num_items == self._heads.model.config.num_items:
            return rows, scores
        later = np.arange(self._heads.model.config.num_items, self._num_items, dtype=np.int32)
        more, zeros = best_allowed(later, np.zeros(len(later), np.float32), query, k - len(rows))
        return np.concatenate([rows, more]), np.concatenate([scores, zeros])

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [self._score(rows, query.context) for rows, query in zip(items, self._queries, strict=True)]

    def _score(self, rows: Int32, context: Mapping[str, str]) -> Float32:
        score_K = np.zeros(len(rows), np.float32)
        known_K = rows < self._heads.model.config.num_items
        score_K[known_K] = self._heads.model.score(rows[known_K], context)
        return score_K
