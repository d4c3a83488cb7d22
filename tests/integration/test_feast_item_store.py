"""Items' columns in memory follow the totals, and change as a whole, on a real Valkey."""

import threading
from typing import Any

import numpy as np
import pytest
from records import NOW_MS, counters_of, event, write_items

from tastemaker.errors import CompatibilityError, StateError
from tastemaker.features import item_store
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.features.records import scan_totals
from tastemaker.features.view_rows import item_rows
from tastemaker.features.views import VIEW, ViewRows
from tastemaker.state.connection import connect

ITEM_IDS = [f"i{n}" for n in range(300)]


def store_of(item_ids: list[str]) -> ItemStore:
    value_NF = np.tile([float(NOW_MS), np.nan, np.nan], (len(item_ids), 1))
    categories = [f"c{n % 3}" if n % 4 else "" for n in range(len(item_ids))]
    rows = ViewRows(VIEW["item_attributes"], value_NF, {"item_category": categories})
    return ItemStore(ItemFacts.of(item_ids, rows))


def write(state: Any, clicks: dict[str, int]) -> None:
    events = [event("u", item_id, "click") for item_id, count in clicks.items() for _ in range(count)]
    encoded = counters_of(events, list(clicks)).encode()
    write_items(state.client, state.keys, dict(zip(clicks, encoded, strict=True)))


def test_a_refresh_takes_what_changed_and_no_more(state: Any):
    store = store_of(ITEM_IDS)
    first = store.snapshot
    assert (len(first), first.version, store.refresh(state.client, state.keys)) == (300, 0, 0)
    write(state, {item_id: n % 5 + 1 for n, item_id in enumerate(ITEM_IDS)} | {"unknown": 1})
    assert store.refresh(state.client, state.keys) == 300
    second = store.snapshot
    assert store.refresh(state.client, state.keys) == 0
    assert store.snapshot is second
    write(state, {"i7": 9})
    assert store.refresh(state.client, state.keys) == 1
    click = VIEW["item_counters"].position["item_click_7d"]
    assert [s.counters.value_NF[7, click] for s in (first, second, store.snapshot)] == [0, 3, 9]
    assert [s.version for s in (first, second, store.snapshot)] == [0, 1, 2]
    assert store.snapshot.counters.value_NF[8, click] == 4


def test_totals_are_read_again_only_where_some_were_written(state: Any, monkeypatch: pytest.MonkeyPatch):
    scans = []
    monkeypatch.setattr(item_store, "scan_totals", lambda *told: scans.append(1) or scan_totals(*told))
    store = store_of(ITEM_IDS)
    found = [store.refresh(state.client, state.keys) for _ in range(2)]  # of what no version tells, always
    write(state, {"i1": 1})
    found += [store.refresh(state.client, state.keys) for _ in range(3)]
    assert (found, len(scans)) == ([0, 0, 1, 0, 0], 3)


def test_of_an_item_whose_totals_are_gone_nothing_is_known(state: Any):
    store = store_of(ITEM_IDS)
    write(state, {"i1": 1, "i2": 2})
    store.refresh(state.client, state.keys)
    state.client.hdel(state.keys.item_totals, "i1")
    state.client.hset(state.keys.item_totals_guard, "version", "another")
    assert store.refresh(state.client, state.keys) == 1
    assert not store.snapshot.counters.value_NF[1].any()
    assert store.snapshot.counters.value_NF[2].any()
    assert store.refresh(state.client, state.keys) == 0


def test_the_columns_are_those_of_the_records(state: Any):
    events = [event("u", "i1", "purchase"), event("u", "i2", "view", NOW_MS - 5)]
    counters = counters_of(events, ["i1", "i2"])
    write_items(state.client, state.keys, dict(zip(["i1", "i2"], counters.encode(), strict=True)))
    store = store_of(ITEM_IDS)
    store.refresh(state.client, state.keys)
    for found, expected in zip(
        (store.snapshot.counters, store.snapshot.popularity), item_rows(counters), strict=True
    ):
        np.testing.assert_array_equal(found.value_NF[1:3], expected.value_NF)
        assert not found.value_NF[3:].any()
    assert store.snapshot.facts.category_I[:5].tolist() == [0, 2, 3, 1, 0]


def test_a_reader_sees_one_version_while_others_come(state: Any):
    store = store_of(ITEM_IDS)
    click, view = (VIEW["item_counters"].position[f"item_click_{w}"] for w in ("1h", "30d"))
    torn, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            value_IF = store.snapshot.counters.value_NF
            if len({*value_IF[:, click].tolist(), *value_IF[:, view].tolist()}) > 1:
                torn.append(value_IF)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for count in range(1, 15):
            write(state, dict.fromkeys(ITEM_IDS, count))
            assert store.refresh(state.client, state.keys) == 300
    finally:
        stop.set()
        reader.join()
    assert not torn
    assert store.snapshot.version == 14


def test_a_failed_refresh_leaves_the_snapshot_as_it_was(state: Any):
    store = store_of(ITEM_IDS)
    write(state, {"i1": 1})
    store.refresh(state.client, state.keys)
    before = store.snapshot
    with pytest.raises(StateError, match="cannot read the items' version"):
        store.refresh(connect("redis://127.0.0.1:1"), state.keys)
    write_items(state.client, state.keys, {"i2": b"\0" * 9 + b"\x01"})
    with pytest.raises(CompatibilityError, match="a record of counters"):
        store.refresh(state.client, state.keys)
    assert store.snapshot is before
