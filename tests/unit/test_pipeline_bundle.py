"""A pipeline goes into a bundle and comes out of it as it was."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo, TimeRange
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.errors import BundleError, CompatibilityError, ServingError
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.ranking_items import RankingItems
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.item_item import ItemItem, fit_ease
from tastemaker.models.popularity import Popularity, fit_popularity
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.stages.hydration import Hydration
from tastemaker.stages.loading import reranking_items, write_pipeline
from tastemaker.stages.nearest import AlsSource, VectorSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.pipeline_config import PipelineConfig
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.ranking import Ranking
from tastemaker.stages.reranking import Reranking
from tastemaker.stages.retrieval import Retrieval
from tastemaker.types import Query

NUM_ITEMS = 30
YEAR_MS = 31_556_952_000
SOURCES = [{"name": name, "quota": 15} for name in ("two_tower", "ease", "als", "popular")]
CONFIG = PipelineConfig.parse({"retrieval": {"sources": SOURCES, "num_candidates": 25}}, "test")
INFO = BundleInfo(
    dataset=DatasetInfo(
        fingerprint="f" * 64,
        retrievers=TimeRange(start_ms=1, end_ms=9),
        ranker=TimeRange(start_ms=5, end_ms=9),
    ),
    recipe="test",
    training_id="t1",
)


@dataclass
class Models:
    items: pa.Table
    schema: FeatureSchema
    two_tower: TwoTower
    ease: ItemItem
    als: Als
    popularity: Popularity
    ranker: Dlrm
    calibration: Calibration
    index: FaissIndex
    pipeline: Pipeline


@pytest.fixture(scope="module")
def models() -> Models:
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    rows = range(NUM_ITEMS)
    items = pa.table(
        {
            "item_id": [f"é{i}" for i in rows],
            "title": [f"Title {i}" for i in rows],
            "category": ["", "Drama", "Comedy"] * 10,
            "tags": [[], ["Drama"], ["Comedy", "Noir"]] * 10,
            "created_at_ms": [None if i % 7 == 0 else i * YEAR_MS for i in rows],
        },
        schema=ITEMS_SCHEMA,
    )
    schema = FeatureSchema.fit(items)
    columns = ItemColumns.from_items(items, schema)
    taken = generator.random((50, NUM_ITEMS)) < 0.2
    item_index = np.nonzero(taken)[1].astype(np.int32)
    ease = fit_ease(sp.csr_matrix(taken, dtype=np.float32), 10.0, half_life=5.0)
    als = Als(AlsConfig(dim=4), generator.normal(size=(NUM_ITEMS, 4)).astype(np.float32))
    popularity = fit_popularity(item_index, np.arange(len(item_index)), NUM_ITEMS)
    config = TwoTowerConfig(dim=8)
    two_tower = TwoTower(config, two_tower_specs(config, schema)).eval()
    index = FaissIndex.build(two_tower.encode_items(columns))
    sources = {
        "two_tower": VectorSource("two_tower", two_tower, index),
        "ease": ItemItemSource("ease", ease),
        "als": AlsSource("als", als),
        "popular": PopularSource("popular", popularity),
    }
    retrieval = Retrieval(sources, CONFIG.retrieval)
    ranking_items = RankingItems(columns)
    hydration = Hydration(ranking_items, popularity, index.vectors(), retrieval.source_names)
    ranker = Dlrm(
        DlrmConfig(
            dense_features=hydration.feature_names,
            num_tags=schema.num_tags,
            num_years=schema.num_years,
            num_categories=schema.num_categories,
        )
    )
    torch.nn.init.normal_(ranker.wide.weight)
    calibration = Calibration(slope=0.7, intercept=-2.0)
    pipeline = Pipeline(
        CONFIG,
        retrieval=retrieval,
        hydration=hydration,
        ranking=Ranking(ranker, calibration, ranking_items, hydration.feature_names),
        reranking=Reranking(reranking_items(columns, index.vectors())),
    )
    return Models(items, schema, two_tower, ease, als, popularity, ranker, calibration, index, pipeline)


def write(
    models: Models, store: BundleStore, config: PipelineConfig = CONFIG, without: str = ""
) -> BundleRef:
    writer = BundleWriter(store, "default")
    writer.add_table("items.parquet", models.items)
    writer.add_json("features.json", models.schema.model_dump(mode="json"))
    writer.add_towers("two_tower", models.two_tower, is_item=lambda name: "embedding_bags" in name)
    writer.add_index("index.faiss", models.index)
    for name in ("ease", "als", "popularity"):
        if name != without:
            writer.add_model(name, getattr(models, name))
    write_pipeline(writer, config, models.ranker, models.calibration)
    return writer.commit(INFO)


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path)


QUERIES = [
    Query(np.array([4, 8, 1], np.int32), k=8),
    Query(np.empty(0, np.int32), k=5),
    Query(np.array([2], np.int32), k=20, exclude=np.array([3], np.int32)),
]


@pytest.mark.parametrize("until", ["retrieve", "rank", "rerank"])
def test_released_pipeline_answers_as_the_trained_one(models: Models, store: BundleStore, until: str) -> None:
    released = Pipeline.from_bundle(Bundle.open(store, write(models, store)))
    trained = models.pipeline.recommend(QUERIES, until)
    for got, expected in zip(released.recommend(QUERIES, until), trained, strict=True):
        assert got.item_index.tolist() == expected.item_index.tolist()
        assert got.score.tolist() == expected.score.tolist()
        assert len(got) > 0


def test_parts_in_several_processes_answer_as_the_whole(models: Models, store: BundleStore) -> None:
    ref = write(models, store)
    retriever, ranker, reranker = (
        Pipeline.from_bundle(Bundle.open(store, ref), frozenset({part}))
        for part in ("retrieve", "rank", "rerank")
    )
    ranked = ranker.rank(QUERIES, retriever.retrieve(QUERIES))
    spread = reranker.finish(QUERIES, reranker.rerank(QUERIES, ranked))
    for got, expected in zip(spread, models.pipeline.recommend(QUERIES), strict=True):
        assert got.item_index.tolist() == expected.item_index.tolist()
    with pytest.raises(ServingError, match="no stage of part retrieve"):
        ranker.retrieve(QUERIES)


def test_missing_source_is_named(models: Models, store: BundleStore) -> None:
    bundle = Bundle.open(store, write(models, store, without="als"))
    with pytest.raises(BundleError, match=r"has no file als\.json"):
        Pipeline.from_bundle(bundle)
    Pipeline.from_bundle(bundle, frozenset({"rank", "rerank"}))


def test_unknown_source_is_refused(models: Models, store: BundleStore) -> None:
    config = PipelineConfig.parse({"retrieval": {"sources": [*SOURCES, {"name": "tea_leaves"}]}}, "test")
    with pytest.raises(
        CompatibilityError, match=r"source in pipeline\.json, is 'tea_leaves', must be one of: two_tower"
    ):
        Pipeline.from_bundle(Bundle.open(store, write(models, store, config)))


def test_ranker_of_other_sources_is_refused(models: Models, store: BundleStore) -> None:
    config = PipelineConfig.parse({"retrieval": {"sources": SOURCES[1:]}}, "test")
    with pytest.raises(CompatibilityError, match="features of the ranker"):
        Pipeline.from_bundle(Bundle.open(store, write(models, store, config)))
