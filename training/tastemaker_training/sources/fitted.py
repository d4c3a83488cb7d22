"""The fitted retrievers of one of the two fits, put together as the stages that serve and as files of a bundle.

Shape letters: I catalogue, D dimension.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.evaluation.index_queries import queries_of
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.places import Places
from tastemaker.features.ranking_items import RankingItems
from tastemaker.features.traits import ItemTraits
from tastemaker.features.vocabulary import Vocabulary
from tastemaker.index.building import Built, build_index
from tastemaker.index.config import IndexConfig, MeasuredIndex
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import IndexQueries, measure
from tastemaker.models.als import Als
from tastemaker.models.calibration import Calibration
from tastemaker.models.item_item import ItemItem
from tastemaker.models.rankers import Ranker
from tastemaker.models.recommender import Recommender
from tastemaker.models.two_tower import TwoTower
from tastemaker.stages.business_rules import HardRules, hard
from tastemaker.stages.editorial import EDITORIAL, EditorialSource
from tastemaker.stages.hydration import Hydration, RequestFeatures
from tastemaker.stages.loading import reranking_items
from tastemaker.stages.matching import ItemMatcher
from tastemaker.stages.model_source import ModelSource
from tastemaker.stages.nearby import NearbySource, PlaceTree
from tastemaker.stages.nearest import RecentSource, VectorSource
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.policy import hard_rules_of
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval
from tastemaker.stages.session import SessionConfig, SessionVectors
from tastemaker.stages.source import Source
from tastemaker.types import Float32
from tastemaker_training.artifacts import load_model, map_model
from tastemaker_training.sources.als_index import add_als_index
from tastemaker_training.sources.content import Content
from tastemaker_training.sources.memory import Memory, load_memory
from tastemaker_training.sources.zoo_models import add_zoo_models, load_zoo_model

NUM_MEASURED = 200
"""Users whose vectors the index is fitted to, and as many others that it is measured with when it is released."""


@dataclass(frozen=True)
class Fitted:
    """Retrievers of one fit."""

    dataset: Dataset
    columns: ItemColumns
    memory: Memory
    two_tower: TwoTower
    vocabulary: Vocabulary
    built: Built
    content: Content | None = None
    models: Mapping[str, Recommender] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        dataset: Dataset,
        memory: Path,
        two_tower: Path,
        fit: str,
        content: Path | None,
        indexes: tuple[IndexConfig, IndexConfig],
        models: Mapping[str, Path],
    ) -> "Fitted":
        """The retrievers of `fit` in the folders of the artifacts; of `content` there is one fit, on the items.

        Args:
            dataset: What they were fitted on.
            memory: Folder of the solved models.
            two_tower: Folder of the two-tower.
            fit: Which of the two fits.
            content: Folder of the content vectors, where a source reads them.
            indexes: How the item tower's vectors are searched, and content vectors.
            models: Folders of the recipe's further models.
        """
        columns = ItemColumns.from_items(dataset.items, FeatureSchema.fit(dataset.items))
        model = map_model(two_tower / fit, "two_tower", TwoTower)
        vectors_ID = model.encode_items(columns)
        built = build_index(vectors_ID, indexes[0], _queries(dataset, model, vectors_ID).half(0).vectors_BD)
        vocabulary = load_model(two_tower / fit, "vocabulary", Vocabulary)
        found = None if content is None else Content.load(content, indexes[1])
        others = {name: load_zoo_model(folder, fit) for name, folder in models.items()}
        return cls(dataset, columns, load_memory(memory, fit), model, vocabulary, built, found, others)

    @property
    def index(self) -> FaissIndex:
        """Of the item tower's vectors."""
        return self.built.index

    @property
    def _rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.dataset.item_ids)}

    @property
    def items(self) -> RankingItems:
        """What ranking knows of the items."""
        return RankingItems(self.columns)

    def two_tower_source(self, session: SessionConfig | None = None) -> Source:
        """The two-tower over its index; it heeds sessions where `session` says how."""
        if session is None:
            return VectorSource("two_tower", self.two_tower, self.index)
        vectors = SessionVectors(self.two_tower, self.index.vectors(), self._rows.get, session)
        return VectorSource("two_tower", vectors, self.index)

    def model_source(self, name: str) -> Source:
        """One of the further models."""
        return ModelSource(name, self.models[name])

    def retrieval(self, config: PipelineConfig) -> Retrieval:
        """The sources that the pipeline names."""
        row, places = self._rows.get, Places.from_items(self.dataset.items)
        sources: dict[str, Source] = {
            **self.memory.sources(),
            "two_tower": self.two_tower_source(config.retrieval.session),
            "recent": RecentSource("recent", self.index, config.retrieval.recent),
            "nearby": NearbySource("nearby", places, PlaceTree(places), config.retrieval.nearby),
            EDITORIAL: EditorialSource(EDITORIAL, row),
        }
        named = {source.name for source in config.retrieval.sources}
        sources |= {name: self.model_source(name) for name in self.models if name in named}
        if self.content is not None:
            sources["content"] = self.content.source(self.dataset, config.retrieval.content)
        return Retrieval(sources, config.retrieval, self.memory.popularity.counts_I)

    def hydration(self, config: PipelineConfig, request_features: RequestFeatures | None) -> Hydration:
        """Features as of this fit, and of the requests as `request_features` gives them."""
        names = [source.name for source in config.retrieval.sources]
        parts = (self.items, self.memory.popularity, self.index.vectors(), names, config.hydration)
        return Hydration(*parts, request_features, config.retrieval.ranked_sources)

    def pipeline(
        self,
        config: PipelineConfig,
        model: Ranker,
        calibration: Calibration,
        request_features: RequestFeatures | None,
    ) -> Pipeline:
        """All stages; `request_features` gives what the config names of them."""
        hydration = self.hydration(config, request_features)
        row = {item_id: i for i, item_id in enumerate(self.dataset.item_ids)}
        counts_I = self.memory.popularity.counts_I
        matcher = ItemMatcher(ItemTraits.from_items(self.dataset.items, counts_I), row.get)
        return Pipeline(
            config,
            retrieval=self.retrieval(config),
            hydration=hydration,
            ranking=Ranking(model, calibration, self.items, hydration.feature_names, config.ranking),
            reranking=Reranking(
                reranking_items(self.columns, self.index.vectors(), matcher.traits),
                config.reranking,
                matcher.row_of,
            ),
            hard_rules=HardRules(lambda: matcher, hard(config.reranking.rules), hard_rules_of),
        )

    def add_to(self, writer: BundleWriter, config: PipelineConfig) -> None:
        """Adds items, vocabularies, towers, index and the sources that the pipeline names."""
        writer.add_table("items.parquet", self.dataset.items)
        writer.add_json("features.json", self.columns.schema.model_dump(mode="json"))
        writer.add_towers("two_tower", self.two_tower, lambda name: name.startswith("tables."))
        writer.add_model("item_vocabulary", self.vocabulary)
        writer.add_index("index.faiss", self.index, measured=self._measured())
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
            if source.name == "als":
                add_als_index(writer, self.memory.recent_als, self.dataset)
        add_zoo_models(
            writer, self.models, [source.name for source in config.retrieval.sources], self.dataset
        )

    def _measured(self) -> MeasuredIndex:
        """What searches for users' vectors find and cost."""
        queries = _queries(self.dataset, self.two_tower, self.index.vectors()).half(1)
        return measure(self.index, queries.vectors_BD, queries.kind, self.built.seconds)


def _queries(dataset: Dataset, model: TwoTower, vectors_ID: Float32) -> IndexQueries:
    rows = np.arange(dataset.num_items, dtype=np.int32)
    return queries_of(model, dataset, rows, vectors_ID, 2 * NUM_MEASURED)
