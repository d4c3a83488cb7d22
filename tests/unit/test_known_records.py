"""Features of past requests: that they are those of the stream's records at that moment, and that later events change nothing."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters
from tastemaker.features.item_store import ItemFacts, ItemSnapshot
from tastemaker.features.known_records import KnownRecords, known_from
from tastemaker.features.ranking_batch import without_records
from tastemaker.features.request_features import REQUEST_FEATURES, features_for, of_nobody
from tastemaker.features.user_state import UserState, after, count_events
from tastemaker.features.view_rows import item_rows
from tastemaker.types import EVENT_KINDS, Query

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000
ITEM_IDS = ["a", "b", "c", "d"]
ALL = np.arange(4, dtype=np.int32)
Row = dict[str, object]


def facts() -> ItemFacts:
    columns = {"item_id": ITEM_IDS, "title": ITEM_IDS, "category": ["x", "y", "y", ""], "tags": [[]] * 4}
    created = pa.array([START, None, START - DAY, START], pa.int64())
    return ItemFacts.from_items(pa.table(columns | {"created_at_ms": created}, schema=ITEMS_SCHEMA))


def row(kind: str, user: str, item: str, at: int, late: int = 0, **fields: object) -> Row:
    return {
        "event_id": f"{kind}-{user}-{item}-{at}-{late}", "user_id": user, "item_id": item, "kind": kind,
        "timestamp_ms": START + at, "received_ms": START + at + late, "value": 2.0, "origin": "live", "sequence": 0,
    } | fields  # fmt: skip


def known(rows: list[Row], moment: int, user: str = "u") -> np.ndarray:
    events = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    query = Query(np.empty(0, np.int32), user_id=user, now_ms=START + moment)
    return KnownRecords(events, known_from(events), facts())(query, ALL)


def streamed(rows: list[Row], moment: int, user: str = "u") -> np.ndarray:
    """From records that the stream's functions made, three events at a time, of what was known before the moment."""
    when = [max(r["received_ms"], r["timestamp_ms"]) for r in rows]
    seen = [r for _, r in sorted(zip(when, rows, strict=True), key=lambda pair: pair[0])]
    seen = seen[: sum(at < START + moment for at in when)]
    events = [Event(**{name: r[name] for name in Event.model_fields if name in r}) for r in seen]
    own = [e for e in events if e.user_id == user]
    of_items = [(ITEM_IDS.index(e.item_id), e) for e in events if e.item_id in ITEM_IDS]
    state, counters = UserState(), Counters.zeros(4)
    for start in range(0, len(events), 3):
        (state,) = after([state], [own[start : start + 3]], facts().category)
        counters = count_events(counters, of_items[start : start + 3])
    state = UserState.decode(state.encode())
    counters = Counters.decode(counters.encode())
    return features_for(state, ItemSnapshot(1, facts(), *item_rows(counters)).of(ALL), START + moment)


@st.composite
def logs(draw, most: int = 25) -> list[Row]:
    span = st.one_of(st.integers(0, 3 * HOUR), st.integers(0, 40 * DAY))
    delay = st.one_of(st.just(0), st.integers(-HOUR, HOUR), st.integers(0, 20 * DAY))
    found = st.tuples(
        st.sampled_from(EVENT_KINDS), st.sampled_from("uv"), st.sampled_from("abcz"), span, delay
    )
    rows = draw(st.lists(found, max_size=most))
    return [row(*fields, event_id=f"e{n}") for n, fields in enumerate(rows)]


MOMENT = st.one_of(st.integers(0, 4 * HOUR), st.integers(0, 60 * DAY))


@given(logs(), MOMENT)
@settings(deadline=None)
def test_they_are_what_serving_reads_from_the_records_of_the_same_events(rows: list[Row], moment: int):
    # Sums in another order, and float32: a rate or a growth may differ in its last digits.
    np.testing.assert_allclose(known(rows, moment), streamed(rows, moment), rtol=1e-5, atol=1e-6)


@given(logs(), logs(most=10), MOMENT, st.data())
@settings(deadline=None)
def test_nothing_depends_on_what_became_known_at_or_after_the_moment(
    rows: list[Row], others: list[Row], moment: int, data: st.DataObject
):
    def is_past(r: Row) -> bool:
        return max(r["received_ms"], r["timestamp_ms"]) < START + moment

    past = [r for r in rows if is_past(r)]
    later = [
        r | {"received_ms": max(r["received_ms"], START + moment), "event_id": f"o{n}"}
        for n, r in enumerate(others)
    ]
    altered = [
        r | {"kind": data.draw(st.sampled_from(EVENT_KINDS)), "item_id": "a", "user_id": "u"}
        for r in rows
        if not is_past(r) and data.draw(st.booleans())
    ]
    mixed = data.draw(st.permutations(past + later + altered))
    ordered = sorted(mixed, key=lambda r: r["received_ms"])
    np.testing.assert_array_equal(known(ordered, moment), known(past, moment))


def test_the_predicted_event_is_unknown_also_where_its_clock_ran_ahead():
    ahead = row("purchase", "u", "a", 10 * HOUR, late=-HOUR)  # received an hour before it says it happened
    assert not known([ahead], 10 * HOUR)[:, REQUEST_FEATURES.index("item_purchase_1d")].any()
    assert known([ahead], 10 * HOUR + 1)[0, REQUEST_FEATURES.index("item_purchase_1d")] > 0


@given(logs(), MOMENT)
@settings(deadline=None)
def test_a_hidden_record_is_what_serving_reads_without_one(rows: list[Row], moment: int):
    hidden = without_records(known(rows, moment), of_nobody(REQUEST_FEATURES), np.ones(4, np.bool_))
    events = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA)
    records = KnownRecords(events, known_from(events), facts())
    query = Query(np.empty(0, np.int32), user_id="u", now_ms=START + moment)
    np.testing.assert_array_equal(hidden, records.of_strangers(query, ALL))
    served = features_for(UserState(), records.candidates(ALL, START + moment), START + moment)
    np.testing.assert_array_equal(hidden, served)


def test_by_hand():
    rows = [row("click", "u", "a", 0), row("purchase", "v", "b", 0), row("impression", "u", "b", HOUR)]
    found = dict(zip(REQUEST_FEATURES, known(rows, DAY).T.tolist(), strict=True))
    left = np.exp(-1)
    assert found["item_click_1d"] == pytest.approx([np.log1p(left), 0, 0, 0], rel=1e-6)
    assert found["item_weight_1d"] == pytest.approx([np.log1p(left / 2), np.log1p(left), 0, 0], rel=1e-6)
    assert found["taste_share"] == [1, 0, 0, 0]
    assert found["times_shown"] == pytest.approx([0, np.log1p(np.exp(-23 / 168)), 0, 0], rel=1e-6)
    assert found["user_idle_days"] == pytest.approx([np.log1p(23 / 24)] * 4, rel=1e-6)


def test_of_users_and_items_without_events_nothing_is_known():
    unknown = known([row("click", "v", "z", 0)], DAY, user="nobody")
    empty = features_for(
        UserState(), ItemSnapshot(1, facts(), *item_rows(Counters.zeros(4))).of(ALL), START + DAY
    )
    np.testing.assert_array_equal(unknown, empty)
    np.testing.assert_array_equal(known([], DAY), empty)
