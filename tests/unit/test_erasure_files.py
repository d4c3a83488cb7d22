"""Rows of a user leave a Parquet file, and no others; which bundles may know the user; receipts that are none are not read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo, TimeRange
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.erasure import drop_rows, trained_after
from tastemaker.errors import BundleError, DataError
from tastemaker.events.receipts import read_receipt
from tastemaker.home import Home
from tastemaker.registry.versions import Version


def write(path: Path, **columns: list[object]) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_a_users_rows_go_and_the_earliest_of_them_is_told(tmp_path):
    file = write(tmp_path / "a.parquet", user_id=["u", "v", "u", None, "w"], timestamp_ms=[9, 1, 4, 2, 3])
    assert drop_rows(file, "u") == (2, 4)
    assert pq.read_table(file).to_pydict() == {"user_id": ["v", None, "w"], "timestamp_ms": [1, 2, 3]}
    assert drop_rows(file, "u") == (0, None)


def test_a_file_without_the_user_is_not_written_again(tmp_path):
    file = write(tmp_path / "a.parquet", user_id=["v"])
    before = file.stat().st_mtime_ns
    assert drop_rows(file, "u") == (0, None)
    assert file.stat().st_mtime_ns == before


def test_files_that_are_absent_or_know_no_users_have_no_rows_of_one(tmp_path):
    assert drop_rows(tmp_path / "none.parquet", "u") == (0, None)
    assert drop_rows(write(tmp_path / "items.parquet", item_id=["u"]), "u") == (0, None)


def test_a_damaged_file_is_named_and_kept(tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"cannot take rows from .*a\.parquet"):
        drop_rows(file, "u")
    assert file.exists()


def test_a_receipts_name_cannot_leave_the_folder(tmp_path):
    home = Home.make(tmp_path / "home")
    assert read_receipt(home, "default", "../../home") is None
    assert read_receipt(home, "default", "20261125T000000-ab") is None


def version(store, number, *, retrievers=None, ranker=None):
    """A version whose models were fitted on events from 0 to these moments."""
    writer = BundleWriter(store, "shop")
    writer.add_json("recipe.json", number)
    spans = [
        None if end_ms is None else TimeRange(start_ms=0, end_ms=end_ms) for end_ms in (retrievers, ranker)
    ]
    dataset = DatasetInfo(fingerprint="f" * 64, retrievers=spans[0], ranker=spans[1])
    ref = writer.commit(BundleInfo(dataset=dataset, recipe="r", training_id="t"))
    return Version(number, ref.uri, ref.sha256, "2026-01-01T00:00:00+00:00")


def test_versions_that_may_have_learned_of_a_moment_are_told_by_their_manifests(tmp_path):
    store = BundleStore(tmp_path)
    versions = [
        version(store, 3, retrievers=10, ranker=20),
        version(store, 1, retrievers=19, ranker=15),
        version(store, 2, retrievers=20),
        version(store, 4),
    ]
    for blob in tmp_path.glob("blobs/sha256/*/*"):
        blob.unlink()  # a damaged bundle does not keep a user from being erased
    assert trained_after(store, versions, 20) == [2, 3, 4]
    assert trained_after(store, versions, 21) == [4]


def test_a_version_whose_manifest_is_lost_or_changed_counts(tmp_path, caplog):
    store = BundleStore(tmp_path)
    lost, changed = version(store, 1, retrievers=10), version(store, 2, retrievers=11)
    (tmp_path / lost.uri).unlink()
    (tmp_path / changed.uri).write_bytes((tmp_path / changed.uri).read_bytes().replace(b"11", b"12"))
    assert trained_after(store, [lost, changed, version(store, 3, retrievers=10)], 20) == [1, 2]
    assert caplog.text.count("counted as trained with an erased user") == 2


def test_a_storage_that_refuses_is_no_answer(tmp_path):
    store = BundleStore(tmp_path)
    refused = version(store, 1, retrievers=10)
    (tmp_path / refused.uri).unlink()
    (tmp_path / refused.uri).mkdir()
    with pytest.raises(BundleError, match="cannot be read"):
        trained_after(store, [refused], 20)
