"""Rebuilt features against those that the stream consumer made of the same events, on a real Valkey."""

import dataclasses
import json
import re
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rebuilt import apply, assert_same, by_partition, online, raw, some_events
from streams import DAY_MS, NOW_MS, event, make_consumer, send
from waiting import until

from tastemaker import context
from tastemaker.cli import invoke
from tastemaker.data.importers import ColumnMapping, import_events, save_import
from tastemaker.data.schema import imported_folder
from tastemaker.errors import DataError, StateError, UsageError
from tastemaker.events import archiver, consumer
from tastemaker.events.archive import EVENT_SCHEMA, read_days, write_days
from tastemaker.events.compaction import compact
from tastemaker.events.erasure import user_hash
from tastemaker.events.history import read_history
from tastemaker.events.standstill import Standstill
from tastemaker.features import buckets
from tastemaker.features import rebuild as module
from tastemaker.features.counters import WEIGHT, Counters, row_of
from tastemaker.features.rebuild import rebuild
from tastemaker.features.user_state import UserState
from tastemaker.home import Home

IMPORTED = {"u0": ["i1"], "old": ["i2", "i3"]}
NUM_IMPORTED = 3


@pytest.fixture
def state(state: Any, tmp_path: Path) -> Any:
    """A catalogue with imported events that are online, items of three categories, and a home of its own."""
    home, source = Home.make(tmp_path / "home"), tmp_path / "events.csv"
    rows = [(user, item, 5 + n) for user, items in IMPORTED.items() for n, item in enumerate(items)]
    source.write_text("user_id,item_id,timestamp,stars\n" + "".join(f"{u},{i},{t},4\n" for u, i, t in rows))
    save_import(home, state.keys.catalogue, import_events(source, ColumnMapping(value="stars"), NOW_MS))
    items = imported_folder(home, state.keys.catalogue) / "items.parquet"
    table = pq.read_table(items)
    categories = [f"c{item_id[-1]}" for item_id in table["item_id"].to_pylist()]
    place = table.column_names.index("category")
    pq.write_table(table.set_column(place, table.field(place), pa.array(categories)), items)
    with_longer = state.settings.state.model_copy(update={"history_length": 50, "url": state.url})
    settings = state.settings.model_copy(update={"home": home.root, "state": with_longer})
    rebuild(state.client, state.keys, home, settings.state)
    return dataclasses.replace(state, home=home, settings=settings)


def test_a_rebuild_gives_what_the_consumer_made_by_stream(state: Any) -> None:
    events = some_events(400)
    apply(state, events)
    expected = online(state)
    assert len(expected) > 50
    state.client.delete(*(key.split(" ")[0] for key in expected))
    done = rebuild(state.client, state.keys, state.home, state.settings.state)
    assert_same(online(state), expected)
    num_applied = sum(e.origin == "live" and NOW_MS - e.timestamp_ms < 30 * DAY_MS for e in events)
    assert (done.events, done.users, done.dropped_users) == (num_applied + NUM_IMPORTED, 9, 0)
    assert done.item_counters == sum(":items " in key for key in by_partition(state, expected))
    assert not list((state.home / "run").glob("rebuild-*"))


