"""The archive's days: order of what one millisecond took, and that readers hold only what they want."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tastemaker.errors import DataError
from tastemaker.events.archive import (
    EVENT_SCHEMA,
    Erased,
    erase_user,
    event_table,
    parts_of,
    read_batches,
    read_days,
    read_parts,
    reread,
    write_days,
)
from tastemaker.events.compaction import compact
from tastemaker.events.log import Entry

DAY = 86_400_000


def entry(id_: str, event_id: str, **fields: Any) -> Entry:
    event = {
        "event_id": event_id,
        "user_id": "u",
        "item_id": "i",
        "kind": "click",
        "timestamp_ms": 7,
        "origin": "live",
    }
    return Entry(id_, json.dumps(event | fields))


def test_the_order_of_the_stream_stands_in_the_rows() -> None:
    table = event_table([entry("5-10", "a"), entry("5-9", "b"), entry("4-0", "c")])
    order = table.sort_by([("received_ms", "ascending"), ("sequence", "ascending")])
    assert order["event_id"].to_pylist() == ["c", "b", "a"]


def test_files_of_a_release_without_a_column_have_nulls_there(tmp_path: Path) -> None:
    old = event_table([entry("5-0", "a")]).drop_columns(["sequence"])
    write_days(tmp_path, old)
    write_days(tmp_path, event_table([entry("6-3", "b")]))
    assert read_days(tmp_path, EVENT_SCHEMA, "event_id")["sequence"].to_pylist() == [None, 3]


def test_of_repeats_the_one_that_was_received_first_counts(tmp_path: Path) -> None:
    write_days(tmp_path, event_table([entry("9-0", "a", value=2.0), entry("5-0", "a", value=1.0)]))
    assert read_days(tmp_path, EVENT_SCHEMA, "event_id")["value"].to_pylist() == [1.0]


def test_rows_that_are_not_wanted_are_dropped_as_they_are_read(tmp_path: Path) -> None:
    write_days(
        tmp_path, event_table([entry(f"{n}-0", f"e{n}", kind=("click", "view")[n % 2]) for n in range(9)])
    )
    (part,) = parts_of(tmp_path)
    wanted = pc.field("kind") == "view"
    assert [len(found) for found in read_batches(part, EVENT_SCHEMA, wanted)] == [4]
    assert read_parts([part], EVENT_SCHEMA, "event_id", wanted)["event_id"].to_pylist() == [
        "e1",
        "e3",
        "e5",
        "e7",
    ]
    assert next(read_batches(part, pa.schema([("kind", pa.string())]))).column_names == ["kind"]


def test_a_reader_whose_file_was_taken_away_looks_again(tmp_path: Path) -> None:
    write_days(tmp_path, event_table([entry("5-0", "a")]))
    (old,) = parts_of(tmp_path)
    looks: list[list[Path]] = []

    def read(parts: list[Path]) -> list[str]:
        looks.append(parts)
        if len(looks) == 1:
            pq.write_table(event_table([entry("5-0", "a")]), old.with_name("part-9.parquet"))
            old.unlink()
        found: list[str] = read_parts(parts, EVENT_SCHEMA, "event_id")["event_id"].to_pylist()
        return found

    assert reread(tmp_path, read) == ["a"]
    assert [[path.name for path in parts] for parts in looks] == [[old.name], ["part-9.parquet"]]


def test_what_is_wrong_with_a_file_that_is_there_is_said_at_once(tmp_path: Path) -> None:
    write_days(tmp_path, event_table([entry("5-0", "a")]))
    looks: list[int] = []

    def read(parts: list[Path]) -> None:
        looks.append(len(parts))
        raise DataError("unusable")

    with pytest.raises(DataError, match="unusable"):
        reread(tmp_path, read)
    assert looks == [1]


def test_an_erased_user_stands_in_no_file_and_the_others_stay(tmp_path: Path) -> None:
    one = [
        entry("5-0", "a", user_id="ann", timestamp_ms=9),
        entry("6-0", "b"),
        entry("7-0", "c", user_id="ann"),
    ]
    write_days(tmp_path, event_table(one))
    compact(tmp_path)
    write_days(tmp_path, event_table([one[2], entry("8-0", "d", user_id="ann", timestamp_ms=DAY)]))
    write_days(tmp_path, event_table([entry("9-0", "e", timestamp_ms=DAY)]))
    untouched = max(tmp_path.glob("day=1970-01-02/*"))
    before = untouched.stat().st_mtime_ns
    assert erase_user(tmp_path, "ann") == Erased(rows=3, first_ms=7)  # c lies in two files
    assert untouched.stat().st_mtime_ns == before
    for path in tmp_path.glob("day=*/*"):
        assert "ann" not in pq.ParquetFile(path).read()["user_id"].to_pylist()
        assert b"ann" not in path.read_bytes()
    assert read_days(tmp_path, EVENT_SCHEMA, "event_id")["event_id"].to_pylist() == ["b", "e"]
    compact(tmp_path)
    assert read_days(tmp_path, EVENT_SCHEMA, "event_id")["event_id"].to_pylist() == ["b", "e"]
    assert erase_user(tmp_path, "ann") == Erased(rows=0)
    assert erase_user(tmp_path / "none", "ann") == Erased(rows=0)


def test_an_erased_user_leaves_the_files_that_a_frozen_log_keeps(tmp_path: Path) -> None:
    write_days(tmp_path, event_table([entry("5-0", "a", user_id="ann"), entry("6-0", "b")]))
    (kept,) = parts_of(tmp_path)
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / "f.json").write_text(json.dumps({"parts": [str(kept.relative_to(tmp_path))]}))
    compact(tmp_path)
    assert kept.exists()
    assert parts_of(tmp_path) != [kept]
    erase_user(tmp_path, "ann")
    assert read_parts([kept], EVENT_SCHEMA, "event_id")["event_id"].to_pylist() == ["b"]


def test_a_units_decisions_are_erased_as_well(tmp_path: Path) -> None:
    columns = {"decision_id": ["a", "b", "c"], "user_id": ["ann", None, "bob"], "unit": ["x", "ann", "bob"]}
    write_days(tmp_path, pa.table(columns | {"timestamp_ms": [1, 2, 3]}))
    assert erase_user(tmp_path, "ann", "decision_id") == Erased(rows=2, first_ms=1)
    (part,) = parts_of(tmp_path)
    assert pq.ParquetFile(part).read()["decision_id"].to_pylist() == ["c"]
