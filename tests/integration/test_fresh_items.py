"""Items' counters in a ranker follow the totals by themselves, on a real Valkey."""

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from records import NOW_MS, counters_of, event, write_items
from waiting import until

from tastemaker import telemetry
from tastemaker.features.item_store import ItemFacts
from tastemaker.features.views import VIEW, ViewRows
from tastemaker.state.connection import connect
from tastemaker_services.replicas import fresh_items
from tastemaker_services.replicas.fresh_items import FreshItems

CLICKS = VIEW["item_counters"].position["item_click_7d"]


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh_items, "EVERY_SECONDS", 0.01)


def facts() -> ItemFacts:
    rows = ViewRows(VIEW["item_attributes"], np.full((2, 3), np.nan), {"item_category": ["", ""]})
    return ItemFacts.of(["a", "b"], rows)


def write(state: Any, clicks: int) -> None:
    events = [event("u", "a", "click", NOW_MS) for _ in range(clicks)]
    write_items(state.client, state.keys, dict(zip(["a"], counters_of(events, ["a"]).encode(), strict=True)))


def test_a_store_begins_with_what_is_known_and_follows_it(state: Any):
    write(state, 2)
    store = FreshItems(state.client, state.keys).store(facts())
    before = store.snapshot
    assert before.counters.value_NF[:, CLICKS].tolist() == [2, 0]
    write(state, 5)
    until(lambda: store.snapshot.counters.value_NF[0, CLICKS] == 5, "the new totals")
    assert before.counters.value_NF[0, CLICKS] == 2  # a request that holds it goes on with one version
    assert telemetry.ITEMS_AGE.labels(state.keys.catalogue)._value.get() < 5


def test_a_store_that_nobody_holds_is_refreshed_no_more(state: Any):
    fresh = FreshItems(state.client, state.keys)
    store = fresh.store(facts())
    gone = weakref.ref(store)
    del store
    until(lambda: gc.collect() is not None and gone() is None, "the store to go")


def test_while_the_totals_cannot_be_read_they_stay_and_their_age_is_told(
    state: Any, caplog: pytest.LogCaptureFixture
):
    keys = state.keys.__class__("unreachable", 4)
    fresh = FreshItems(connect("redis://127.0.0.1:1"), keys)
    store = fresh.store(facts())
    assert not store.snapshot.counters.value_NF.any()
    age = telemetry.ITEMS_AGE.labels("unreachable")._value
    until(lambda: age.get() > 0.1, "the age")
    assert caplog.text.count("items' counters stay as they were: cannot read the items' version") == 1
