"""The log that training reads: imported rows and archived live ones together."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.log import freeze_log, read_frozen, read_impressions, read_log
from tastemaker.data.schema import POSITIVE_KINDS, Dataset, read_dataset
from tastemaker.errors import DataError
from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.home import Home
from tastemaker.users.merged import Merge, note

NOW_MS = 1_700_000_000_000
_ids = itertools.count()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home with two imported ratings: of ann 5 s, of bob 6 s after the epoch."""
    home = Home.make(tmp_path / "home")
    source = tmp_path / "events.csv"
    source.write_text("user_id,item_id,timestamp,stars\nann,a,5,4\nbob,b,6,3\n")
    save_import(home, "default", import_events(source, ColumnMapping(value="stars"), NOW_MS))
    return home


def archive(home: Home, *events: dict[str, Any], catalogue: str = "default") -> None:
    """Archives events as the stream consumer does, in one file a day."""
    whole = [
        {"event_id": f"e{next(_ids)}", "kind": "click", "timestamp_ms": 7000, "origin": "live"} | event
        for event in events
    ]
    table = event_table([Entry(f"{n}-0", json.dumps(event)) for n, event in enumerate(whole, 1)])
    write_days(home / "events" / catalogue, table)


def rows(dataset: Dataset) -> list[tuple[str, str, str, float, int]]:
    return [
        (dataset.user_ids[u], dataset.item_ids[i], POSITIVE_KINDS[k], float(v), int(t))
        for u, i, k, v, t in zip(
            dataset.user_index, dataset.item_index, dataset.kind_index, dataset.value, dataset.timestamp_ms, strict=True
        )
    ]  # fmt: skip


def test_without_live_events_the_log_is_the_imported_dataset(home: Home) -> None:
    assert read_log(home, "default").fingerprint == read_dataset(home, "default").fingerprint
    archive(home, {"user_id": "ann", "item_id": "b"}, catalogue="other")
    assert read_log(home, "default").fingerprint == read_dataset(home, "default").fingerprint


def test_live_and_replayed_events_follow_the_imported_rows(home: Home) -> None:
    archive(
        home,
        {"user_id": "bob", "item_id": "a", "kind": "purchase", "timestamp_ms": 8000, "origin": "replay"},
        {"user_id": "eve", "item_id": "b", "kind": "watch", "value": 90.5, "timestamp_ms": 86_400_001},
        {"user_id": "ann", "item_id": "b", "kind": "click"},
    )
    dataset = read_log(home, "default")
    assert rows(dataset) == [
        ("ann", "a", "rating", 4.0, 5000),
        ("ann", "b", "click", 0.5, 7000),
        ("bob", "b", "rating", 3.0, 6000),
        ("bob", "a", "purchase", 1.0, 8000),
        ("eve", "b", "watch", 90.5, 86_400_001),
    ]
    assert dataset.fingerprint != read_dataset(home, "default").fingerprint


def test_positions_and_devices_of_live_events_come_into_the_dataset(home: Home) -> None:
    archive(
        home,
        {"user_id": "ann", "item_id": "b", "position": 0, "context": {"country": "NO", "device": "Tablet"}},
        {"user_id": "bob", "item_id": "a", "position": 6, "context": {"country": "NO"}},
        {"user_id": "eve", "item_id": "a"},
        {"user_id": "eve", "item_id": "b", "position": 2, "kind": "impression", "context": {"device": "tv"}},
    )
    dataset = freeze_log(home, "default")
    assert [item for _, item, *_ in rows(dataset)] == ["a", "b", "b", "a", "a"]
    assert dataset.slot.tolist() == [0, 1, 0, 7, 0]
    assert dataset.device_row.tolist() == [0, 2, 0, 0, 0]
    shown = read_impressions(home, "default", dataset.fingerprint)
    assert shown.select(["position", "device"]).to_pylist() == [{"position": 2, "device": "tv"}]


def test_simulated_events_and_kinds_that_are_no_consumption_stay_out(home: Home) -> None:
    archive(
        home,
        {"user_id": "bot", "item_id": "a", "origin": "simulator"},
        {"user_id": "ann", "item_id": "new", "kind": "impression"},
        {"user_id": "ann", "item_id": "b", "kind": "hide"},
    )
    assert read_log(home, "default").fingerprint == read_dataset(home, "default").fingerprint


def test_an_event_that_was_archived_twice_counts_once(home: Home) -> None:
    one = {"event_id": "twice", "user_id": "ann", "item_id": "b"}
    archive(home, one)
    once = read_log(home, "default")
    archive(home, one)
    assert read_log(home, "default").fingerprint == once.fingerprint
    assert len(once) == 3


def test_an_item_that_only_events_name_gets_a_bare_row_behind_the_others(home: Home) -> None:
    archive(home, {"user_id": "ann", "item_id": "new"})
    dataset = read_log(home, "default")
    assert dataset.item_ids == ["a", "b", "new"]
    assert dataset.items.to_pylist()[2] == {
        "item_id": "new", "title": "new", "category": "", "tags": [], "created_at_ms": None,
    }  # fmt: skip


def test_a_frozen_log_stays_while_the_log_grows(home: Home) -> None:
    archive(home, {"user_id": "ann", "item_id": "new"})
    frozen = freeze_log(home, "default")
    archive(home, {"user_id": "ann", "item_id": "newer"})
    grown = freeze_log(home, "default")
    assert read_log(home, "default").fingerprint == grown.fingerprint != frozen.fingerprint
    for one in (frozen, grown):
        again = read_frozen(home, "default", one.fingerprint)
        assert again.fingerprint == one.fingerprint
        assert rows(again) == rows(one)


