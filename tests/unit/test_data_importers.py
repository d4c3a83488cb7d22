"""Importing tables: every way in which input can be bad, and that nothing half-written is left."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_files import NOW_MS, csv, latest, reasons, write

from tastemaker.data.importers import ColumnMapping, import_events, num_refused_rows, save_import
from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, REJECTS_SCHEMA, read_dataset
from tastemaker.data.validation import check_items
from tastemaker.errors import ConfigError, DataError, UsageError
from tastemaker.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def test_mapping_names_the_columns_of_a_csv_with_items(tmp_path: Path) -> None:
    items = write(
        tmp_path / "items.csv", "item_id,category,tags,price\nä,books,new|signed,3\n日,,,4\nä,dup,,\n"
    )
    source = csv(tmp_path, "who,what,when,how\nü1,ä,5,click\nü1,ç,6,purchase\n")
    mapping = ColumnMapping(
        user_id="who", item_id="what", timestamp="when", timestamp_unit="ms", kind="how", items=items
    )
    imported = import_events(source, mapping, NOW_MS)
    rows = imported.interactions.to_pylist()
    assert [(r["user_id"], r["kind"], r["timestamp_ms"], r["value"]) for r in rows] == [
        ("ü1", "click", 5, None), ("ü1", "purchase", 6, None),
    ]  # fmt: skip
    assert [(i["item_id"], i["title"], i["category"], i["tags"]) for i in imported.items.to_pylist()] == [
        ("ä", "ä", "books", ["new", "signed"]), ("日", "日", "", []), ("ç", "ç", "", []),
    ]  # fmt: skip
    assert imported.rejects.select(["table", "row", "item_id", "reason"]).to_pylist() == [
        {"table": "items", "row": 3, "item_id": "ä", "reason": "duplicate item_id"}
    ]


def test_parquet_with_integer_ids_timestamps_and_tags_as_lists(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user_id": pa.array([1, 2]),
            "item_id": pa.array(["a", "b"]).dictionary_encode(),
            "timestamp": pa.array([1_500, 2_500], pa.timestamp("ms", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    pq.write_table(
        pa.table({"item_id": ["a"], "tags": [["x", "y"]], "created_at_ms": [7]}), tmp_path / "items.parquet"
    )
    imported = import_events(
        tmp_path / "events.parquet", ColumnMapping(items=tmp_path / "items.parquet"), NOW_MS
    )
    assert [(r["user_id"], r["timestamp_ms"], r["kind"]) for r in imported.interactions.to_pylist()] == [
        ("1", 1_500, "click"), ("2", 2_500, "click"),
    ]  # fmt: skip
    assert [(i["tags"], i["created_at_ms"]) for i in imported.items.to_pylist()] == [
        (["x", "y"], 7),
        ([], None),
    ]


def test_ids_with_control_characters_are_rejected_in_both_tables() -> None:
    def raw(ids: list[str | None]) -> pa.Table:
        empty = {name: [None] * len(ids) for name in ITEMS_SCHEMA.names}
        return pa.table(empty | {"item_id": ids}, schema=ITEMS_SCHEMA)

    ids: list[str | None] = ["a", "b\x00", "c\u0085", "é\u00a0d", "  ", None]
    kept, refused = check_items(raw(ids), [], pa.array(["a"], pa.string()))
    assert kept["item_id"].to_pylist() == ["a", "é\u00a0d"]
    assert refused["reason"].to_pylist() == ["item_id has control characters"] * 2 + ["item_id is empty"] * 2


def test_every_bad_row_is_rejected_with_its_reason_and_counted(tmp_path: Path) -> None:
    future = NOW_MS // 1000 + 1
    rows = [
        "u,i,3.5,100",
        ",i,3,100",  # 2: no user
        "u,  ,3,100",  # 3: blank item
        f"{'x' * 257},i,3,100",  # 4
        "u,j,nan,100",  # 5
        "u,j,good,100",  # 6
        "u,j,,100",  # 7: a rating needs a value
        "u,j,inf,100",  # 8
        "u,j,3,-1",  # 9
        f"u,j,3,{future}",  # 10
        "u,j,3,yesterday",  # 11
        "u,j,3,",  # 12
        "u,i,4.5,100",  # 13: same user, item, kind and time as row 1
        "u,j,3,101",
        "u\x7f,j,3,102",  # 15
    ]
    source = csv(tmp_path, "user_id,item_id,stars,timestamp\n" + "\n".join(rows) + "\n")
    imported = import_events(source, ColumnMapping(value="stars"), NOW_MS)
    assert [r["value"] for r in imported.interactions.to_pylist()] == [3.5, 3.0]
    assert reasons(imported) == [
        (2, "user_id is empty"),
        (3, "item_id is empty"),
        (4, "user_id is longer than 256 characters"),
        (5, "value is not a number"),
        (6, "value is not a number"),
        (7, "value is not a number"),
        (8, "value is beyond 1e+12"),
        (9, "timestamp is negative"),
        (10, "timestamp is in the future"),
        (11, "timestamp is not a number"),
        (12, "timestamp is not a number"),
        (13, "duplicate of an earlier row"),
        (15, "user_id has control characters"),
    ]
    summary = imported.summary
    assert (summary["num_rows"], summary["num_interactions"], summary["num_rejected"]) == (15, 2, 13)
    assert summary["rejected_by_reason"]["value is not a number"] == 3
    home = Home.make(tmp_path / "home")
    save_import(home, "default", imported)
    assert num_refused_rows(home, "default") == 13
    (home / "events" / "default" / "imported" / "summary.json").unlink()
    with pytest.raises(DataError, match=r"summary\.json cannot be read"):
        num_refused_rows(home, "default")
    assert imported.rejects["value"].to_pylist()[4] == "good"
    assert imported.rejects["timestamp"].to_pylist()[9] == "yesterday"


def test_unknown_kinds_negative_watch_times_and_the_simulators_rows_are_rejected(tmp_path: Path) -> None:
    source = csv(
        tmp_path,
        "user_id,item_id,timestamp,kind,value,origin\n"
        "u,a,1,glance,,live\nu,b,1,watch,-5,live\nu,c,1,click,,simulator\nu,d,1,click,,martian\nu,e,1,click,,replay\n",
    )
    imported = import_events(source, ColumnMapping(kind="kind", value="value"), NOW_MS)
    assert [row for row, _ in reasons(imported)] == [1, 2, 3, 4]
    assert [reason.split(" of")[0] for _, reason in reasons(imported)] == [
        "kind is not one", "watch time is negative", "origin is simulator", "origin is not one",
    ]  # fmt: skip
    assert imported.interactions["origin"].to_pylist() == ["replay"]


def test_positions_and_devices_are_read_under_a_mapping(tmp_path: Path, home: Home) -> None:
    rows = ["u,a,1,0,tv", "u,b,2,,Mobile", "u,c,3,7.0,", "u,d,4,100000,fridge"]
    source = csv(tmp_path, "\n".join(["user_id,item_id,timestamp,rank,on", *rows]) + "\n")
    imported = import_events(source, ColumnMapping(position="rank", device="on"), NOW_MS)
    assert imported.interactions.select(["position", "device"]).to_pydict() == {
        "position": [0, None, 7, 100_000],
        "device": ["tv", "Mobile", None, "fridge"],
    }
    assert (imported.summary["num_with_position"], imported.summary["num_with_device"]) == (3, 3)
    save_import(home, "default", imported)
    dataset = read_dataset(home, "default")
    assert dataset.slot.tolist() == [1, 0, 8, 100_001]
    assert dataset.device_row.tolist() == [4, 1, 0, 5]
    unmapped = import_events(source, None, NOW_MS)
    assert unmapped.interactions["position"].null_count == unmapped.interactions["device"].null_count == 4
    with pytest.raises(DataError, match="lacks columns place, machine"):
        import_events(source, ColumnMapping(position="place", device="machine"), NOW_MS)


def test_a_position_that_is_no_rank_is_rejected(tmp_path: Path) -> None:
    cells = ["0", "-1", "1.5", "100001", "first", "nan", "inf", ""]
    rows = [f"u,i{n},{n},{cell}" for n, cell in enumerate(cells)]
    source = csv(tmp_path, "\n".join(["user_id,item_id,timestamp,position", *rows]) + "\n")
    imported = import_events(source, ColumnMapping(position="position"), NOW_MS)
    assert imported.interactions["position"].to_pylist() == [0, None]
    limit = "position is not a whole number from 0 to 100000"
    assert reasons(imported) == [(row, limit) for row in range(2, 8)]


def test_positions_and_devices_of_a_parquet_file(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"user_id": ["u"] * 3, "item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]}
    columns["at"] = pa.array([3, None, -1], pa.int8())
    columns["on"] = pa.array(["tv", None, "tv"]).dictionary_encode()
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    imported = import_events(tmp_path / "e.parquet", ColumnMapping(position="at", device="on"), NOW_MS)
    assert imported.interactions["position"].to_pylist() == [3, None]
    assert imported.interactions["device"].to_pylist() == ["tv", None]
    assert [row for row, _ in reasons(imported)] == [3]


def test_a_ragged_csv_row_is_rejected_not_the_file(tmp_path: Path) -> None:
    imported = import_events(
        csv(tmp_path, "user_id,item_id,timestamp\nu,i,1\nu,i,2,extra\nu,i\nu,i,4\n"), None, NOW_MS
    )
    assert imported.interactions["timestamp_ms"].to_pylist() == [1000, 4000]
    assert reasons(imported) == [(2, "4 columns, not 3"), (3, "2 columns, not 3")]


def test_numbers_of_rejected_rows_hold_over_the_blocks_of_a_large_file(tmp_path: Path) -> None:
    lines = [f"u{n},i,{n}" for n in range(1, 120_001)]
    lines[79_999] = "broken"
    lines[99_999] = ",i,1"
    source = csv(tmp_path, "user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    assert source.stat().st_size > 1.5 * 2**20  # more than one block of the reader
    imported = import_events(source, None, NOW_MS)
    assert reasons(imported) == [(80_000, "1 columns, not 3"), (100_000, "user_id is empty")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"", "cannot be read"),
        ("e.csv", b"user_id,item_id,timestamp\n", "has no rows"),
        ("e.csv", b"user_id,timestamp\nu,1\n", "lacks columns item_id"),
        ("e.csv", b"user_id,item_id,timestamp\n\xff,i,1\n", "cannot be read.*UTF8"),
        ("e.parquet", b"PAR1 not really", "cannot be read"),
        ("e.xlsx", b"x", "of no known kind"),
        ("e.csv", b"user_id,item_id,item_id,timestamp\nu,i,i,1\n", "columns of the same name, is 'item_id'"),
        ("e.csv", b"user_id,item_id,timestamp\n,i,1\n", "no usable row.*user_id is empty in 1 of 1"),
        ("e.zip", b"not a zip", "no zip file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        import_events(tmp_path / name, None, NOW_MS)


def test_wrong_column_types_of_a_parquet_file_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": [1.5], "item_id": ["a"], "timestamp": [1]}), tmp_path / "e.parquet")
    with pytest.raises(DataError, match=r"column user_id of .* is 'double', must be text or integer"):
        import_events(tmp_path / "e.parquet", None, NOW_MS)


def test_missing_source_and_superfluous_mapping_are_misuse(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        import_events(tmp_path / "nowhere", None, NOW_MS)
    with pytest.raises(UsageError, match="needs no column mapping"):
        import_events(latest(tmp_path / "ml"), ColumnMapping(), NOW_MS)
    with pytest.raises(ConfigError, match="unknown key user"):
        ColumnMapping.parse({"user": "u"}, "columns.yaml")


def test_saved_import_is_read_back_and_replaced_whole(tmp_path: Path, home: Home) -> None:
    first = import_events(latest(tmp_path / "ml"), None, NOW_MS)
    folder = save_import(home, "default", first)
    assert folder == home / "events" / "default" / "imported"
    assert pq.read_schema(folder / "interactions.parquet").equals(INTERACTIONS_SCHEMA)
    assert pq.read_schema(folder / "items.parquet").equals(ITEMS_SCHEMA)
    assert pq.read_schema(folder / "rejects.parquet").equals(REJECTS_SCHEMA)
    assert read_dataset(home, "default").fingerprint == first.summary["fingerprint"]

    second = import_events(csv(tmp_path, "user_id,item_id,timestamp\nu,i,1\n"), None, NOW_MS)
    save_import(home, "default", second)
    assert read_dataset(home, "default").user_ids == ["u"]
    kept = [name for name in os.listdir(folder.parent) if name.startswith(".imported-")]
    assert len(kept) == 1  # the earlier import is gone


def test_a_failed_save_leaves_the_earlier_import(
    tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = import_events(latest(tmp_path / "ml"), None, NOW_MS)
    folder = save_import(home, "default", first)
    before = sorted(os.listdir(folder.parent))

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("tastemaker.data.importers.write_json", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_import(home, "default", first)
    assert sorted(os.listdir(folder.parent)) == before
    assert read_dataset(home, "default").fingerprint == first.summary["fingerprint"]


def test_a_second_import_at_the_same_time_is_refused(tmp_path: Path, home: Home) -> None:
    imported = import_events(latest(tmp_path / "ml"), None, NOW_MS)
    with home.lock("import"), pytest.raises(UsageError, match="in use by another process"):
        save_import(home, "default", imported)


def test_summary_is_of_plain_numbers(tmp_path: Path) -> None:
    summary = import_events(latest(tmp_path / "ml"), None, NOW_MS).summary
    assert not any(isinstance(value, np.generic) for value in summary.values())
    assert summary["last_timestamp_ms"] == 1_260_759_179_000
