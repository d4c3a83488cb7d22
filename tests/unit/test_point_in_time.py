"""Features as of a moment: by hand, against the stream's functions event by event, and that the future changes nothing."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.events.batch import is_late
from tastemaker.events.schema import Event
from tastemaker.features import point_in_time
from tastemaker.features.counters import ROWS, WINDOWS_MS, Counters
from tastemaker.features.point_in_time import EXAMPLE_SCHEMA, features_at
from tastemaker.features.scan import decayed_sums, running_max
from tastemaker.features.user_state import UserState, after, count_events
from tastemaker.types import EVENT_KINDS

HOUR, DAY = 3_600_000, 86_400_000
START = 1_700_000_000_000
LATE_DAYS = 30
CATEGORIES = {"a": "comedy", "b": "drama", "c": "drama"}
Row = dict[str, object]


def category(item_id: str) -> str:
    return CATEGORIES.get(item_id, "")


def row(kind: str, user: str, item: str, at: int, late: int = 0, **fields: object) -> Row:
    """An event that happened at a time and was received some ms later, both after `START`."""
    return {
        "event_id": f"{kind}-{user}-{item}-{at}-{late}", "user_id": user, "item_id": item, "kind": kind,
        "timestamp_ms": START + at, "received_ms": START + at + late, "origin": "live", "sequence": 0,
    } | fields  # fmt: skip


def known(rows: list[Row], *examples: tuple[str, str, int]) -> list[Row]:
    asked = [{"user_id": u, "item_id": i, "moment_ms": START + at} for u, i, at in examples]
    table = pa.Table.from_pylist(asked, schema=EXAMPLE_SCHEMA)
    found: list[Row] = features_at(
        table, pa.Table.from_pylist(rows, schema=EVENT_SCHEMA), category, LATE_DAYS
    ).to_pylist()
    return found


def replayed(rows: list[Row], user: str, item: str, at: int) -> Row:
    """The same by the stream's functions, from all events that were received before the moment."""
    moment = START + at
    seen = sorted((r for r in rows if r["received_ms"] < moment), key=lambda r: r["received_ms"])
    events = [
        Event(**{name: r[name] for name in Event.model_fields if name in r})
        for r in seen
        if r["origin"] == "live" and not is_late(r["received_ms"], r["timestamp_ms"], LATE_DAYS)
    ]
    own, of_item = [e for e in events if e.user_id == user], [e for e in events if e.item_id == item]
    state, counters = UserState(), Counters.zeros(1)
    for start in range(0, len(own), 3):  # as a stream's steps bring them
        (state,) = after([state], [own[start : start + 3]], category)
    for start in range(0, len(of_item), 3):
        counters = count_events(counters, [(0, e) for e in of_item[start : start + 3]])
    found: Row = {"user_last_ms": state.last_ms, "item_last_ms": int(counters.last_ms_N[0])}
    for entity, of in (("user", state.counters), ("item", counters)):
        value_KW = of.at(moment)[0]
        found |= {
            f"{entity}_{r}_{w}": value_KW[k, n] for k, r in enumerate(ROWS) for n, w in enumerate(WINDOWS_MS)
        }
    shown = state.shown.get(item)
    return found | {
        "taste": state.tastes(moment).get(category(item), 0.0),
        "shown": shown.at(moment) if shown else 0.0,
        "refused": item in state.refused(),
    }


def assert_known(found: Row, expected: Row) -> None:
    names = [name for name in found if name not in EXAMPLE_SCHEMA.names]
    assert set(names) == set(expected)
    for name in names:
        # Sums of at most some dozens of terms, in another order; below 1e-300 exp() loses digits.
        assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-300), name


@st.composite
def logs(draw, most: int = 25) -> list[Row]:
    """Events of few users and items, some late, some by clocks that run ahead, some not live."""
    span = st.one_of(st.integers(0, 3 * HOUR), st.integers(0, 40 * DAY))
    delay = st.one_of(st.integers(0, 2000), st.integers(-HOUR, 40 * DAY))
    rows = draw(
        st.lists(
            st.tuples(st.sampled_from(EVENT_KINDS), st.sampled_from("uvw"), st.sampled_from("abcd"), span, delay,
                      st.floats(0.5, 5), st.sampled_from(["live"] * 5 + ["simulator"])),
            max_size=most,
        )
    )  # fmt: skip
    return [
        row(kind, user, item, at, late, value=value, origin=origin, event_id=f"e{n}")
        for n, (kind, user, item, at, late, value, origin) in enumerate(rows)
    ]


MOMENTS = st.tuples(
    st.sampled_from("uvx"),
    st.sampled_from("abcx"),
    st.one_of(st.integers(0, 4 * HOUR), st.integers(0, 90 * DAY)),
)


def test_what_was_received_before_the_moment_counts_by_when_it_happened():
    rows = [
        row("click", "u", "a", 0),
        row("click", "u", "b", 10 * HOUR, late=5 * HOUR),
        row("like", "v", "a", HOUR),
        row("impression", "u", "a", 2 * HOUR),
    ]
    before, at_receipt, afterwards = known(
        rows, ("u", "a", 12 * HOUR), ("u", "a", 15 * HOUR), ("u", "a", 15 * HOUR + 1)
    )
    for found in (before, at_receipt):
        assert found["user_click_all"] == 1.0
        assert found["user_last_ms"] == START + 2 * HOUR
    assert before["user_click_1d"] == pytest.approx(math.exp(-12 / 24), rel=1e-12)
    assert before["taste"] == pytest.approx(0.5 * math.exp(-0.1 * 0.5), rel=1e-12)  # half a day of 10
    assert before["shown"] == pytest.approx(math.exp(-10 / 168), rel=1e-12)
    assert before["item_weight_all"] == pytest.approx(0.5 + 0.75)
    assert afterwards["user_click_all"] == 2.0
    assert afterwards["user_click_1h"] == pytest.approx(math.exp(-5) + math.exp(-15), rel=1e-6)
    assert afterwards["user_last_ms"] == START + 10 * HOUR


