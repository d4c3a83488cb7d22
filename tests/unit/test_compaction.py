"""Compaction of the archive's days: what it merges, and that readers see every row once at any moment."""

import contextlib
import hashlib
import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.log import freeze_log, read_frozen, read_log
from tastemaker.errors import DataError, UsageError
from tastemaker.events import compaction
from tastemaker.events.archive import EVENT_SCHEMA, event_table, parts_of, read_days, write_days
from tastemaker.events.compaction import MOST_SMALL, Compacted, compact
from tastemaker.events.log import Entry
from tastemaker.events.manifest import read_manifest, undisturbed
from tastemaker.home import Home

DAY = 86_400_000
NOW = 20_000 * DAY + 5
YESTERDAY = NOW - DAY


class Killed(BaseException):
    """Stands for the process's end."""


def table(*ids: str, at: int = YESTERDAY, received_ms: int = NOW, **fields: Any) -> pa.Table:
    """Events of one user; each is a millisecond younger than the one before."""
    events = [
        {"event_id": id_, "user_id": "u", "item_id": "i", "kind": "click", "timestamp_ms": at + n, "origin": "live"}
        for n, id_ in enumerate(ids)
    ]  # fmt: skip
    return event_table([Entry(f"{received_ms}-{n}", json.dumps(e | fields)) for n, e in enumerate(events)])


def ids(folder: Path) -> list[str]:
    found: list[str] = read_days(folder, EVENT_SCHEMA, "event_id")["event_id"].to_pylist()
    return found


def test_a_day_that_is_over_becomes_one_sorted_file_without_repeats(tmp_path: Path) -> None:
    write_days(tmp_path, table("c", "d", at=YESTERDAY + 10))
    write_days(tmp_path, table("b", "a"))
    write_days(tmp_path, table("c", at=YESTERDAY + 10, received_ms=NOW + 9))
    before = read_days(tmp_path, EVENT_SCHEMA, "event_id")
    assert compact(tmp_path, now_ms=NOW) == Compacted(made=1, merged=3, rows=4, deleted=3)
    (path,) = tmp_path.glob("day=*/*")
    rows = pq.ParquetFile(path).read()
    assert rows["event_id"].to_pylist() == ["b", "a", "c", "d"]
    assert set(rows["received_ms"].to_pylist()) == {NOW}  # of c, what came first
    assert read_days(tmp_path, EVENT_SCHEMA, "event_id") == before
    assert compact(tmp_path, now_ms=NOW) == Compacted()


def test_the_manifest_describes_what_was_made(tmp_path: Path) -> None:
    write_days(tmp_path, table("a", received_ms=NOW - 3))
    write_days(tmp_path, table("b", received_ms=NOW))
    compact(tmp_path, now_ms=NOW)
    manifest = read_manifest(tmp_path)
    ((name, file),) = manifest.files.items()
    content = (tmp_path / name).read_bytes()
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert (file.rows, file.min_received_ms, file.max_received_ms) == (2, NOW - 3, NOW)
    assert manifest.merged == ()


def test_of_a_day_that_grows_small_files_are_merged_once_there_are_many(tmp_path: Path) -> None:
    for n in range(MOST_SMALL):
        write_days(tmp_path, table(f"e{n}", at=NOW))
    assert compact(tmp_path, now_ms=NOW).made == 0
    write_days(tmp_path, table("last", at=NOW))
    assert compact(tmp_path, now_ms=NOW) == Compacted(1, MOST_SMALL + 1, MOST_SMALL + 1, MOST_SMALL + 1)
    write_days(tmp_path, table("later", at=NOW))
    assert compact(tmp_path, now_ms=NOW).made == 0  # the merged one does not count as small
    assert compact(tmp_path, now_ms=NOW + DAY) == Compacted(1, 2, MOST_SMALL + 2, 2)


def test_a_late_record_joins_its_day_at_the_next_compaction(tmp_path: Path) -> None:
    write_days(tmp_path, table("a", "b"))
    compact(tmp_path, now_ms=NOW)
    write_days(tmp_path, table("late", "a"))
    assert sorted(ids(tmp_path)) == ["a", "b", "late"]
    assert compact(tmp_path, now_ms=NOW).rows == 3
    assert len(parts_of(tmp_path)) == 1


