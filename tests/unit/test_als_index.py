"""Bundles of many items carry an index of their ALS factors; what it finds is what an exact search does."""

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import Dataset
from tastemaker.index.config import IndexConfig
from tastemaker.models.als import Als
from tastemaker.stages.bundle_sources import ALS_INDEX
from tastemaker.stages.live import LiveStages
from tastemaker.types import Query
from tastemaker_training.sources.als_index import add_als_index

NUM_USERS = 60


def dataset() -> Dataset:
    rng, each = np.random.default_rng(3), 4
    rows = np.concatenate([rng.choice(NUM_ITEMS, each, replace=False) for _ in range(NUM_USERS)])
    num = len(rows)
    return Dataset(
        user_ids=[f"u{n}" for n in range(NUM_USERS)], item_ids=[f"i{n}" for n in range(NUM_ITEMS)],
        user_index=np.repeat(np.arange(NUM_USERS), each).astype(np.int32), item_index=rows.astype(np.int32),
        timestamp_ms=np.arange(num), value=np.ones(num, np.float32), kind_index=np.zeros(num, np.int8),
        slot=np.zeros(num, np.int32), device_row=np.zeros(num, np.int8), items=items_table(), fingerprint="f" * 64,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path) -> BundleStore:
    return BundleStore(tmp_path / "bundles")


def test_a_bundle_with_an_index_answers_as_one_without(store: BundleStore) -> None:
    def add(writer: BundleWriter, als: Als) -> None:
        add_als_index(writer, als, dataset(), IndexConfig(exact_up_to=NUM_ITEMS - 1, recall=1.0))

    indexed = Bundle.open(store, write_bundle(store, add_more=add))
    plain = Bundle.open(store, write_bundle(store))
    info = indexed.manifest.files[ALS_INDEX].index
    assert info is not None
    assert (info.kind, info.tower, info.num_items) == ("hnsw", "als.safetensors", NUM_ITEMS)
    assert info.measured is not None
    assert info.measured.recall == 1.0
    queries = [Query(np.array(history, np.int32), k=5) for history in ([1, 5], [2], [3, 4, 9])]
    for found, expected in zip(
        LiveStages(indexed).pipeline.retrieve(queries),
        LiveStages(plain).pipeline.retrieve(queries),
        strict=True,
    ):
        assert found.item_index.tolist() == expected.item_index.tolist()
        np.testing.assert_allclose(found.source_score_KS, expected.source_score_KS, rtol=1e-5, atol=1e-6)


def test_small_catalogues_are_searched_exactly(store: BundleStore) -> None:
    def add(writer: BundleWriter, als: Als) -> None:
        add_als_index(writer, als, dataset())

    assert not Bundle.open(store, write_bundle(store, add_more=add)).has(ALS_INDEX)
