"""What the gateway itself needs of a bundle: ids, filters, and the popular list that is always there.

Shape letters: K candidates, S sources, I catalogue.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.features.trending import TRENDING, Trending, TrendingRows
from tastemaker.models.popularity import Popularity
from tastemaker.models.rankers import dense_features_of
from tastemaker.stages.bundle_items import heads_of, popularity_of, traits_of
from tastemaker.stages.business_rules import Hard, HardRules, hard
from tastemaker.stages.filtering import hard_filter, nothing_fits
from tastemaker.stages.matching import ItemMatcher
from tastemaker.stages.merging import Merging
from tastemaker.stages.overlay import FRESH, PINNED, Overlay, OverlayRows, Step
from tastemaker.stages.policy import hard_rules_of
from tastemaker.stages.popular import PopularHeads
from tastemaker.stages.rerankers.config import RerankingConfig
from tastemaker.state.items import ItemChanges
from tastemaker.types import Bool, Candidates, Float32, Int32, Query
from tastemaker_services.gateway.rules import ItemRules
from tastemaker_services.web.schema import CONTEXT_KEYS, Filters


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
        rules: ItemRules,
        trending: Callable[[], Trending | None] | None = None,
        feature_names: Sequence[str] = (),
        content_fingerprint: str | None = None,
        hard_rules: tuple[Hard, ...] = (),
        created_seconds: float = 0.0,
        rows: Mapping[str, int] | None = None,
        heads: PopularHeads | None = None,
        merging: Merging | None = None,
    ) -> None:
        self.bundle_id, self.sha256 = bundle_id, sha256
        self.item_ids, self.source_names = item_ids, tuple(source_names)
        self.feature_names = tuple(feature_names)
        """What the ranker reads, in order."""
        self.content_fingerprint = content_fingerprint
        """Of the bundle's content space; None where it has none."""
        self.created_seconds = created_seconds
        """When the bundle was made, in seconds since 1970."""
        self.merging = merging
        """Puts together what shards of retrieval say; None where nobody needs it."""
        self.overlay = Overlay.none(len(item_ids))
        """What was put and deleted since, as of this face."""
        known = {item_id: row for row, item_id in enumerate(item_ids)} if rows is None else rows
        self._row_of: Callable[[str], int | None] = known.get
        self._rules = rules
        self._hard_rules = HardRules(self._matcher, hard_rules, hard_rules_of)
        segments = frozenset(name.partition("=")[0] for name in popularity.config.segments)
        self.context_keys = CONTEXT_KEYS | segments  # a client says nothing of its user's group
        self._heads = heads or PopularHeads(popularity)
        self._live = None if trending is None else TrendingRows(self.row_of, trending)
        self._trending_now = trending

    @classmethod
    def of(cls, bundle: Bundle, trending: Callable[[], Trending | None] | None = None) -> "BundleFace":
        """The face of an opened bundle.

        Args:
            bundle: Opened.
            trending: Gives what trends now; None, or unset, for what the bundle knows of it.
        """
        stages = bundle.json("pipeline.json")
        sources = stages["retrieval"]["sources"]
        reranking = RerankingConfig.parse(
            stages.get("reranking", {}), f"bundle {bundle.bundle_id}: reranking"
        )
        where, popularity = f"pipeline.json of bundle {bundle.bundle_id}", popularity_of(bundle)
        return cls(
            bundle_id=bundle.bundle_id,
            sha256=bundle.ref.sha256,
            item_ids=bundle.item_ids,
            source_names=[source["name"] for source in sources],
            popularity=popularity,
            merging=Merging.parse(stages["retrieval"], where, popularity.counts_I),
            heads=heads_of(bundle),
            rows=bundle.rows,
            rules=ItemRules.of_items(traits_of(bundle), bundle.table("items.parquet")),
            feature_names=dense_features_of(bundle.json("ranker.json")) if bundle.has("ranker.json") else (),
            trending=trending,
            content_fingerprint=fingerprint_of(bundle),
            hard_rules=hard(reranking.rules),
            created_seconds=datetime.fromisoformat(bundle.manifest.created).timestamp(),
        )

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None where it is unknown."""
        row = self._row_of(item_id)
        return row if row is not None and row < self.overlay.num_items else None

    def after(self, step: Step, row_of: Callable[[str], int | None]) -> "BundleFace":
        """The face after a step of the overlay; this one stays as it is."""
        face = copy(self)
        face.overlay, face._row_of = step.overlay, row_of
        face.item_ids = _Joined(self.item_ids, self.overlay.num_bundle, step.overlay.new_ids)
        face._rules = self._rules.after(step.rows_W, step.items)
        face._hard_rules = self._hard_rules.after(face._matcher, step.rows_W, len(face._rules.traits))
        face._live = None if self._trending_now is None else TrendingRows(face.row_of, self._trending_now)
        return face

    def rows(self, item_ids: Iterable[str]) -> tuple[Int32, int]:
        """The rows of the ids that are known, in order, and how many are not."""
        row_of, limit = self._row_of, self.overlay.num_items
        found = [row_of(item_id) for item_id in item_ids]
        known = [row for row in found if row is not None and row < limit]
        return np.array(known, np.int32), len(found) - len(known)

    def allowed(self, filters: Filters, context: Mapping[str, str]) -> Bool | None:
        """Which items (I,) a request with these filters may be shown in its context; None where all may be."""
        return self._rules.allowed(filters, context)

    def ruled(self, query: Query) -> Query:
        """The query that forbids what the bundle's blocks and filters do, and those of its policy."""
        return self._hard_rules.applied(query)

    def rules_against(self, query: Query, row: int) -> tuple[Hard, ...]:
        """The blocks and filters that keep an item from a query."""
        return self._hard_rules.against(query, row)

    def _matcher(self) -> ItemMatcher:
        return ItemMatcher(self._rules.traits, self.row_of)

    def broken_rules(self, row: int, filters: Filters, context: Mapping[str, str]) -> list[str]:
        """Names of the rules of the catalogue and of a request that keep an item from it."""
        deleted = ["deleted"] if self.overlay.deleted_I[row] else []
        return deleted + self._rules.broken(row, filters, context)

    def nothing_fits(self, query: Query) -> bool:
        """Whether the query's hard rules leave nothing of the catalogue."""
        forbidden = len(query.exclude) + len(query.history_L) + len(self.overlay.deleted)
        if query.allowed is None and forbidden < self.overlay.num_bundle:  # nearly always: a mask costs more
            return False
        return nothing_fits(self.overlay.fit(query), self.overlay.num_items)

    def finish(self, query: Query, found: Candidates) -> Candidates:
        """What of an answer may be shown: items that are known here, not deleted and that no hard rule forbids."""
        return hard_filter(self.overlay.fit(query), self.overlay.known(found))

    def trending(self, query: Query) -> Candidates:
        """The best `query.k` of what trends now, in the query's country where it names one, under its hard rules.

        Behind it, and where nothing is known of now, comes what is popular by the bundle in the query's context.
        """
        live = self._live.listed([query.context]) if self._live else None
        if live is None:
            return self.popular(query)
        trending = self.finish(query, self._listed(*live[0], TRENDING))
        if len(trending) == query.k:
            return trending
        exclude = np.concatenate([query.exclude, trending.item_index])
        rest = self.popular(replace(query, exclude=exclude, k=query.k - len(trending)))
        lowest = trending.score.min(initial=1)
        return trending.and_then(rest.with_score(lowest * rest.score / max(rest.score.max(initial=1), 1)))

    def knows_trends(self) -> bool:
        """Whether anything is known of what trends now."""
        return self._trending_now is not None and self._trending_now() is not None

    def popular(self, query: Query) -> Candidates:
        """The best `query.k` of what is popular by the bundle in the query's context, under its hard rules."""
        found = self._heads.best(self.overlay.fit(query), query.k)
        return self.finish(query, self._listed(*found, "popular"))

    def sources_of(self, mask: int) -> list[str]:
        """Names of the sources in a `source_mask`."""
        return [name for bit, name in enumerate((*self.source_names, FRESH, PINNED)) if mask >> bit & 1]

    def _listed(self, rows_K: Int32, score_K: Float32, source: str) -> Candidates:
        bit = self.source_names.index(source) if source in self.source_names else None
        mask = np.uint32(0 if bit is None else 1 << bit)
        score_KS = np.full((len(rows_K), len(self.source_names)), np.nan, np.float32)
        if bit is not None:
            score_KS[:, bit] = score_K
        return Candidates(rows_K, score_K, np.full(len(rows_K), mask, np.uint32), score_KS)


