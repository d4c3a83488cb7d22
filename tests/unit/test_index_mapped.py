"""Matrices that lie in files."""

from pathlib import Path

import numpy as np
import pytest
from tiny_disk import tiny_disk

from tastemaker.bundle.tensor_file import file_parts, map_tensors
from tastemaker.errors import BundleError
from tastemaker.index.mapped import let_go, map_rows, spilled_rows

ROWS = np.arange(20_000, dtype=np.float32).reshape(5000, 4)


@pytest.mark.parametrize("offset", [0, 1, 45, 4096, 10_001])
def test_rows_of_a_file(tmp_path: Path, offset: int) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b"x" * offset + ROWS.tobytes() + b"y" * 999)
    matrix = map_rows(file, offset, len(ROWS), 4)
    file.unlink()
    np.testing.assert_array_equal(matrix, ROWS)
    assert not matrix.flags.writeable


def test_a_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(ROWS.tobytes()[:-1])
    with pytest.raises(BundleError, match="serve without shards"):
        map_rows(tmp_path / "rows", 0, len(ROWS), 4)


def test_memory_that_was_given_back_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b"x" + ROWS.tobytes())
    matrix = map_rows(file, 1, len(ROWS), 4)
    let_go(matrix)
    np.testing.assert_array_equal(matrix, ROWS)
    file.write_bytes(b"".join(map(bytes, file_parts({"rows": ROWS, "more": ROWS[:3]}))))
    for name, mapped in map_tensors(file).items():
        let_go(mapped)
        np.testing.assert_array_equal(mapped, {"rows": ROWS, "more": ROWS[:3]}[name])


def test_what_lies_in_no_file_stays() -> None:
    for array in (ROWS.copy(), np.frombuffer(ROWS.tobytes(), np.float32)):
        let_go(array)
        np.testing.assert_array_equal(array.reshape(-1), ROWS.reshape(-1))


def test_a_file_of_its_own_without_a_name() -> None:
    matrix = spilled_rows(30, 4)
    matrix[3] = 5
    let_go(matrix)
    assert matrix.sum() == 20


def test_no_room_for_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: (tmp_path / "gone" / "file").open("wb"))
    with pytest.raises(BundleError, match="set TMPDIR to a folder with room"):
        spilled_rows(1, 1)


def test_a_disk_that_is_too_small_is_said_before_a_row_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tiny_disk(tmp_path / "disk", "256k") as disk:
        monkeypatch.setattr("tempfile.tempdir", str(disk))
        spilled_rows(1000, 4)[:] = 1  # 16 kB
        with pytest.raises(BundleError, match=r"no file of 2 MB in .*No space left on device"):
            spilled_rows(128 * 1024, 4)
