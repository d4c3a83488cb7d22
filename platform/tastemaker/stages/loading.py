"""Makes the stages from a bundle's files, and writes the files that only the stages know.

Shape letters: I catalogue, D dimension, W new items.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from tastemaker.features.columns import ItemColumns
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.places import Places
from tastemaker.features.served_features import ServedFeatures
from tastemaker.features.traits import ItemTraits
from tastemaker.features.trending import Trending
from tastemaker.features.well_known import Tried
from tastemaker.models.calibration import Calibration
from tastemaker.models.cold.later import KnowsLater
from tastemaker.models.rankers import AnyRanker, Ranker
from tastemaker.models.two_tower import NewItemTower
from tastemaker.stages.asking import Asking
from tastemaker.stages.bundle_models import BundleModels
from tastemaker.stages.bundle_sources import BundleSources
from tastemaker.stages.bundle_zoo import GrowingModel, has_model
from tastemaker.stages.business_rules import HardRules, hard
from tastemaker.stages.content import CONTENT_INDEX
from tastemaker.stages.editorial import EditorialList
from tastemaker.stages.exploring import Exploration
from tastemaker.stages.hydration import Hydration, feature_names
from tastemaker.stages.live_items import ContentOf, LiveItems, LiveVectors, content_vectors
from tastemaker.stages.matching import ItemMatcher
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.policy import hard_rules_of
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval
from tastemaker.stages.shards import OwnRows
from tastemaker.stages.text_search import TextSearch
from tastemaker.types import Float32, Int32, VectorRows

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.writer import BundleWriter
    from tastemaker.index.vector_index import VectorIndex

STORE: Final = "store"
"""Name, among what parts share, of the `ItemStore`."""


class BundleParts:
    """The stages of a bundle, each made when asked for; what several need is read once.

    Args:
        bundle: Opened.
        trending: See `Pipeline.from_bundle`.
        live: What the bundle's items have become since; unset, they are as published.
        tried: How often put items were shown and clicked, by id.
        content_of: Looks new items' content vectors up, where a heavy encoder makes them; unset, it is run here.
        asking: How sources are asked; unset, in turn.
        editorial: Gives the catalogue's editorial lists; unset, there are none.
    """

    def __init__(
        self,
        bundle: "Bundle",
        trending: Callable[[], Trending | None] | None = None,
        live: LiveItems | None = None,
        tried: Callable[[], Mapping[str, Tried]] = dict,
        content_of: ContentOf | None = None,
        asking: Asking | None = None,
        editorial: Callable[[], tuple[EditorialList, ...]] = tuple,
    ) -> None:
        self._bundle, self._trending = bundle, trending
        self._tried, self._content_of, self._asking = tried, content_of, asking
        self._editorial = editorial
        self._models = BundleModels(bundle, live)
        self.config = PipelineConfig.parse(
            bundle.json("pipeline.json"), f"pipeline.json of bundle {bundle.bundle_id}"
        )

    def with_items(self, live: LiveItems) -> "BundleParts":
        """The same models over items that have changed."""
        grown = BundleParts(
            self._bundle, self._trending, live, self._tried, self._content_of, self._asking,
            self._editorial,
        )  # fmt: skip
        grown._models = self._models.with_items(live)
        return grown

    @property
    def columns(self) -> ItemColumns:
        """What models read of the items."""
        return self._models.items.columns

    @property
    def own(self) -> OwnRows | None:
        """Rows that are proposed here; None: all."""
        return self._models.own

    def growing_vectors(self) -> LiveVectors:
        """The item tower's unit vectors, of new items."""
        index = self._bundle.searched()
        return LiveVectors(index.num_items, index.dim, self.encode)

    def growing_content(self) -> LiveVectors | None:
        """Content vectors, likewise; None where the bundle has none."""
        if not self._bundle.has(CONTENT_INDEX):
            return None
        index = self._bundle.searched(CONTENT_INDEX)
        return LiveVectors(index.num_items, index.dim, self.encode_content)

    @property
    def traits(self) -> ItemTraits:
        """What rules read of the items."""
        return self._models.traits

    @property
    def places(self) -> Places | None:
        """Where the items are; None where no source reads that."""
        return self._models.places if "nearby" in self._source_names else None

    def encode(self, items: pa.Table) -> Float32:
        """Vectors (W, D) of new items by the item tower, which has no row of their own for them; by content without one."""
        if not self._bundle.has("two_tower.json"):
            return self.encode_content(items)
        models = self._models
        tower: NewItemTower = models.once("new items", lambda: self._bundle.towers("two_tower", NewItemTower))
        return tower.encode_items(ItemColumns.from_items(items, models.schema))

    def encode_content(self, items: pa.Table) -> Float32:
        """Content vectors (W, D) of new items."""
        return content_vectors(self._models.content_space(), items, self._content_of)

    def growing_models(self) -> dict[str, GrowingModel]:
        """By source, the models that know items which came after the bundle, for those to be added."""
        found = {}
        for name in self._source_names:
            if has_model(self._bundle, name):
                zoo = self._models.zoo(name)
                if isinstance(zoo.model, KnowsLater) and zoo.model.knows_later:
                    assert zoo.index is not None, "who knows later items has vectors"
                    found[name] = GrowingModel(zoo.model, zoo.index, self._content_of)
        return found

    def write_facts(self, rows_W: Int32, items: pa.Table) -> None:
        """Puts what the catalogue says of items into the store that the ranker reads, where it reads one."""
        if STORE in self._models.shared:
            self._models.shared[STORE].write(rows_W, items)

    def retrieval(self) -> Retrieval:
        """All sources that the config names."""
        sources = self._sources()
        counts_I = self._models.fitted_popularity.counts_I
        return Retrieval(
            sources.named(), self.config.retrieval, counts_I, sources.fresh(), self._asking, self._models.own
        )

    def hydration(self, store_of: Callable[[ItemFacts], ItemStore] = ItemStore) -> Hydration:
        """Features as of the fit of this bundle's sources, and of the request.

        Args:
            store_of: See `Pipeline.from_bundle`.
        """
        models = self._models
        parts = (
            models.items,
            models.popularity,
            models.vectors,
            self._source_names,
            self.config.hydration,
        )
        ranked = self.config.retrieval.ranked_sources
        if not self.config.hydration.request_features:
            return Hydration(*parts, ranked=ranked)
        items = self._bundle.table("items.parquet")
        store = models.once(STORE, lambda: store_of(ItemFacts.from_items(items, self._bundle.rows)))
        return Hydration(*parts, ServedFeatures(store), ranked)

    def ranking(self) -> Ranking:
        """The ranker with its calibration."""
        model = self._models.once("ranker", lambda: self._bundle.model("ranker", AnyRanker))
        calibration = Calibration.from_state(self._bundle.json("calibration.json"))
        ranked = self.config.retrieval.ranked_sources
        names = feature_names(ranked, self.config.hydration.request_features)
        return Ranking(model, calibration, self._models.items, names, self.config.ranking)

    def reranking(self) -> Reranking:
        """The soft rules."""
        models = self._models
        items = reranking_items(models.items.columns, models.vectors, models.traits)
        exploration = Exploration(len(self._source_names), self.config.exploration)
        return Reranking(items, self.config.reranking, models.row_of, exploration)

    def index(self) -> "VectorIndex":
        """The items by the item tower's vectors."""
        return self._models.index()

    def text_search(self) -> TextSearch | None:
        """Finds items by text; None in a bundle without a content space."""
        if not self._bundle.has(CONTENT_INDEX):
            return None
        models = self._models
        return TextSearch(models.content_space(), models.content_index(), self._sources().content())

    def hard_rules(self) -> HardRules:
        """Blocks and filters over the items, which are looked at when a request has such rules."""
        models = self._models
        return HardRules(
            lambda: ItemMatcher(models.traits, models.row_of),
            hard(self.config.reranking.rules),
            hard_rules_of,
        )

    def _sources(self) -> BundleSources:
        return BundleSources(self._models, self.config, self._trending, self._tried, self._editorial)

    @property
    def _source_names(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.config.retrieval.sources)


def reranking_items(
    columns: ItemColumns, vectors_ID: VectorRows, traits: ItemTraits | None = None
) -> RerankingItems:
    """What reranking knows of the items; row 0 of categories, which stands for unknown, becomes -1."""
    return RerankingItems(vectors_ID, columns.category_row_I - 1, traits)


def write_pipeline(
    writer: "BundleWriter", config: PipelineConfig, model: Ranker, calibration: Calibration
) -> None:
    """Adds what the stages need beside sources, items and index: `pipeline.json`, `ranker.*`, `calibration.json`."""
    writer.add_json("pipeline.json", config.model_dump(mode="json"))
    writer.add_model("ranker", model)
    writer.add_json("calibration.json", calibration.config_dict())
