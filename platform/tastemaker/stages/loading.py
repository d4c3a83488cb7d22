"""Makes the stages from a bundle's files, and writes the files that only the stages know.

Shape letters: I catalogue, D dimension.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.content import ContentSpace, is_heavy
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.places import Places
from tastemaker.features.ranking_items import RankingItems
from tastemaker.features.served_features import ServedFeatures
from tastemaker.features.traits import ItemTraits
from tastemaker.features.trending import Trending, TrendingRows
from tastemaker.index.extended import ExtendedIndex
from tastemaker.models.als import Als
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm
from tastemaker.models.item_item import ItemItem
from tastemaker.models.popularity import Popularity
from tastemaker.models.two_tower import NewItemTower, QueryEncoder
from tastemaker.stages.asking import Asking
from tastemaker.stages.bundle_rows import BundleHistories, WithinBundle
from tastemaker.stages.business_rules import HardRules, hard
from tastemaker.stages.content import CONTENT_INDEX, ContentSource
from tastemaker.stages.editorial import EDITORIAL, EditorialList, EditorialSource
from tastemaker.stages.exploring import Exploration, FreshSource, bundle_pool
from tastemaker.stages.hydration import Hydration, feature_names
from tastemaker.stages.live_items import LiveItems
from tastemaker.stages.matching import ItemMatcher
from tastemaker.stages.nearby import NearbySource, PlaceTree
from tastemaker.stages.nearest import AlsSource, RecentSource, VectorSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.overlay import Overlay
from tastemaker.stages.pipeline import ALL_PARTS, Part, Pipeline, PipelineConfig
from tastemaker.stages.policy import hard_rules_of
from tastemaker.stages.popular import PopularHeads, PopularSource
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval
from tastemaker.stages.session import QueryVectors, SessionVectors
from tastemaker.stages.source import Source
from tastemaker.stages.text_search import TextSearch
from tastemaker.stages.trending import TrendingSource
from tastemaker.types import Float32, Float64, Int32

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.writer import BundleWriter
    from tastemaker.index.faiss_index import VectorIndex

SOURCES = (
    "two_tower", "ease", "knn", "als", "content", "recent", "popular", "trending", "nearby", "editorial",
)  # fmt: skip
"""Sources that a bundle can hold. Each lies in files of its own name, `popular` and `trending` in those of `popularity`."""

ContentOf = Callable[[str, int, Sequence[str]], Float32]
"""From a space's fingerprint and length, and ids of items, to their vectors (N, D); zeros where none is known yet."""
ALS_INDEX: Final = "als.faiss"
"""Of a bundle with many items: its ALS factors to search in. Without one they are searched exactly."""
STORE: Final = "store"
"""Name, among what parts share, of the `ItemStore`."""


