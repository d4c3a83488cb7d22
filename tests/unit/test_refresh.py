"""Which histories the hourly refresh encodes."""

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, build_dataset
from tastemaker_training.jobs.user_scoring import user_histories


@pytest.fixture
def bundle(tmp_path):
    store = BundleStore(tmp_path / "bundles")
    writer = BundleWriter(store, "default")
    writer.add_table("items.parquet", pa.table({"item_id": ["c", "b", "a"]}))
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="r", training_id="t")
    return Bundle.open(store, writer.commit(info))


def dataset(rows: list[tuple[str, str, int]]) -> Dataset:
    user, item, time = zip(*rows, strict=True)
    columns = {"user_id": user, "item_id": item, "timestamp_ms": time, "value": [1.0] * len(rows)}
    columns |= {"kind": ["rating"] * len(rows), "origin": ["live"] * len(rows)}
    columns |= dict.fromkeys(("position", "device"), [None] * len(rows))
    names = sorted(set(item))
    items = {"item_id": names, "title": names, "category": names, "tags": [[]] * len(names)}
    return build_dataset(
        pa.table(columns, schema=INTERACTIONS_SCHEMA),
        pa.table(items | {"created_at_ms": [None] * len(names)}, schema=ITEMS_SCHEMA),
    )


def test_histories_are_the_newest_uses_once_each_in_the_bundles_rows(bundle) -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "a", 3), ("u", "c", 4), ("v", "b", 9), ("u", "new", 8)]
    assert user_histories(dataset(rows), bundle, max_length=50).to_pylist() == [
        {"user_id": "u", "history": [1, 2, 0], "history_length": 3, "newest_ms": 4},
        {"user_id": "v", "history": [1], "history_length": 1, "newest_ms": 9},
    ]


def test_only_as_many_items_as_serving_reads_are_taken(bundle) -> None:
    rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3), ("v", "b", 9)]
    found = user_histories(dataset(rows), bundle, max_length=2)
    assert found["history"].to_pylist() == [[1, 0], [1]]
    assert found["newest_ms"].to_pylist() == [3, 9]


def test_users_of_whom_the_bundle_knows_nothing_are_left_out(bundle) -> None:
    found = user_histories(dataset([("u", "new", 1), ("v", "a", 2), ("w", "newer", 3)]), bundle, 5)
    assert found["user_id"].to_pylist() == ["v"]
    np.testing.assert_array_equal(found["history"][0].as_py(), [2])
