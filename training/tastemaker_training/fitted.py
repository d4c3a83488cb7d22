"""The fitted retrievers of one of the two fits, put together as the stages that serve and as files of a bundle.

Shape letters: I catalogue, D dimension.
"""

from dataclasses import dataclass
from pathlib import Path

from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_items import RankingItems
from tastemaker.features.vocabulary import Vocabulary
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm
from tastemaker.models.item_item import ItemItem
from tastemaker.models.two_tower import TwoTower
from tastemaker.stages.hydration import Hydration, RequestFeatures
from tastemaker.stages.loading import reranking_items
from tastemaker.stages.pipeline import Pipeline, PipelineConfig
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval, Source, TwoTowerSource
from tastemaker.stages.session import SessionConfig, SessionVectors
from tastemaker_training.artifacts import load_model, map_model
from tastemaker_training.content import Content
from tastemaker_training.memory import Memory, load_memory


@dataclass(frozen=True)
class Fitted:
    """Retrievers of one fit."""

    dataset: Dataset
    columns: ItemColumns
    memory: Memory
    two_tower: TwoTower
    vocabulary: Vocabulary
    index: FaissIndex
    content: Content | None = None

    @classmethod
    def load(
        cls, dataset: Dataset, memory: Path, two_tower: Path, fit: str, content: Path | None = None
    ) -> "Fitted":
        """The retrievers of `fit` in the folders of the artifacts; of `content` there is one fit, on the items."""
        columns = ItemColumns.from_items(dataset.items, FeatureSchema.fit(dataset.items))
        model = map_model(two_tower / fit, "two_tower", TwoTower)
        index = FaissIndex.build(model.encode_items(columns))
        vocabulary = load_model(two_tower / fit, "vocabulary", Vocabulary)
        found = None if content is None else Content.load(content)
        return cls(dataset, columns, load_memory(memory, fit), model, vocabulary, index, found)

    @property
    def items(self) -> RankingItems:
        """What ranking knows of the items."""
        return RankingItems(self.columns)

    def two_tower_source(self, session: SessionConfig | None = None) -> Source:
        """The two-tower over its index; it heeds sessions where `session` says how."""
        if session is None:
            return TwoTowerSource("two_tower", self.two_tower, self.index)
        row = {item_id: i for i, item_id in enumerate(self.dataset.item_ids)}
        vectors = SessionVectors(self.two_tower, self.index.vectors(), row.get, session)
        return TwoTowerSource("two_tower", vectors, self.index)

    def retrieval(self, config: PipelineConfig) -> Retrieval:
        """The sources that the pipeline names."""
        sources = self.memory.sources() | {"two_tower": self.two_tower_source(config.retrieval.session)}
        if self.content is not None:
            sources["content"] = self.content.source(self.dataset, config.retrieval.content)
        return Retrieval(sources, config.retrieval, self.memory.popularity.counts_I)

    def hydration(self, config: PipelineConfig, request_features: RequestFeatures | None) -> Hydration:
        """Features as of this fit, and of the requests as `request_features` gives them."""
        names = [source.name for source in config.retrieval.sources]
        parts = (self.items, self.memory.popularity, self.index.vectors(), names, config.hydration)
        return Hydration(*parts, request_features)

    def pipeline(
        self,
        config: PipelineConfig,
        model: Dlrm,
        calibration: Calibration,
        request_features: RequestFeatures | None,
    ) -> Pipeline:
        """All stages; `request_features` gives what the config names of them."""
        hydration = self.hydration(config, request_features)
        return Pipeline(
            config,
            retrieval=self.retrieval(config),
            hydration=hydration,
            ranking=Ranking(model, calibration, self.items, hydration.feature_names, config.ranking),
            reranking=Reranking(reranking_items(self.columns, self.index.vectors()), config.reranking),
        )

    def add_to(self, writer: BundleWriter, config: PipelineConfig) -> None:
        """Adds items, vocabularies, towers, index and the sources that the pipeline names."""
        writer.add_table("items.parquet", self.dataset.items)
        writer.add_json("features.json", self.columns.schema.model_dump(mode="json"))
        writer.add_towers("two_tower", self.two_tower, lambda name: name.startswith("tables."))
        writer.add_model("item_vocabulary", self.vocabulary)
        writer.add_index("index.faiss", self.index)
        writer.add_model("popularity", self.memory.popularity)
        if self.content is not None:
            self.content.add_to(writer)
        solved: dict[str, ItemItem | Als] = {
            "ease": self.memory.recent_ease,
            "knn": self.memory.recent_item_knn,
            "als": self.memory.recent_als,
        }
        for source in config.retrieval.sources:
            if source.name in solved:
                writer.add_model(source.name, solved[source.name])