class BundleParts:
    """The stages of a bundle, each made when asked for; what several need is read once.

    Args:
        bundle: Opened.
        trending: See `Pipeline.from_bundle`.
        live: What the bundle's items have become since; unset, they are as published.
        well_known: Ids of put items that need no traffic of their own any more.
        content_of: Looks new items' content vectors up, where a heavy encoder makes them; unset, it is run here.
        asking: How sources are asked; unset, in turn.
        editorial: Gives the catalogue's editorial lists; unset, there are none.
    """

    def __init__(
        self,
        bundle: "Bundle",
        trending: Callable[[], Trending | None] | None = None,
        live: LiveItems | None = None,
        well_known: Callable[[], Iterable[str]] = tuple,
        content_of: ContentOf | None = None,
        asking: Asking | None = None,
        editorial: Callable[[], tuple[EditorialList, ...]] = tuple,
    ) -> None:
        self._bundle, self._trending, self._live = bundle, trending, live
        self._well_known, self._content_of, self._asking = well_known, content_of, asking
        self._editorial = editorial
        self._models: dict[str, Any] = {}
        self.config = PipelineConfig.parse(
            bundle.json("pipeline.json"), f"pipeline.json of bundle {bundle.bundle_id}"
        )

    def with_items(self, live: LiveItems) -> "BundleParts":
        """The same models over items that have changed."""
        grown = BundleParts(
            self._bundle, self._trending, live, self._well_known, self._content_of, self._asking,
            self._editorial,
        )  # fmt: skip
        grown._models = self._models
        return grown

    @property
    def columns(self) -> ItemColumns:
        """What models read of the items."""
        return self._items.columns

    @property
    def vectors(self) -> Float32:
        """The item tower's unit vectors (I, D)."""
        return self._vectors

    @property
    def content_vectors(self) -> Float32 | None:
        """Content vectors (I, D) of the items; None where the bundle has none."""
        return self._bundle.index(CONTENT_INDEX).vectors() if self._bundle.has(CONTENT_INDEX) else None

    def encode(self, items: pa.Table) -> Float32:
        """Vectors (W, D) of new items by the item tower, which has no row of their own for them; by content without one."""
        if not self._bundle.has("two_tower.json"):
            return self.encode_content(items)
        tower: NewItemTower = self._once("new items", lambda: self._bundle.towers("two_tower", NewItemTower))
        return tower.encode_items(ItemColumns.from_items(items, self._schema))

    def encode_content(self, items: pa.Table) -> Float32:
        """Content vectors (W, D) of new items."""
        space = self._content_space()
        if self._content_of is None or not is_heavy(space.config):
            return space.encode(items)
        item_ids: list[Any] = items[Column.ITEM_ID].to_pylist()
        return self._content_of(space.fingerprint, space.dim, item_ids)

    def write_facts(self, rows_W: Int32, items: pa.Table) -> None:
        """Puts what the catalogue says of items into the store that the ranker reads, where it reads one."""
        if STORE in self._models:
            self._models[STORE].write(rows_W, items)

    def pipeline(
        self,
        parts: frozenset[Part],
        store_of: Callable[[ItemFacts], ItemStore] = ItemStore,
        overlay: Overlay | None = None,
    ) -> Pipeline:
        """The stages that `parts` need, see `Pipeline.from_bundle`; `overlay` is that of the items, where they are live."""
        ranks = "rank" in parts and self.config.ranker
        return Pipeline(
            self.config,
            retrieval=self.retrieval() if "retrieve" in parts else None,
            hydration=self.hydration(store_of) if ranks else None,
            ranking=self.ranking() if ranks else None,
            reranking=self.reranking() if "rerank" in parts else None,
            overlay=overlay,
            hard_rules=self._hard_rules() if parts >= ALL_PARTS else None,
        )

    def retrieval(self) -> Retrieval:
        """All sources that the config names."""
        sources = {name: self._source(name) for name in self._source_names}
        return Retrieval(sources, self.config.retrieval, self._counts, self._fresh(), self._asking)

    def hydration(self, store_of: Callable[[ItemFacts], ItemStore] = ItemStore) -> Hydration:
        """Features as of the fit of this bundle's sources, and of the request.

        Args:
            store_of: See `Pipeline.from_bundle`.
        """
        parts = (self._items, self._popularity, self._vectors, self._source_names, self.config.hydration)
        ranked = self.config.retrieval.ranked_sources
        if not self.config.hydration.request_features:
            return Hydration(*parts, ranked=ranked)
        items = self._bundle.table("items.parquet")
        store = self._once(STORE, lambda: store_of(ItemFacts.from_items(items)))
        return Hydration(*parts, ServedFeatures(store), ranked)

    def ranking(self) -> Ranking:
        """The DLRM with its calibration."""
        model = self._once("ranker", lambda: self._bundle.model("ranker", Dlrm))
        calibration = Calibration.from_state(self._bundle.json("calibration.json"))
        ranked = self.config.retrieval.ranked_sources
        names = feature_names(ranked, self.config.hydration.request_features)
        return Ranking(model, calibration, self._items, names, self.config.ranking)

    def reranking(self) -> Reranking:
        """The soft rules."""
        items = reranking_items(self._items.columns, self._vectors, self.traits)
        exploration = Exploration(len(self._source_names), self.config.exploration)
        return Reranking(items, self.config.reranking, self._row_of, exploration)

    @property
    def traits(self) -> ItemTraits:
        """What rules read of the items."""
        if self._live is not None and self._live.traits is not None:
            return self._live.traits
        items = self._bundle.table("items.parquet")
        traits: ItemTraits = self._once("traits", lambda: ItemTraits.from_items(items, self._counts))
        return traits

    def _hard_rules(self) -> HardRules:
        """Blocks and filters over the items, which are looked at when a request has such rules."""
        return HardRules(
            lambda: ItemMatcher(self.traits, self._row_of), hard(self.config.reranking.rules), hard_rules_of
        )

    def _source(self, name: str) -> Source:
        if name == "two_tower":
            heeding = SessionVectors(
                self._query_encoder(name), self._vectors, self._row_of, self.config.retrieval.session
            )
            return VectorSource(name, heeding, self.index())
        if name == "content":
            return self._content_source()
        if name == "recent":
            return RecentSource(name, self.index(), self.config.retrieval.recent)
        if name == "nearby":
            tree = self._once("place tree", lambda: PlaceTree(self._fitted_places))
            return NearbySource(name, self._places, tree, self.config.retrieval.nearby)
        if name == EDITORIAL:
            return EditorialSource(name, self._row_of, self._editorial)
        if name == "popular":
            return self._popular(name)
        if name == "trending":
            rows = None if self._trending is None else TrendingRows(self._row_of, self._trending)
            return TrendingSource(name, self._popular(name), rows)
        if name == "als":
            return self._within(self._once("als source", lambda: self._als(name)))
        if name in ("ease", "knn"):
            model = self._once(name, lambda: self._bundle.model(name, ItemItem))
            return self._within(ItemItemSource(name, model))
        raise CompatibilityError(
            "source in pipeline.json",
            value=name,
            limit=f"one of: {', '.join(SOURCES)}",
            mend="publish the bundle again",
        )

    @property
    def places(self) -> Places | None:
        """Where the items are; None where no source reads that."""
        return self._places if "nearby" in self._source_names else None

    @property
    def _places(self) -> Places:
        live = None if self._live is None else self._live.places
        return self._fitted_places if live is None else live

    @property
    def _fitted_places(self) -> Places:
        items = self._bundle.table("items.parquet")
        places: Places = self._once("places", lambda: Places.from_items(items))
        return places

    def _als(self, name: str) -> Source:
        model = self._bundle.model(name, Als)
        if not self._bundle.has(ALS_INDEX):
            return AlsSource(name, model)
        index = self._bundle.index(ALS_INDEX)
        return AlsSource(name, Als(model.config, index.vectors()), index)  # the factors once, not twice

    def _popular(self, name: str) -> PopularSource:
        """By the bundle's own lists, which what is put later stands behind: they are not made anew for it.

        Only where nobody took anything are they lists of the newest, and what is put later the newest of all.
        """
        num_items = len(self._bundle.item_ids) if self._live is None else self._live.overlay.num_items
        if not self._fitted_popularity.counts_I.any():
            return PopularSource(name, self._popularity)
        heads = self._once("popular heads", lambda: PopularHeads(self._fitted_popularity))
        return PopularSource(name, heads, num_items)

    def _fresh(self) -> Source:
        items, config = self._bundle.table("items.parquet"), self.config.exploration
        pool = self._once("pool", lambda: bundle_pool(self._counts, _created_ms(items), config))
        overlay = Overlay.none(len(items)) if self._live is None else self._live.overlay
        return FreshSource(overlay.num_bundle, overlay.num_items, pool, config, self._known_rows)

    def _known_rows(self) -> list[int]:
        return [row for item_id in self._well_known() if (row := self._row_of(item_id)) is not None]

    @property
    def _counts(self) -> Float32:
        return self._fitted_popularity.counts_I

    def _query_encoder(self, name: str) -> QueryVectors:
        encoder: QueryEncoder = self._once(name, lambda: self._bundle.towers(name, QueryEncoder))
        if self._live is None:
            return encoder
        return BundleHistories(encoder, self._vectors, self._live.overlay.num_bundle)

    def index(self) -> "VectorIndex":
        """The items by the item tower's vectors."""
        return self._grown(self._bundle.index(), self._vectors)

    def text_search(self) -> TextSearch | None:
        """Finds items by text; None in a bundle without a content space."""
        if not self._bundle.has(CONTENT_INDEX):
            return None
        return TextSearch(self._content_space(), self._content_index(), self._content_source())

    def _content_source(self) -> ContentSource:
        return ContentSource("content", self._content_index(), self._row_of, self.config.retrieval.content)

    def _content_space(self) -> ContentSpace:
        space: ContentSpace = self._once("content", lambda: self._bundle.model("content", ContentSpace))
        return space

    def _content_index(self) -> "VectorIndex":
        index = self._bundle.index(CONTENT_INDEX)
        vectors_ID = None if self._live is None else self._live.content_ID
        return index if vectors_ID is None else self._grown(index, vectors_ID)

    def _within(self, source: Source) -> Source:
        return source if self._live is None else WithinBundle(source, self._live.overlay.num_bundle)

    def _grown(self, index: "VectorIndex", vectors_ID: Float32) -> "VectorIndex":
        return index if len(vectors_ID) == index.num_items else ExtendedIndex(index, vectors_ID)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        """A model, shared by all that grow from these parts."""
        if name not in self._models:
            self._models[name] = make()
        return self._models[name]

    def _row_of(self, item_id: str) -> int | None:
        if self._live is None:
            return self._bundle.index_of(item_id)
        row = self._live.row_of(item_id)  # which may be of an item that came after these
        return row if row is not None and row < self._live.overlay.num_items else None

    @cached_property
    def _source_names(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.config.retrieval.sources)

    @cached_property
    def _items(self) -> RankingItems:
        if self._live is None:
            return RankingItems(ItemColumns.from_items(self._bundle.table("items.parquet"), self._schema))
        items = RankingItems(self._live.columns, self._live.overlay.num_bundle)
        items.prepare()
        return items

    @cached_property
    def _schema(self) -> FeatureSchema:
        return FeatureSchema.parse(self._bundle.json("features.json"), "features.json")

    @cached_property
    def _popularity(self) -> Popularity:
        fitted = self._fitted_popularity
        return fitted if self._live is None else fitted.padded(self._live.overlay.num_items)

    @property
    def _fitted_popularity(self) -> Popularity:
        fitted: Popularity = self._once("popularity", lambda: self._bundle.model("popularity", Popularity))
        return fitted

    @property
    def _vectors(self) -> Float32:
        """The item tower's unit vectors (I, D), in the index's own memory while nothing was added."""
        return self._bundle.index().vectors() if self._live is None else self._live.vectors_ID


def _created_ms(items: pa.Table) -> Float64:
    """When each item came to be (I,), NaN where that is unknown."""
    if Column.CREATED_AT_MS not in items.column_names:
        return np.full(len(items), np.nan)
    moments: Any = items[Column.CREATED_AT_MS].cast(pa.float64())
    return np.asarray(moments.to_numpy(), np.float64)


def reranking_items(
    columns: ItemColumns, vectors_ID: Float32, traits: ItemTraits | None = None
) -> RerankingItems:
    """What reranking knows of the items; row 0 of categories, which stands for unknown, becomes -1."""
    return RerankingItems(vectors_ID, columns.category_row_I - 1, traits)


def write_pipeline(
    writer: "BundleWriter", config: PipelineConfig, model: Dlrm, calibration: Calibration
) -> None:
    """Adds what the stages need beside sources, items and index: `pipeline.json`, `ranker.*`, `calibration.json`."""
    writer.add_json("pipeline.json", config.model_dump(mode="json"))
    writer.add_model("ranker", model)
    writer.add_json("calibration.json", calibration.config_dict())