def die_at(monkeypatch: pytest.MonkeyPatch, effect: int) -> Callable[[], bool]:
    """Ends the process before the disk effect of this number; says whether it came to that."""
    count = itertools.count()
    died: list[bool] = []

    def dying(act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if next(count) == effect:
                died.append(True)
            if died:
                raise Killed
            return act(*args, **kwargs)

        return wrapper

    for name in ("write_part", "write_manifest", "sync"):
        monkeypatch.setattr(compaction, name, dying(getattr(compaction, name)))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))
    return lambda: bool(died)


def test_wherever_a_compaction_is_killed_every_row_is_there_once_and_the_next_one_ends_it(
    tmp_path: Path,
) -> None:
    for effect in itertools.count():
        folder = tmp_path / str(effect)
        for day in (0, 1):
            for n in range(3):
                write_days(folder, table(f"{day}{n}", "again", at=YESTERDAY - day * DAY))
        before = sorted(ids(folder))
        with pytest.MonkeyPatch.context() as patch:
            died = die_at(patch, effect)
            with contextlib.suppress(Killed):
                compact(folder, now_ms=NOW)
        assert sorted(ids(folder)) == before
        write_days(folder, table("new"))
        assert sorted(ids(folder)) == sorted([*before, "new"])
        compact(folder, now_ms=NOW)
        assert sorted(ids(folder)) == sorted([*before, "new"])
        assert len(list(folder.glob("day=*/part-*"))) == 2
        assert read_manifest(folder).merged == ()
        if not died():
            break
    assert effect > 12  # two files, two manifests each, six old ones


def test_readers_see_every_row_once_while_files_come_and_are_merged(tmp_path: Path) -> None:
    write_days(tmp_path, table("first"))
    written, stop = 1, threading.Event()
    wrong: list[str] = []

    def read() -> None:
        while not stop.is_set():
            at_least = written
            found = ids(tmp_path)
            if len(found) != len(set(found)) or not at_least <= len(found) <= written + 1:
                wrong.append(f"{len(found)} rows of {at_least}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(60):
        write_days(tmp_path, table(f"e{n}"))
        written += 1
        if n % 2:
            compact(tmp_path, now_ms=NOW)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_two_compactions_do_not_meet(tmp_path: Path) -> None:
    write_days(tmp_path, table("a"))
    with (
        undisturbed(tmp_path),
        pytest.raises(UsageError, match="are being replaced by another process: wait"),
    ):
        compact(tmp_path, now_ms=NOW)


def test_a_frozen_log_outlives_compactions_and_its_files_go_with_it(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp,stars\nann,i,5,4\n")
    save_import(home, "default", import_events(tmp_path / "events.csv", ColumnMapping(value="stars"), NOW))
    folder = home / "events" / "default"
    write_days(folder, table("a"))
    write_days(folder, table("b"))
    frozen = freeze_log(home, "default")
    write_days(folder, table("c"))
    whole = read_log(home, "default").fingerprint
    assert compact(folder, now_ms=NOW) == Compacted(made=1, merged=3, rows=3, deleted=1)
    assert read_log(home, "default").fingerprint == whole != frozen.fingerprint
    assert read_frozen(home, "default", frozen.fingerprint).fingerprint == frozen.fingerprint
    assert sorted(ids(folder)) == ["a", "b", "c"]
    for path in (folder / "frozen").iterdir():
        path.unlink()
    assert compact(folder, now_ms=NOW).deleted == 2
    assert read_log(home, "default").fingerprint == whole


def test_what_was_not_there_needs_no_compaction(tmp_path: Path) -> None:
    assert compact(tmp_path / "none", now_ms=NOW) == Compacted()


def test_a_damaged_merged_file_a_lost_one_and_a_foreign_manifest_are_named(tmp_path: Path) -> None:
    write_days(tmp_path, table("a"))
    compact(tmp_path, now_ms=NOW)
    (path,) = parts_of(tmp_path)
    write_days(tmp_path, table("b"))
    pq.write_table(table("c"), path)
    with pytest.raises(DataError, match=r"part-.* has changed since it was merged: restore"):
        compact(tmp_path, now_ms=NOW)
    path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*part-.*parquet"):
        read_days(tmp_path, EVENT_SCHEMA, "event_id")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(
        DataError, match=r"schema_version of .*manifest\.json, is 2, must be at most 1: upgrade"
    ):
        parts_of(tmp_path)
    manifest.write_text("{")
    with pytest.raises(DataError, match=r"cannot read .*manifest\.json"):
        parts_of(tmp_path)
