"""Makes the stages from a bundle's files, and writes the files that only the stages know.

Shape letters: I catalogue, D dimension.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from tastemaker.errors import CompatibilityError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_items import RankingItems
from tastemaker.models.als import Als
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm
from tastemaker.models.item_item import ItemItem
from tastemaker.models.popularity import Popularity
from tastemaker.models.two_tower import QueryEncoder
from tastemaker.stages.hydration import Hydration, feature_names
from tastemaker.stages.pipeline import PipelineConfig
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.reranking import Reranking, RerankingItems
from tastemaker.stages.retrieval import (
    AlsSource,
    ItemItemSource,
    PopularSource,
    Retrieval,
    Source,
    TwoTowerSource,
)
from tastemaker.types import Float32

if TYPE_CHECKING:
    from tastemaker.bundle.reader import Bundle
    from tastemaker.bundle.writer import BundleWriter

SOURCES = ("two_tower", "ease", "knn", "als", "popular")
"""Sources that a bundle can hold. Each lies in files of its own name, `popular` in those of `popularity`."""


class BundleParts:
    """The stages of a bundle, each made when asked for; what several need is read once."""

    def __init__(self, bundle: "Bundle") -> None:
        self._bundle = bundle
        self.config = PipelineConfig.parse(
            bundle.json("pipeline.json"), f"pipeline.json of bundle {bundle.bundle_id}"
        )

    def retrieval(self) -> Retrieval:
        """All sources that the config names."""
        sources = {name: self._source(name) for name in self._source_names}
        return Retrieval(sources, self.config.retrieval)

    def hydration(self) -> Hydration:
        """Features as of the fit of this bundle's sources."""
        return Hydration(
            self._items, self._popularity, self._vectors, self._source_names, self.config.hydration
        )

    def ranking(self) -> Ranking:
        """The DLRM with its calibration."""
        model = self._bundle.model("ranker", Dlrm)
        calibration = Calibration.from_state(self._bundle.json("calibration.json"))
        names = feature_names(self._source_names)
        return Ranking(model, calibration, self._items, names, self.config.ranking)

    def reranking(self) -> Reranking:
        """The soft rules."""
        return Reranking(reranking_items(self._items.columns, self._vectors), self.config.reranking)

    def _source(self, name: str) -> Source:
        if name == "two_tower":
            return TwoTowerSource(name, self._bundle.towers(name, QueryEncoder), self._bundle.index())
        if name == "popular":
            return PopularSource(name, self._popularity)
        if name == "als":
            return AlsSource(name, self._bundle.model(name, Als))
        if name in ("ease", "knn"):
            return ItemItemSource(name, self._bundle.model(name, ItemItem))
        raise CompatibilityError(
            "source in pipeline.json",
            value=name,
            limit=f"one of: {', '.join(SOURCES)}",
            mend="publish the bundle again",
        )

    @cached_property
    def _source_names(self) -> tuple[str, ...]:
        return tuple(source.name for source in self.config.retrieval.sources)

    @cached_property
    def _items(self) -> RankingItems:
        schema = FeatureSchema.parse(self._bundle.json("features.json"), "features.json")
        return RankingItems(ItemColumns.from_items(self._bundle.table("items.parquet"), schema))

    @cached_property
    def _popularity(self) -> Popularity:
        return self._bundle.model("popularity", Popularity)

    @property
    def _vectors(self) -> Float32:
        """The item tower's unit vectors (I, D), in the index's own memory."""
        return self._bundle.index().vectors()


def reranking_items(columns: ItemColumns, vectors_ID: Float32) -> RerankingItems:
    """What reranking knows of the items; row 0 of categories, which stands for unknown, becomes -1."""
    return RerankingItems(vectors_ID, columns.category_row_I - 1)


def write_pipeline(
    writer: "BundleWriter", config: PipelineConfig, model: Dlrm, calibration: Calibration
) -> None:
    """Adds what the stages need beside sources, items and index: `pipeline.json`, `ranker.*`, `calibration.json`."""
    writer.add_json("pipeline.json", config.model_dump(mode="json"))
    writer.add_model("ranker", model)
    writer.add_json("calibration.json", calibration.config_dict())
