"""The dataset: order, ties, kinds, values, fingerprint, refusals."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.data.schema import (
    INTERACTIONS_SCHEMA,
    ITEMS_SCHEMA,
    POSITIVE_KINDS,
    Dataset,
    build_dataset,
    imported_folder,
    read_dataset,
)
from tastemaker.errors import DataError
from tastemaker.home import Home

Row = tuple[str, str, int]


def interactions(rows: list[Row], **columns: list[Any]) -> pa.Table:
    users, items, times = zip(*rows, strict=True)
    given: dict[str, Any] = {
        "user_id": users,
        "item_id": items,
        "kind": ["rating"] * len(rows),
        "value": [4.0] * len(rows),
        "timestamp_ms": times,
        "origin": ["live"] * len(rows),
        "position": [None] * len(rows),
        "device": [None] * len(rows),
    }
    return pa.table(given | columns, schema=INTERACTIONS_SCHEMA)


def items(*ids: str) -> pa.Table:
    rows: list[dict[str, Any]] = [
        {"item_id": i, "title": i, "category": "", "tags": [], "created_at_ms": None} for i in ids
    ]
    return pa.Table.from_pylist(rows, schema=ITEMS_SCHEMA)


def dataset(rows: list[Row], *ids: str, **columns: list[Any]) -> Dataset:
    return build_dataset(interactions(rows, **columns), items(*ids))


def test_rows_are_sorted_by_user_and_time_with_ties_in_file_order() -> None:
    data = dataset(
        [("v", "c", 9), ("u", "b", 5), ("v", "a", 3), ("u", "c", 5), ("u", "a", 5)], "a", "b", "c", "d"
    )
    assert data.user_ids == ["v", "u"]  # first row in the file decides
    assert data.user_index.tolist() == [0, 0, 1, 1, 1]
    assert [data.item_ids[i] for i in data.item_index] == ["a", "c", "b", "c", "a"]
    assert data.timestamp_ms.tolist() == [3, 9, 5, 5, 5]
    assert (data.num_users, data.num_items, len(data)) == (2, 4, 5)


def test_only_consumption_counts_and_values_fall_back_to_the_kinds_weight() -> None:
    kinds = ["impression", "view", "click", "like", "purchase", "rating", "watch", "skip", "dislike", "hide"]
    rows: list[Row] = [("u", "a", n) for n in range(10)]
    data = dataset(rows, "a", kind=kinds, value=[None] * 5 + [3.5, 90.0] + [None] * 3)
    assert data.timestamp_ms.tolist() == [1, 2, 3, 4, 5, 6]
    assert data.value.tolist() == [0.25, 0.5, 0.75, 1.0, 3.5, 90.0]
    assert [POSITIVE_KINDS[k] for k in data.kind_index] == kinds[1:7]


def test_fingerprint_follows_the_content() -> None:
    rows: list[Row] = [("u", "a", 1), ("v", "b", 2)]
    same = dataset(rows, "a", "b").fingerprint
    assert same == dataset(rows, "a", "b").fingerprint
    assert len(same) == 64
    others = [
        dataset(rows, "b", "a"),
        dataset(rows, "a", "b", value=[4.0, 3.0]),
        dataset([("u", "a", 1), ("v", "b", 3)], "a", "b"),
        dataset([("u", "a", 1), ("w", "b", 2)], "a", "b"),
        dataset(rows, "a", "b", kind=["rating", "click"]),
        dataset(rows, "a", "b", kind=["click", "rating"]),
        dataset(rows, "a", "b", position=[0, None]),
        dataset(rows, "a", "b", position=[None, 0]),
        dataset(rows, "a", "b", device=["tv", None]),
        dataset(rows, "a", "b", device=["mobile", "mobile"]),
        # Their places among the kinds are the rows of `mobile`.
        dataset(rows, "a", "b", kind=["click", "click"]),
    ]
    assert len({same, *(other.fingerprint for other in others)}) == 12


def test_fingerprint_is_the_same_in_every_release() -> None:
    expected = "9573a3b0ce25bde41bcf96c82e9f2462bfa8002e4b666ef788f8915995f2034b"
    assert dataset([("ü", "a", 1)], "a").fingerprint == expected
    assert dataset([("ü", "a", 1)], "a", device=[""]).fingerprint == expected  # says nothing


def test_slots_are_positions_from_1_and_devices_rows_with_0_for_unknown() -> None:
    rows: list[Row] = [("u", "a", 4), ("u", "a", 3), ("u", "a", 2), ("u", "a", 1)]
    devices = ["TV", None, "mobile", "toaster"]
    data = dataset(rows, "a", position=[0, None, 100_000, 6], device=devices)
    assert data.timestamp_ms.tolist() == [1, 2, 3, 4]
    assert data.slot.tolist() == [7, 100_001, 0, 1]
    assert data.device_row.tolist() == [5, 1, 0, 4]


def test_the_simulators_rows_are_refused() -> None:
    with pytest.raises(DataError, match="origin simulator"):
        dataset([("u", "a", 1), ("u", "b", 2)], "a", "b", origin=["live", "simulator"])


def test_an_item_without_a_row_is_refused() -> None:
    with pytest.raises(DataError, match="items that the items table lacks, is 1"):
        dataset([("u", "a", 1), ("u", "b", 2)], "a")


def test_reading_what_was_never_imported_says_so(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    with pytest.raises(DataError, match="catalogue default has no data: run"):
        read_dataset(home, "default")


def test_an_import_of_an_earlier_release_has_no_positions_and_devices(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    folder = imported_folder(home, "default")
    folder.mkdir(parents=True)
    rows: list[Row] = [("u", "a", 1), ("v", "b", 2)]
    earlier = interactions(rows).drop_columns(["position", "device"])
    pq.write_table(earlier, folder / "interactions.parquet")
    pq.write_table(items("a", "b"), folder / "items.parquet")
    data = read_dataset(home, "default")
    assert (data.slot.tolist(), data.device_row.tolist()) == ([0, 0], [0, 0])
    assert data.fingerprint == dataset(rows, "a", "b").fingerprint
    pq.write_table(earlier.drop_columns(["value"]), folder / "interactions.parquet")
    with pytest.raises(DataError, match=r"interactions\.parquet cannot be read"):
        read_dataset(home, "default")


def test_a_damaged_import_says_which_file(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    folder = imported_folder(home, "default")
    folder.mkdir(parents=True)
    (folder / "interactions.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"interactions\.parquet cannot be read"):
        read_dataset(home, "default")
