"""What the stream consumer makes of live events: records, counters, totals, rankings, dead letters; on a real Valkey."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from streams import DAY_MS, NOW_MS, event, make_consumer, records, send, user_state

from tastemaker import telemetry
from tastemaker.data.schema import ITEMS_SCHEMA, imported_folder
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.events.history import read_history
from tastemaker.features.counters import WEIGHT, Counters, row_of
from tastemaker.features.partials import Partials
from tastemaker.features.rankings import MOST_RANKED, in_category, top
from tastemaker.features.totals import ItemTotals
from tastemaker.features.user_state import UserState, after

ALL = -1
"""The window that never forgets."""


def import_items(state: Any, **categories: str) -> None:
    folder = imported_folder(state.home, state.keys.catalogue)
    folder.mkdir(parents=True, exist_ok=True)
    ids = list(categories)
    columns = [ids, ids, list(categories.values()), [[]] * len(ids), [None] * len(ids)]
    table = pa.table(dict(zip(ITEMS_SCHEMA.names, columns, strict=True)), schema=ITEMS_SCHEMA)
    pq.write_table(table, folder / "new.parquet")
    (folder / "new.parquet").replace(folder / "items.parquet")


def item_counters(state: Any, user: str, item: str) -> Counters:
    """Of an item in the partition of a user."""
    key = state.keys.item_counters(state.keys.partition(user))
    return Counters.decode(records(state, key, [item]))


def totals(state: Any, *items: str) -> Counters:
    return Counters.decode(records(state, state.keys.item_totals, items))


def metric(name: Any, *labels: str) -> float:
    return float(name.labels(*labels)._value.get())


def test_a_users_record_and_the_items_counters_follow_the_events(state: Any) -> None:
    import_items(state, a="comedy", b="drama")
    events = [
        event("ann", "a", "view", timestamp_ms=NOW_MS - DAY_MS),
        event("ann", "b", "purchase", value=9.5),
        event("ann", "a", "impression"),
    ]
    worker = make_consumer(state)
    send(state, *events[:1])
    worker.step()
    send(state, *events[1:])
    worker.step()
    ann = user_state(state, "ann")
    assert ann.counters.value_NKW[0, row_of(WEIGHT), ALL] == pytest.approx(0.25 + 1.0, abs=1e-12)
    assert ann.tastes(NOW_MS) == pytest.approx({"comedy": 0.25 * math.exp(-0.1), "drama": 1.0}, rel=1e-12)
    assert [signal.item_id for signal in ann.taken] == ["a", "b"]
    assert ann.shown["a"] == (1.0, NOW_MS)
    of_a = item_counters(state, "ann", "a")
    assert of_a.value_NKW[0, [row_of("view"), row_of("impression")], ALL].tolist() == [1.0, 1.0]
    # A view a day ago, of the window of one day.
    assert of_a.value_NKW[0, row_of("view"), 1] == pytest.approx(math.exp(-1), rel=1e-12)


def test_stream_and_one_batch_give_the_same_record(state: Any) -> None:
    import_items(state, i0="comedy", i1="drama", i2="comedy")
    rng = np.random.default_rng(4)
    kinds = ("view", "click", "impression", "hide", "like")
    events = [
        event("ann", f"i{rng.integers(3)}", str(rng.choice(kinds)), timestamp_ms=NOW_MS - int(rng.integers(DAY_MS)))
        for _ in range(60)
    ]  # fmt: skip
    worker = make_consumer(state)
    for start in range(0, 60, 7):
        send(state, *events[start : start + 7])
        worker.step()
    categories = {"i0": "comedy", "i1": "drama", "i2": "comedy"}
    (whole,) = after([UserState()], [events], categories.__getitem__)
    found = user_state(state, "ann")
    np.testing.assert_allclose(found.counters.value_NKW, whole.counters.value_NKW, rtol=1e-9)
    assert found.affinity == pytest.approx(whole.affinity, rel=1e-9)
    assert (found.taken, found.opinions) == (whole.taken, whole.opinions)


def test_simulated_and_replayed_events_touch_no_live_state(state: Any) -> None:
    send(state, event("bot", "a", origin="simulator"), event("old", "a", origin="replay"))
    make_consumer(state).drain(10)
    assert state.client.keys(f"tm:{{{state.keys.catalogue}:*user:*") == []
    assert state.client.exists(*(state.keys.item_counters(p) for p in range(4)), state.keys.item_totals) == 0


def test_an_event_that_comes_too_late_is_archived_and_nothing_else(state: Any) -> None:
    late, in_time = NOW_MS - 31 * DAY_MS, NOW_MS - 29 * DAY_MS
    send(state, event("ann", "late", timestamp_ms=late), event("ann", "old", timestamp_ms=in_time))
    assert make_consumer(state).drain(10)
    assert read_history(state.client, state.keys, "ann") == ["old"]
    assert user_state(state, "ann").counters.value_NKW[0, row_of("click"), ALL] == 1.0
    folder = state.home / "events" / state.keys.catalogue
    assert read_days(folder, EVENT_SCHEMA, "event_id")["item_id"].to_pylist() == ["late", "old"]
    assert metric(telemetry.LATE_EVENTS, state.keys.catalogue) == 1


def test_totals_are_the_sum_over_partitions_and_marks_go(state: Any) -> None:
    users = [f"u{n}" for n in range(20)]
    assert len({state.keys.partition(user) for user in users}) == 4
    send(state, *(event(user, "a") for user in users), event("u0", "b", "impression"))
    assert make_consumer(state).drain(10)
    counted = totals(state, "a", "b", "unknown")
    assert counted.value_NKW[:, row_of("click"), ALL].tolist() == [20.0, 0.0, 0.0]
    assert counted.value_NKW[:, row_of(WEIGHT), ALL].tolist() == [10.0, 0.0, 0.0]
    assert counted.value_NKW[1, row_of("impression"), ALL] == 1.0
    assert not any(state.client.scard(state.keys.changed_items(p)) for p in range(4))
    assert state.client.smembers(state.keys.changed_totals) == {"a", "b"}
    changed = {user for p in range(4) for user in state.client.smembers(state.keys.changed_users(p))}
    assert changed == set(users)  # the projection of users takes those away


def test_a_mark_stays_where_the_item_changed_while_it_was_summed_up(
    state: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_consumer(state)
    worker._project_at = math.inf
    send(state, event("ann", "a"), event("ann", "a"))
    worker.step()
    other = ItemTotals(state.client, state.keys, lambda _: "")
    worker.close()
    read = Partials._read

    def read_and_change(self: Partials, item_ids: list[str]) -> Any:
        found = read(self, item_ids)
        monkeypatch.setattr(Partials, "_read", read)
        send(state, event("ann", "a"))
        make_consumer(state).step()
        return found

    monkeypatch.setattr(Partials, "_read", read_and_change)
    assert other.project() == 1
    assert totals(state, "a").value_NKW[0, row_of("click"), ALL] == 2.0
    assert other.project() == 1  # the mark was still there
    assert totals(state, "a").value_NKW[0, row_of("click"), ALL] == 3.0
    assert other.project() == 0


def test_an_outlived_holder_cannot_write_older_totals(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = make_consumer(state)
    worker._project_at = math.inf
    send(state, event("ann", "a"), event("ann", "a"))
    worker.step()
    worker.close()
    stale, fresh = (ItemTotals(state.client, state.keys, lambda _: "") for _ in range(2))
    read = Partials._read

    def read_and_stand_still(self: Partials, item_ids: list[str]) -> Any:
        found = read(self, item_ids)
        monkeypatch.setattr(Partials, "_read", read)
        state.client.delete(state.keys.lease)
        send(state, event("ann", "a"))
        make_consumer(state).step()  # it projects too, under the next lease
        return found

    monkeypatch.setattr(Partials, "_read", read_and_stand_still)
    assert stale.project() == 0
    assert totals(state, "a").value_NKW[0, row_of("click"), ALL] == 3.0
    assert fresh.project() == 0


def test_rankings_order_items_by_their_decayed_weight_without_a_scan(state: Any) -> None:
    import_items(state, hit="drama", news="drama", film="comedy", none="")
    events = [event(f"u{n}", "hit", timestamp_ms=NOW_MS - 14 * DAY_MS) for n in range(4)]
    events += [event("u1", "news"), event("u2", "none"), event("u3", "none")]
    events += [event(f"u{n}", "film", timestamp_ms=NOW_MS - 7 * DAY_MS) for n in range(2)]
    events += [event("u5", "shown", "impression")]
    send(state, *events)
    assert make_consumer(state).drain(10)
    # Clicks weigh .5; of a week's window: hit 2 e^-2 = .27, film 1 e^-1 = .37, news .5, none 1.
    assert top(state.client, state.keys, "trending", 10, NOW_MS).item_ids == ["none", "news", "film", "hit"]
    assert top(state.client, state.keys, "popular", 1, NOW_MS).item_ids == ["hit"]
    assert top(state.client, state.keys, in_category("trending", "drama"), 10, NOW_MS).item_ids == [
        "news",
        "hit",
    ]
    assert top(state.client, state.keys, in_category("popular", "drama"), 10, NOW_MS).item_ids == [
        "hit",
        "news",
    ]
    score = state.client.zscore(state.keys.ranking("trending"), "hit")
    now = score - NOW_MS / (7 * DAY_MS)  # comparable with what is written at any other time
    assert math.exp(now) == pytest.approx(2 * math.exp(-2), rel=1e-6)


def test_an_item_that_lost_its_counters_loses_totals_and_ranks(state: Any) -> None:
    import_items(state, a="drama")
    worker = make_consumer(state)
    send(state, event("ann", "a"), event("ann", "b"))
    assert worker.drain(10)
    partition = state.keys.partition("ann")
    state.client.hdel(state.keys.item_counters(partition), "a")  # as an erase of its one user leaves it
    state.client.sadd(state.keys.changed_items(partition), "a")
    assert worker.drain(10)
    assert state.client.hkeys(state.keys.item_totals) == ["b"]
    for name in ("popular", "trending"):
        assert top(state.client, state.keys, name, 10, NOW_MS).item_ids == ["b"]
        assert top(state.client, state.keys, in_category(name, "drama"), 10, NOW_MS).item_ids == []
    assert state.client.scard(state.keys.changed_items(partition)) == 0


def test_a_ranking_keeps_a_bounded_number_of_the_best(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.features.rankings.MOST_RANKED", 3)
    send(state, *(event("ann", f"i{n}") for n in range(6) for _ in range(n + 1)))
    assert make_consumer(state).drain(10)
    assert top(state.client, state.keys, "popular", MOST_RANKED, NOW_MS).item_ids == ["i5", "i4", "i3"]


def test_another_import_changes_the_categories_of_a_running_consumer(state: Any) -> None:
    worker = make_consumer(state)
    for category in ("", "comedy", "drama"):
        if category:
            import_items(state, a=category)
        send(state, event("ann", "a"))
        worker.step()
    assert set(user_state(state, "ann").affinity) == {"comedy", "drama"}


def test_lag_and_age_are_reported(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tastemaker.events.batch.BATCH", 2)
    stream = state.keys.events(state.keys.partition("u"))
    for n in range(3):
        record = event("u", "a").model_dump_json()
        state.client.xadd(stream, {"e": record}, id=f"{NOW_MS - 60_000 + n}-0")
    worker = make_consumer(state)
    worker.step()
    assert metric(telemetry.CONSUMER_LAG, state.keys.catalogue) > 0
    assert 60 <= metric(telemetry.CONSUMER_AGE, state.keys.catalogue) < 3600
    assert worker.drain(10)
    assert metric(telemetry.CONSUMER_LAG, state.keys.catalogue) == 0
    assert metric(telemetry.CONSUMER_AGE, state.keys.catalogue) == 0
