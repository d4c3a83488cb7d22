"""Makes the sources of candidates that a bundle holds. Not for what they share (`bundle_models`).

Shape letter: I catalogue.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.errors import CompatibilityError
from tastemaker.features.trending import Trending, TrendingRows
from tastemaker.features.well_known import Tried
from tastemaker.index.mapped import let_go
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.item_item import ItemItem
from tastemaker.stages.bundle_items import heads_of
from tastemaker.stages.bundle_models import BundleModels
from tastemaker.stages.bundle_rows import WithinBundle
from tastemaker.stages.bundle_zoo import has_model
from tastemaker.stages.content import ContentSource
from tastemaker.stages.editorial import EDITORIAL, EditorialList, EditorialSource
from tastemaker.stages.exploring import FreshSource, bundle_pool
from tastemaker.stages.nearby import NearbySource, PlaceTree
from tastemaker.stages.nearest import AlsSource, RecentSource, VectorSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.session import SessionVectors
from tastemaker.stages.source import Source
from tastemaker.stages.trending import TrendingSource
from tastemaker.types import Float64

SOURCES = (
    "two_tower", "ease", "knn", "als", "content", "recent", "popular", "trending", "nearby", "editorial",
)  # fmt: skip
"""Sources that a bundle can hold. Each lies in files of its own name, `popular` and `trending` in those of `popularity`."""
ALS_INDEX: Final = "als.faiss"
"""Of a bundle with many items: its ALS factors to search in. Without one they are searched exactly."""


class BundleSources:
    """The sources over a bundle's models, each made when asked for.

    Args:
        models: Of the bundle.
        config: Of the pipeline.
        trending: Gives what trends now, or None for what the bundle knows of it. Unset, the bundle alone says.
        tried: How often put items were shown and clicked, by id.
        editorial: Gives the catalogue's editorial lists.
    """

    def __init__(
        self,
        models: BundleModels,
        config: PipelineConfig,
        trending: Callable[[], Trending | None] | None,
        tried: Callable[[], Mapping[str, Tried]],
        editorial: Callable[[], tuple[EditorialList, ...]],
    ) -> None:
        self._models, self._config = models, config
        self._trending, self._tried, self._editorial = trending, tried, editorial

    def named(self) -> dict[str, Source]:
        """All sources that the config names, in its order.

        Raises:
            CompatibilityError: This release has none of that name.
        """
        return {source.name: self._source(source.name) for source in self._config.retrieval.sources}

    def content(self) -> ContentSource:
        """By content vectors."""
        models = self._models
        return ContentSource("content", models.content_index(), models.row_of, self._config.retrieval.content)

    def fresh(self) -> Source:
        """Of items that few have seen."""
        models, config = self._models, self._config.exploration
        items, counts_I = models.bundle.table("items.parquet"), models.fitted_popularity.counts_I
        pool = models.once("pool", lambda: bundle_pool(counts_I, _created_ms(items), config))
        overlay = models.overlay
        return FreshSource(overlay.num_bundle, overlay.num_items, pool, config, self._tried_rows)

    def _source(self, name: str) -> Source:
        models, retrieval = self._models, self._config.retrieval
        if name == "two_tower":
            heeding = SessionVectors(
                models.query_encoder(name), models.vectors, models.row_of, retrieval.session
            )
            return VectorSource(name, heeding, models.index())
        if name == "content":
            return self.content()
        if name == "recent":
            return RecentSource(name, models.index(), retrieval.recent)
        if name == "nearby":
            tree = models.once("place tree", lambda: PlaceTree(models.fitted_places))
            return NearbySource(name, models.places, tree, retrieval.nearby)
        if name == EDITORIAL:
            return EditorialSource(name, models.row_of, self._editorial)
        if name == "popular":
            return self._popular(name)
        if name == "trending":
            rows = None if self._trending is None else TrendingRows(models.row_of, self._trending)
            return TrendingSource(name, self._popular(name), rows)
        if name == "als":
            return self._within(models.once("als source", lambda: self._als(name)))
        if name in ("ease", "knn"):
            model = models.once(name, lambda: self._item_item(name))
            return self._within(ItemItemSource(name, model))
        if has_model(models.bundle, name):
            return self._of_the_zoo(name)
        raise CompatibilityError(
            "source in pipeline.json",
            value=name,
            limit=f"one of: {', '.join(SOURCES)}, or a model of the bundle",
            mend="publish the bundle again",
        )

    def _als(self, name: str) -> Source:
        bundle = self._models.bundle
        if not bundle.has(ALS_INDEX):
            model = bundle.model(name, Als)
            if bundle.shard is None:
                return AlsSource(name, model)
            from tastemaker.bundle.part import exact_slice  # late: only those who search need FAISS

            return AlsSource(name, model, exact_slice(bundle, model.item_factors_ID))
        index, config = bundle.searched(ALS_INDEX), AlsConfig.parse(bundle.json(f"{name}.json"), "ALS model")
        model = Als(config, index.vectors())  # the factors are in memory once, not twice
        let_go(index.vectors())  # of a shard, which looks up some
        return AlsSource(name, model, index)

    def _of_the_zoo(self, name: str) -> Source:
        models = self._models
        later = None if models.live is None else models.live.later.get(name)
        found = models.zoo(name).source(later)
        return found if later is not None else self._within(found)

    def _item_item(self, name: str) -> ItemItem:
        bundle = self._models.bundle
        if bundle.shard is None:
            return bundle.model(name, ItemItem)
        from tastemaker.bundle.part import OwnColumns

        return bundle.model(name, OwnColumns(bundle.shard.rows(len(bundle.item_ids)), ItemItem))

    def _popular(self, name: str) -> PopularSource:
        """By the bundle's own lists, which what is put later stands behind: they are not made anew for it.

        Only where nobody took anything are they lists of the newest, and what is put later the newest of all.
        """
        models = self._models
        fitted = models.fitted_popularity
        if not fitted.counts_I.any():
            return PopularSource(name, models.popularity)
        return PopularSource(name, heads_of(models.bundle), models.overlay.num_items)

    def _within(self, source: Source) -> Source:
        live = self._models.live
        return source if live is None else WithinBundle(source, live.overlay.num_bundle)

    def _tried_rows(self) -> dict[int, Tried]:
        row_of, tried = self._models.row_of, self._tried()
        return {row: one for item_id, one in tried.items() if (row := row_of(item_id)) is not None}


def _created_ms(items: pa.Table) -> Float64:
    """When each item came to be (I,), NaN where that is unknown."""
    if Column.CREATED_AT_MS not in items.column_names:
        return np.full(len(items), np.nan)
    moments: Any = items[Column.CREATED_AT_MS].cast(pa.float64())
    return np.asarray(moments.to_numpy(), np.float64)
