"""What the gateway itself needs of a bundle: ids, filters, and the popular list that is always there.

Shape letters: K candidates, S sources, I catalogue.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.models.popularity import Popularity
from tastemaker.stages.filtering import hard_filter
from tastemaker.types import Bool, Candidates, Int32, Query
from tastemaker_services.schema import CONTEXT_KEYS, Filters

_CONTEXTS_KEPT = 64


class BundleFace:
    """One bundle as the gateway sees it. Everything is in memory: no call of it waits."""

    def __init__(
        self,
        *,
        bundle_id: str,
        sha256: str,
        item_ids: Sequence[str],
        source_names: Sequence[str],
        popularity: Popularity,
        categories: Sequence[str | None],
        tags: Sequence[Sequence[str] | None],
    ) -> None:
        self.bundle_id, self.sha256 = bundle_id, sha256
        self.item_ids, self.source_names = item_ids, tuple(source_names)
        self._rows = {item_id: row for row, item_id in enumerate(item_ids)}
        self._popularity = popularity
        self._categories, self._tags = categories, tags
        self._segment_keys = frozenset(name.partition("=")[0] for name in popularity.config.segments)
        self.context_keys = CONTEXT_KEYS | self._segment_keys
        self._trending_order = lru_cache(_CONTEXTS_KEPT)(self._order)

    @classmethod
    def of(cls, bundle: Bundle) -> "BundleFace":
        """The face of an opened bundle."""
        items = bundle.table("items.parquet")
        sources = bundle.json("pipeline.json")["retrieval"]["sources"]
        return cls(
            bundle_id=bundle.bundle_id,
            sha256=bundle.ref.sha256,
            item_ids=bundle.item_ids,
            source_names=[source["name"] for source in sources],
            popularity=bundle.model("popularity", Popularity),
            categories=items.column("category").to_pylist(),
            tags=items.column("tags").to_pylist(),
        )

    def rows(self, item_ids: Iterable[str]) -> tuple[Int32, int]:
        """The rows of the ids that the bundle knows, in order, and how many it does not know."""
        found = [self._rows.get(item_id) for item_id in item_ids]
        known = [row for row in found if row is not None]
        return np.array(known, np.int32), len(found) - len(known)

    def allowed(self, filters: Filters) -> Bool | None:
        """Which items (I,) meet the filters; None where there are none."""
        if not filters.categories and not filters.tags:
            return None
        mask = np.ones(len(self.item_ids), bool)
        if filters.categories:
            wanted = frozenset(filters.categories)
            mask &= np.fromiter((c in wanted for c in self._categories), bool, len(mask))
        if filters.tags:
            wanted = frozenset(filters.tags)
            mask &= np.fromiter((not wanted.isdisjoint(t or ()) for t in self._tags), bool, len(mask))
        return mask

    def trending(self, query: Query) -> Candidates:
        """The best `query.k` of what is popular now in the query's context, under its hard rules."""
        known = {k: v for k, v in query.context.items() if k in self._segment_keys}
        order_I, score_I = self._trending_order(tuple(sorted(known.items())))
        # Few are forbidden: a short head of the list is enough, the whole of it always is.
        head = 2 * query.k + len(query.history_L) + len(query.exclude)
        best = hard_filter(query, self._listed(order_I[:head], score_I))
        if len(best) < query.k and head < len(order_I):
            best = hard_filter(query, self._listed(order_I, score_I))
        return best

    def sources_of(self, mask: int) -> list[str]:
        """Names of the sources in a `source_mask`."""
        return [name for bit, name in enumerate(self.source_names) if mask >> bit & 1]

    def _order(self, context: tuple[tuple[str, str], ...]) -> tuple[Int32, np.ndarray]:
        score_I = self._popularity.in_context(dict(context))
        return np.lexsort((np.arange(len(score_I)), -score_I)).astype(np.int32), score_I

    def _listed(self, rows_K: Int32, score_I: np.ndarray) -> Candidates:
        bit = self.source_names.index("popular") if "popular" in self.source_names else None
        mask = np.uint32(0 if bit is None else 1 << bit)
        score_KS = np.full((len(rows_K), len(self.source_names)), np.nan, np.float32)
        if bit is not None:
            score_KS[:, bit] = score_I[rows_K]
        return Candidates(rows_K, score_I[rows_K], np.full(len(rows_K), mask, np.uint32), score_KS)


def split_context(context: Mapping[str, str], known: frozenset[str]) -> tuple[dict[str, str], int]:
    """The known keys of a request's context, and how many there are that nobody knows."""
    kept = {key: value for key, value in context.items() if key in known}
    return kept, len(context) - len(kept)
