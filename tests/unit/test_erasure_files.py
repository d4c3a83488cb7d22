"""Rows of a user leave a Parquet file, and no others; receipts that are none are not read."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.erasure import drop_rows
from tastemaker.errors import DataError
from tastemaker.events.receipts import read_receipt
from tastemaker.home import Home


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