def test_a_record_is_of_its_newest_event_also_where_a_clock_runs_ahead():
    minute = HOUR // 60
    rows = [row("click", "u", "a", 0), row("view", "u", "b", 50 * minute, late=-40 * minute)]
    (found,) = known(rows, ("u", "a", 20 * minute))
    assert found["user_last_ms"] == START + 50 * minute
    assert found["user_click_1h"] == pytest.approx(math.exp(-50 / 60), rel=1e-12)
    assert found["item_click_1h"] == pytest.approx(math.exp(-20 / 60), rel=1e-12)


def test_a_refusal_holds_until_a_newer_opinion_is_known():
    rows = [
        row("hide", "u", "a", 10),
        row("like", "u", "a", 20, late=100),
        row("dislike", "u", "a", 15, late=200),
    ]
    found = known(rows, *(("u", "a", at) for at in (10, 11, 120, 121, 500)), ("u", "b", 500))
    assert [r["refused"] for r in found] == [False, True, True, False, False, False]


def test_without_events_or_examples_there_is_nothing():
    (found,) = known([], ("u", "a", 5))
    assert_known(found, replayed([], "u", "a", 5))
    assert known([row("click", "u", "a", 0)]) == []


def test_columns_of_examples_stay():
    table = pa.table({"user_id": ["u"], "item_id": ["a"], "moment_ms": [START], "label": [1.0]})
    found = features_at(table, EVENT_SCHEMA.empty_table(), category, LATE_DAYS)
    assert found.column_names[:4] == ["user_id", "item_id", "moment_ms", "label"]


@given(logs(), st.lists(MOMENTS, min_size=1, max_size=6))
@settings(deadline=None)
def test_every_row_is_what_the_streams_functions_give_up_to_its_moment(rows, examples):
    for found, example in zip(known(rows, *examples), examples, strict=True):
        assert_known(found, replayed(rows, *example))


@given(logs(), logs(most=10), MOMENTS, st.data())
@settings(deadline=None)
def test_no_row_changes_with_what_is_received_at_or_after_its_moment(rows, others, example, data):
    *_, at = example
    moment = START + at
    past = [r for r in rows if r["received_ms"] < moment]
    future = [r | {"received_ms": max(r["received_ms"], moment)} for r in others]
    altered = [
        r | {"kind": data.draw(st.sampled_from(EVENT_KINDS)), "item_id": "a", "user_id": "u"}
        for r in rows
        if r["received_ms"] >= moment and data.draw(st.booleans())
    ]
    mixed = data.draw(st.permutations(past + future + altered))
    assert_known(
        known(mixed, example)[0],
        {k: v for k, v in known(rows, example)[0].items() if k not in EXAMPLE_SCHEMA.names},
    )


@given(logs(), st.lists(MOMENTS, min_size=1, max_size=6), st.integers(1, 9))
@settings(deadline=None)
def test_however_many_events_are_worked_on_at_once_the_rows_are_the_same(rows, examples, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(point_in_time, "_EVENTS_AT_ONCE", at_once)
        few = known(rows, *examples)
    for found, other in zip(few, known(rows, *examples), strict=True):
        assert_known(found, {k: v for k, v in other.items() if k not in EXAMPLE_SCHEMA.names})


def test_counts_stay_exact_over_years():
    rows = [row("click", "u", "a", n * 30 * DAY, event_id=f"e{n}") for n in range(60)]
    rows += [
        row("click", "u", "a", 59 * 30 * DAY - 1000 * n, late=1000 * n, event_id=f"f{n}") for n in range(50)
    ]
    (found,) = known(rows, ("u", "a", 59 * 30 * DAY + HOUR))
    assert found["user_click_all"] == 110.0
    assert found["user_click_1h"] == pytest.approx(
        math.exp(-1) * (1 + sum(math.exp(-n / 3600) for n in range(50))), rel=1e-9
    )


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1), st.floats(0, 10)), max_size=40))
def test_a_scan_is_the_loop(rows):
    first, left, amount = (np.array([r[n] for r in rows], (bool, float, float)[n]) for n in range(3))
    expected, total = [], 0.0
    for n in range(len(rows)):
        total = amount[n] + (0.0 if first[n] or n == 0 else total * left[n])
        expected.append(total)
    if len(rows):
        first[0] = True
    found = decayed_sums(first, left[:, None], amount[:, None])[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-300)


@given(st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=1, max_size=40))
def test_a_running_maximum_is_the_loop(rows):
    first, value = np.array([True, *(r[0] for r in rows[1:])]), np.array([r[1] for r in rows])
    expected: list[int] = []
    for n, found in enumerate(value.tolist()):
        expected.append(found if first[n] else max(found, expected[-1]))
    assert running_max(first, value).tolist() == expected