def test_a_rebuild_of_sound_state_changes_nothing_also_after_a_compaction_and_with_small_buckets(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(state, some_events(200))
    expected = online(state)
    monkeypatch.setattr(buckets, "_ROWS_A_BUCKET", 10)
    monkeypatch.setattr(module, "_USERS_A_COMMIT", 2)
    monkeypatch.setattr(module, "_ITEMS_A_COMMIT", 3)
    folder = state.home / "events" / state.keys.catalogue
    assert compact(folder, now_ms=NOW_MS + 2 * DAY_MS).made > 0
    done = rebuild(state.client, state.keys, state.home, state.settings.state)
    assert_same(online(state), expected)
    assert done.dropped_users == done.dropped_counters == 0


def test_imported_events_count_in_records_counters_and_histories(state: Any) -> None:
    user = UserState.decode(raw(state, "GET", state.keys.user("old")))
    rating, weight = row_of("rating"), row_of(WEIGHT)
    assert user.counters.value_NKW[0, [rating, weight], -1].tolist() == [2, 8]  # two ratings of 4
    assert sorted(user.affinity) == ["c2", "c3"]
    assert read_history(state.client, state.keys, "old") == ["i2", "i3"]
    totals = Counters.decode([raw(state, "HGET", state.keys.item_totals, "i1")])
    assert totals.value_NKW[0, [rating, weight], -1].tolist() == [1, 4]
    assert totals.last_ms_N.tolist() == [5000]
    ranked = state.client.zrange(state.keys.ranking("popular"), 0, -1, withscores=True)
    assert {item_id for item_id, _ in ranked} == {"i1", "i2", "i3"}


def test_loading_is_idempotent_and_live_events_count_once_whether_they_come_before_or_after(
    state: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(context, "_settings", state.settings)
    first, later = some_events(60, seed=3), some_events(60, seed=4)
    apply(state, first)
    for _ in range(2):
        invoke(["data", "load", "--json"])
    apply(state, later)
    loaded_between = online(state)
    invoke(["data", "load"])
    assert_same(online(state), loaded_between)
    said = capsys.readouterr().out
    num_live = sum(e.origin == "live" and NOW_MS - e.timestamp_ms < 30 * DAY_MS for e in first + later)
    assert f"9 users and their items are online, of {num_live + NUM_IMPORTED} events" in said


def test_loading_waits_for_no_consumer_to_run(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_settings", state.settings)
    send(state, event("ann", "i1"))
    worker = make_consumer(state)
    worker.step()
    with pytest.raises(UsageError, match="partitions that a stream consumer reads"):
        invoke(["data", "load"])
    worker.close()


def test_the_order_of_one_millisecond_is_that_of_the_stream(state: Any) -> None:
    items = [f"i{n}" for n in (9, 3, 11, 0, 7, 5)]
    send(state, *(event("ann", item, timestamp_ms=NOW_MS - n) for n, item in enumerate(items)))
    worker = make_consumer(state)
    assert worker.drain(20)
    worker.close()
    compact(state.home / "events" / state.keys.catalogue, now_ms=NOW_MS + 2 * DAY_MS)
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert read_history(state.client, state.keys, "ann") == items


def test_events_that_are_applied_and_not_archived_count_and_offsets_stay(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(state, some_events(100))
    monkeypatch.setattr(consumer, "ARCHIVE_SECONDS", 3600.0)
    worker = make_consumer(state)
    worker.step()  # archives, and then not for an hour
    send(state, *some_events(60, seed=2))
    assert worker.step().events == 60
    worker.close()
    expected = online(state)
    offsets = [state.client.hget(state.keys.offsets(p), "progress") for p in range(state.keys.partitions)]
    send(state, event("u0", "unseen"))  # received and not applied: the consumer's, afterwards
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert_same(by_partition(state, online(state)), by_partition(state, expected))
    assert offsets == [
        state.client.hget(state.keys.offsets(p), "progress") for p in range(state.keys.partitions)
    ]
    worker = make_consumer(state)
    assert worker.drain(20)
    assert read_history(state.client, state.keys, "u0")[-1] == "unseen"
    worker.close()


def test_events_that_were_archived_and_not_trimmed_count_once(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_consumer(state)

    def written_then_killed(folder: Path, table: pa.Table) -> int:
        write_days(folder, table)
        raise KeyboardInterrupt

    monkeypatch.setattr(archiver, "write_days", written_then_killed)
    send(state, *some_events(60))
    with pytest.raises(KeyboardInterrupt):
        worker.step()
    worker.close()
    expected = online(state)
    assert read_days(state.home / "events" / state.keys.catalogue, EVENT_SCHEMA, "event_id").num_rows == 60
    module.rebuild(state.client, state.keys, state.home, state.settings.state)
    found = online(state)
    assert_same(by_partition(state, found), by_partition(state, expected))


def test_what_the_log_does_not_know_is_dropped_and_what_is_damaged_mended(state: Any) -> None:
    apply(state, some_events(100))
    expected = online(state)
    client, keys = state.client, state.keys
    client.set(keys.user("ghost"), UserState().encode())
    client.rpush(keys.history("wraith"), "i1")
    client.hset(keys.item_counters(2), "gone", Counters.zeros(1).encode()[0])
    client.zadd(keys.ranking("popular"), {"gone": 1e9})
    client.zadd(keys.ranking("popular:category=former"), {"i1": 1.0})
    client.set(keys.user("u1"), "no record")
    done = rebuild(client, keys, state.home, state.settings.state)
    assert (done.dropped_users, done.dropped_counters) == (2, 1)
    assert_same(online(state), expected)
    assert client.sismember(keys.changed_users(keys.partition("ghost")), "ghost")


def test_what_an_erased_user_did_before_is_not_brought_back(state: Any) -> None:
    apply(state, [event("ann", "i1", timestamp_ms=NOW_MS - 9), event("ann", "i2"), event("bob", "i1")])
    client, keys = state.client, state.keys
    client.hset(keys.erased(keys.partition("ann")), user_hash("ann"), str(NOW_MS - 1))
    rebuild(client, keys, state.home, state.settings.state)
    assert read_history(client, keys, "ann") == ["i2"]
    assert read_history(client, keys, "bob") == ["i1"]


def test_all_are_marked_for_projection(state: Any) -> None:
    apply(state, some_events(100))
    for p in range(state.keys.partitions):
        state.client.delete(state.keys.changed_users(p))
    rebuild(state.client, state.keys, state.home, state.settings.state)
    marked = {
        user
        for p in range(state.keys.partitions)
        for user in state.client.smembers(state.keys.changed_users(p))
    }
    assert marked == {*(f"u{n}" for n in range(8)), "old"}


def test_a_consumer_that_holds_a_partition_is_not_disturbed(state: Any) -> None:
    send(state, *some_events(10))
    worker = make_consumer(state)
    worker.step()
    with pytest.raises(UsageError, match="partitions that a stream consumer reads, is 4, must be 0: stop it"):
        rebuild(state.client, state.keys, state.home, state.settings.state)
    assert worker.step().partitions == 4
    worker.close()
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert make_consumer(state).step().partitions == 4  # the leases are free again


def test_a_rebuild_that_lost_a_partition_writes_nothing_there(state: Any) -> None:
    apply(state, some_events(50))
    with Standstill(state.client, state.keys) as still:
        state.client.delete(*(state.keys.partition_lease(p) for p in range(4)))
        worker = make_consumer(state)
        send(state, event("u1", "i1"))
        assert worker.step().events == 1
        expected = online(state)
        with pytest.raises(StateError, match="a stream consumer has taken a partition: stop it"):
            module._Rebuild(state.client, state.keys, state.home, state.settings.state, still).run()
        assert_same(online(state), expected)
        worker.close()


def test_a_rebuild_that_was_cut_off_is_run_again(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(state, some_events(150))
    expected = online(state)
    commit = module._Rebuild._commit
    count = iter(range(3))

    def cut_off(*args: Any) -> None:
        if next(count, None) is None:
            raise KeyboardInterrupt
        commit(*args)

    monkeypatch.setattr(module, "_USERS_A_COMMIT", 1)
    with monkeypatch.context() as patch:
        patch.setattr(module._Rebuild, "_commit", cut_off)
        with pytest.raises(KeyboardInterrupt):
            rebuild(state.client, state.keys, state.home, state.settings.state)
    assert_same(online(state), expected)
    rebuild(state.client, state.keys, state.home, state.settings.state)
    assert_same(online(state), expected)


def test_a_damaged_day_is_named_before_anything_is_written(state: Any) -> None:
    apply(state, some_events(30))
    expected = online(state)
    (part, *_) = (state.home / "events" / state.keys.catalogue).glob("day=*/part-*")
    part.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"cannot sort the log in .*: make room, or mend the days"):
        rebuild(state.client, state.keys, state.home, state.settings.state)
    assert_same(online(state), expected)
    assert not list((state.home / "run").glob("rebuild-*"))


def test_an_empty_catalogue_can_be_rebuilt(state: Any, tmp_path: Path) -> None:
    empty = dataclasses.replace(state.keys, catalogue="nothing-yet")
    done = rebuild(state.client, empty, Home.make(tmp_path / "empty"), state.settings.state)
    assert (done.events, done.users, done.item_counters) == (0, 0, 0)


def test_the_command_says_what_it_did(
    state: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apply(state, [event("ann", "i1"), event("bob", "i1"), event("bob", "i2")])
    monkeypatch.setattr(context, "_settings", state.settings)
    invoke(["features", "rebuild", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["events"], found["users"], found["dropped_users"]) == (3 + NUM_IMPORTED, 4, 0)
    invoke(["features", "rebuild"])
    assert re.search(r"events\W+6\n", capsys.readouterr().out.replace(" │", "").replace("│", ""))


def test_leases_outlive_their_time_while_they_are_renewed_and_their_loss_is_said(state: Any) -> None:
    lease = state.keys.partition_lease(0)
    with Standstill(state.client, state.keys, seconds=0.6) as still:
        held_until = time.monotonic() + 1.0
        while time.monotonic() < held_until:
            still.hold()
            assert state.client.exists(lease)
        state.client.delete(lease)
        with pytest.raises(StateError, match="a stream consumer has taken a partition: stop it"):
            until(still.hold, "the loss", seconds=5.0)
    assert not state.client.exists(state.keys.partition_lease(1))