def test_a_log_without_live_events_can_be_frozen(home: Home) -> None:
    fingerprint = freeze_log(home, "default").fingerprint
    archive(home, {"user_id": "ann", "item_id": "b"})
    assert read_frozen(home, "default", fingerprint).fingerprint == fingerprint


def test_a_log_that_was_never_frozen_is_the_imported_table(home: Home) -> None:
    archive(home, {"user_id": "ann", "item_id": "b"})
    assert len(read_frozen(home, "default", "f" * 64)) == 2


def test_only_the_newest_frozen_logs_are_kept(home: Home) -> None:
    made = []
    for n in range(6):
        archive(home, {"user_id": f"u{n}", "item_id": "a"})
        made.append(freeze_log(home, "default").fingerprint[:16])
    assert {path.stem for path in (home / "events/default/frozen").iterdir()} == set(made[-4:])


def test_a_catalogue_without_an_import_and_a_damaged_day_say_so(home: Home) -> None:
    with pytest.raises(DataError, match="catalogue other has no data: run"):
        read_log(home, "other")
    archive(home, {"user_id": "ann", "item_id": "b"})
    (part,) = (home / "events" / "default").glob("day=*/part-*.parquet")
    part.write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"cannot read .*part-.*parquet"):
        read_log(home, "default")


def test_simulated_rows_in_the_imported_table_are_refused(home: Home) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = home / "events" / "default" / "imported" / "interactions.parquet"
    table = pq.read_table(file)
    origin = table.schema.get_field_index("origin")
    pq.write_table(table.set_column(origin, "origin", pa.array(["live", "simulator"])), file)
    with pytest.raises(DataError, match="imported interactions have origin simulator"):
        read_log(home, "default")


def test_impressions_are_those_of_the_frozen_log(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "shown.csv"
    source.write_text(
        "user_id,item_id,timestamp,what\nann,a,5,click\nann,b,6,impression\nbob,b,7,impression\nbob,a,8,hide\n"
    )
    save_import(home, "default", import_events(source, ColumnMapping(kind="what"), NOW_MS))
    archive(
        home,
        {"user_id": "bob", "item_id": "b", "timestamp_ms": 9000},
        {"user_id": "ann", "item_id": "c", "timestamp_ms": 11_000, "kind": "impression"},
        {"user_id": "ann", "item_id": "d", "timestamp_ms": 10_000, "kind": "impression", "origin": "replay"},
        {
            "user_id": "ann",
            "item_id": "e",
            "timestamp_ms": 12_000,
            "kind": "impression",
            "origin": "simulator",
        },
    )
    frozen = freeze_log(home, "default")
    archive(home, {"user_id": "ann", "item_id": "f", "kind": "impression"})
    assert freeze_log(home, "default").fingerprint == frozen.fingerprint  # the same events were taken
    shown = read_impressions(home, "default", frozen.fingerprint)
    assert set(shown["kind"].to_pylist()) == {"impression"}
    assert shown.select(["user_id", "item_id", "timestamp_ms"]).to_pydict() == {
        "user_id": ["ann", "bob", "ann", "ann"],
        "item_id": ["b", "b", "d", "c"],
        "timestamp_ms": [6000, 7000, 10_000, 11_000],
    }


def test_impressions_that_come_after_a_log_was_frozen_are_none_of_it(home: Home) -> None:
    fingerprint = freeze_log(home, "default").fingerprint
    archive(home, {"user_id": "ann", "item_id": "b", "kind": "impression"})
    assert freeze_log(home, "default").fingerprint == fingerprint
    assert len(read_impressions(home, "default", fingerprint)) == 0


def test_a_frozen_log_that_is_damaged_or_has_lost_a_file_says_so(home: Home) -> None:
    archive(home, {"user_id": "ann", "item_id": "b"})
    fingerprint = freeze_log(home, "default").fingerprint
    (part,) = (home / "events" / "default").glob("day=*/part-*.parquet")
    part.unlink()
    with pytest.raises(
        DataError, match=r"part-.*\.parquet, which .*\.json names, is 'gone', must be there: delete it"
    ):
        read_frozen(home, "default", fingerprint)
    (file,) = (home / "events" / "default" / "frozen").iterdir()
    file.write_text("[]")
    with pytest.raises(DataError, match=r"frozen/.*\.json cannot be read"):
        read_frozen(home, "default", fingerprint)


def test_merged_users_are_one_and_a_frozen_log_keeps_to_the_merges_of_its_time(home: Home) -> None:
    archive(
        home,
        {"user_id": "cookie", "item_id": "c"},
        {"user_id": "cookie", "item_id": "d", "kind": "impression"},
    )
    note(home, "default", Merge("cookie", "ann", 100))
    frozen = freeze_log(home, "default")
    assert {(user, item) for user, item, *_ in rows(frozen)} == {("ann", "a"), ("ann", "c"), ("bob", "b")}
    shown = read_impressions(home, "default", frozen.fingerprint)
    assert shown["user_id"].to_pylist() == ["ann"]
    note(home, "default", Merge("bob", "ann", 200))
    assert set(read_log(home, "default").user_ids) == {"ann"}
    again = read_frozen(home, "default", frozen.fingerprint)
    assert again.fingerprint == frozen.fingerprint
    assert set(again.user_ids) == {"ann", "bob"}
