"""A bundle made by hand: items of four tags, and towers that know an item by its tag alone.

Item i has tag t{i % 4}; a history of items of a tag is nearest to all items of that tag, new ones included.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
import torch

from tastemaker.bundle.manifest import BundleInfo, BundleRef, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.content import ContentSpace
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig
from tastemaker.models.item_item import ItemItem, fit_ease
from tastemaker.models.popularity import Popularity, fit_popularity
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.stages.content import CONTENT_INDEX
from tastemaker.stages.hydration import feature_names
from tastemaker.stages.loading import write_pipeline
from tastemaker.stages.pipeline_config import PipelineConfig

NUM_ITEMS, NUM_TAGS, DIM = 24, 4, 8
SOURCES = ("two_tower", "ease", "als", "popular")


def items_table(item_ids: list[str] | None = None) -> pa.Table:
    ids = [f"i{i}" for i in range(NUM_ITEMS)] if item_ids is None else item_ids
    rows = [
        {
            "item_id": item_id, "title": item_id, "category": f"c{i % NUM_TAGS}", "tags": [f"t{i % NUM_TAGS}"],
            "created_at_ms": None,
        }
        for i, item_id in enumerate(ids)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, ITEMS_SCHEMA)


def two_tower(schema: FeatureSchema, columns: ItemColumns) -> TwoTower:
    """Row 0 of the table of items is that of unknown ones: zeros."""
    num = schema.num_items
    config = TwoTowerConfig(dim=DIM, half_life=None)
    torch.manual_seed(0)
    model = TwoTower(config, two_tower_specs(config, schema, num + 1), item_rows=np.arange(1, num + 1)).eval()
    direction = np.eye(NUM_TAGS, DIM, dtype=np.float32)
    weights = model.state_dict()
    of_item = direction[columns.tags_V]  # one tag each
    weights["tables.embedding_bags.item_ids.weight"].copy_(
        torch.from_numpy(np.concatenate([np.zeros((1, DIM), np.float32), of_item]))
    )
    weights["tables.embedding_bags.tags.weight"].copy_(torch.from_numpy(direction))
    weights["tables.embedding_bags.years.weight"].zero_()
    model.load_state_dict(weights)
    return model


def write_bundle(
    store: BundleStore,
    item_ids: list[str] | None = None,
    sources: tuple[str, ...] = SOURCES,
    space: ContentSpace | None = None,
    retrieval_sources: list[dict[str, object]] | None = None,
    add_more: Callable[[BundleWriter, Als], None] | None = None,
    **config: object,
) -> BundleRef:
    items = items_table(item_ids)
    schema = FeatureSchema.fit(items)
    columns = ItemColumns.from_items(items, schema)
    generator = np.random.default_rng(0)
    num = len(items)
    taken = generator.random((40, num)) < 0.2
    model = two_tower(schema, columns)
    ease: ItemItem = fit_ease(sp.csr_matrix(taken, dtype=np.float32), 10.0)
    item_index = np.nonzero(taken)[1].astype(np.int32)
    popularity: Popularity = fit_popularity(item_index, np.arange(len(item_index)), num)
    named = retrieval_sources or [{"name": name, "quota": 15} for name in sources]
    retrieval = {"sources": named, "num_candidates": 20}
    parsed = PipelineConfig.parse({"retrieval": retrieval, **config}, "test")
    torch.manual_seed(0)
    ranker = Dlrm(
        DlrmConfig(
            dense_features=feature_names(parsed.retrieval.ranked_sources, parsed.hydration.request_features), num_tags=schema.num_tags, num_years=schema.num_years,
            num_categories=schema.num_categories,
        )
    )  # fmt: skip
    writer = BundleWriter(store, "default")
    writer.add_table("items.parquet", items)
    writer.add_json("features.json", schema.model_dump(mode="json"))
    writer.add_towers("two_tower", model, is_item=lambda name: "embedding_bags" in name)
    writer.add_index("index.faiss", FaissIndex.build(model.encode_items(columns)))
    writer.add_model("ease", ease)
    als = Als(AlsConfig(dim=4), generator.normal(size=(num, 4)).astype(np.float32))
    writer.add_model("als", als)
    if add_more is not None:
        add_more(writer, als)
    writer.add_model("popularity", popularity)
    if space is not None:
        writer.add_model("content", space)
        writer.add_index(CONTENT_INDEX, FaissIndex.build(space.encode(items)), "content.safetensors")
    write_pipeline(writer, parsed, ranker, Calibration())
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f" * 64), recipe="test", training_id="t1")
    return writer.commit(info)


def open_bundle(store: BundleStore, item_ids: list[str] | None = None, **more: object) -> Bundle:
    return Bundle.open(store, write_bundle(store, item_ids, **more))  # type: ignore[arg-type]
