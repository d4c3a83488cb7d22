"""Days of events and rows that were refused: which go, which something still needs. Without a server."""

import json
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.config_retention import RetentionSettings
from tastemaker.data.importers import ColumnMapping, import_events, num_refused_rows, save_import
from tastemaker.data.log import freeze_log, read_frozen
from tastemaker.errors import DataError
from tastemaker.events.archive import EVENT_SCHEMA, event_table, parts_of, read_days, write_days
from tastemaker.events.compaction import compact
from tastemaker.events.expiry import expire_day, expired_parts
from tastemaker.events.log import Entry
from tastemaker.events.manifest import read_manifest
from tastemaker.home import Home
from tastemaker.retention.days import doomed_days, doomed_rejects, remove_rejects
from tastemaker.retention.gone import DAY_SECONDS, Gone, Limits

NOW = 1_800_000_000.0


def limits(**told: Any) -> Limits:
    return Limits(RetentionSettings(**told), NOW)


def events(day: int, *ids: str) -> pa.Table:
    """Events of the day `day` days before NOW."""
    at = round((NOW - day * DAY_SECONDS) * 1000)
    rows = [
        {
            "event_id": one,
            "user_id": "u",
            "item_id": "i",
            "kind": "click",
            "timestamp_ms": at,
            "origin": "live",
        }
        for one in ids
    ]
    return event_table([Entry(f"{at}-{n}", json.dumps(row)) for n, row in enumerate(rows)])


def day_of(days_ago: int) -> str:
    return (datetime.fromtimestamp(NOW, UTC) - timedelta(days=days_ago)).date().isoformat()


def ids(folder: Path) -> list[str]:
    found: list[str] = read_days(folder, EVENT_SCHEMA, "event_id")["event_id"].to_pylist()
    return found


@pytest.mark.parametrize("compacted", [False, True])
def test_old_days_no_longer_count_and_their_files_go(tmp_path: Path, compacted: bool) -> None:
    home = Home.make(tmp_path / "home")
    folder = home / "events" / "shop"
    for days_ago in (10, 9, 8, 1):
        write_days(folder, events(days_ago, f"a{days_ago}"))
        write_days(folder, events(days_ago, f"b{days_ago}"))
    if compacted:
        compact(folder, now_ms=round(NOW * 1000))
    assert doomed_days(home, "shop", "event day", limits(), None) == []
    found = doomed_days(home, "shop", "event day", limits(event_days=8), None)
    assert [(one.kind, one.name) for one in found] == [("event day", day_of(10)), ("event day", day_of(9))]
    assert found[0].num_bytes == sum(path.stat().st_size for path in folder.glob(f"day={day_of(10)}/*"))
    for one in found:
        assert expire_day(folder, one.name) == (1 if compacted else 2)
    assert ids(folder) == ["a8", "b8", "a1", "b1"]
    assert list(folder.glob(f"day={day_of(10)}/*")) == list(folder.glob(f"day={day_of(9)}/*")) == []
    assert read_manifest(folder).merged == ()
    assert all((folder / name).exists() for name in read_manifest(folder).files)
    assert doomed_days(home, "shop", "event day", limits(event_days=8), None) == []


def test_days_that_a_running_experiment_needs_stay(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    for days_ago in (40, 30, 20):
        write_days(home / "decisions" / "shop", events(days_ago, "a"))
    first = datetime.fromtimestamp(NOW - 30 * DAY_SECONDS, UTC).date()
    found = doomed_days(home, "shop", "decision day", limits(decision_days=7), first)
    assert [one.name for one in found] == [day_of(40)]


def test_a_frozen_log_keeps_the_files_of_days_that_no_longer_count(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    folder = home / "events" / "shop"
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\nu,i,1\nv,j,2\n")
    save_import(home, "shop", import_events(path, ColumnMapping(), round(NOW * 1000)))
    write_days(folder, events(10, "a"))
    frozen = freeze_log(home, "shop")
    expire_day(folder, day_of(10))
    assert ids(folder) == []
    assert parts_of(folder) == []
    assert read_frozen(home, "shop", frozen.fingerprint).fingerprint == frozen.fingerprint
    (record,) = (folder / "frozen").glob("*.json")
    record.unlink()
    compact(folder, now_ms=round(NOW * 1000))
    assert list(folder.glob("day=*/*")) == []


def test_a_day_that_was_taken_out_half_way_is_taken_out_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_days(tmp_path, events(10, "a"))
    write_days(tmp_path, events(1, "b"))

    def killed(path: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        expire_day(tmp_path, day_of(10))
    monkeypatch.undo()
    assert ids(tmp_path) == ["b"]
    tomorrow = datetime.fromtimestamp(NOW + DAY_SECONDS, UTC).date()
    assert [path.parent.name for path in expired_parts(tmp_path, tomorrow)] == [f"day={day_of(1)}"]
    compact(tmp_path, now_ms=round(NOW * 1000))
    assert list(tmp_path.glob(f"day={day_of(10)}/*")) == []


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=12), st.integers(1, 31))
def test_what_is_left_is_what_is_young_enough(written: Sequence[tuple[int, int]], days: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Home.make(Path(scratch) / "home")
        folder = home / "events" / "shop"
        for n, (days_ago, _) in enumerate(written):
            write_days(folder, events(days_ago, f"e{n}"))
            if n % 3 == 2:
                compact(folder, now_ms=round(NOW * 1000))
        for one in doomed_days(home, "shop", "event day", limits(event_days=days), None):
            expire_day(folder, one.name)
        left = {f"e{n}" for n, (days_ago, _) in enumerate(written) if days_ago <= days}
        assert set(ids(folder)) == left


def test_refused_rows_go_and_their_number_stays(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\nu,i,1\nv,,2\n")
    save_import(home, "shop", import_events(path, ColumnMapping(), round(NOW * 1000)))
    rejects = home / "events" / "shop" / "imported" / "rejects.parquet"
    os.utime(rejects, (NOW - 8 * DAY_SECONDS,) * 2)
    assert list(doomed_rejects(home, "shop", limits())) == []
    assert list(doomed_rejects(home, "shop", limits(reject_days=9))) == []
    (found,) = doomed_rejects(home, "shop", limits(reject_days=7))
    size = rejects.stat().st_size
    assert found == Gone(
        "refused rows", "events/shop/imported/rejects.parquet", "1 rows, refused over 7 days ago", size
    )
    remove_rejects(home, "shop")
    assert pq.read_table(rejects).num_rows == 0
    assert num_refused_rows(home, "shop") == 1
    os.utime(rejects, (NOW - 8 * DAY_SECONDS,) * 2)
    assert list(doomed_rejects(home, "shop", limits(reject_days=7))) == []
    rejects.write_bytes(b"no parquet")
    os.utime(rejects, (NOW - 8 * DAY_SECONDS,) * 2)
    with pytest.raises(DataError, match="import again"):
        list(doomed_rejects(home, "shop", limits(reject_days=7)))