class _Joined(Sequence[str]):
    """A bundle's item ids and those behind them, without a copy."""

    def __init__(self, ids: Sequence[str], num: int, more: Sequence[str]) -> None:
        self._ids: Sequence[str] = ids._ids if isinstance(ids, _Joined) else ids
        self._num, self._more = num, more

    def __len__(self) -> int:
        return self._num + len(self._more)

    def __getitem__(self, row: Any) -> Any:
        return self._ids[row] if row < self._num else self._more[row - self._num]


class LiveFace:
    """The newest face of a bundle. One thread takes changes; any may look.

    Args:
        published: Of the bundle as it was opened.
    """

    def __init__(self, published: BundleFace) -> None:
        self._published, self.face = published, published
        self._rows: OverlayRows | None = None

    def take(self, changes: ItemChanges) -> None:
        """Makes the next face; changes that begin anew replace all earlier ones."""
        if self._rows is None or changes.restarted:
            self._rows = OverlayRows(self._published.overlay.num_bundle, self._published.row_of)
            self.face = self._published
        if changes:
            self.face = self.face.after(self._rows.take(changes), self._rows.row_of)


def split_context(context: Mapping[str, str], known: frozenset[str]) -> tuple[dict[str, str], int]:
    """The known keys of a request's context, and how many there are that nobody knows."""
    kept = {key: value for key, value in context.items() if key in known}
    return kept, len(context) - len(kept)


def fingerprint_of(bundle: Bundle) -> str | None:
    """The fingerprint of a bundle's content space; None where it has none."""
    return str(bundle.json("content.json")["fingerprint"]) if bundle.has("content.json") else None
