"""Named values of records: worked out by hand, and that they age as the records do."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import NOW_MS, counters_of, event, state_of

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.counters import ROWS, Counters, row_of
from tastemaker.features.user_state import UserState
from tastemaker.features.view_rows import attribute_rows, content_rows, item_rows, profile_rows, user_rows
from tastemaker.features.views import COUNT_WINDOWS, VIEWS, ViewRows
from tastemaker.users.profile import Demographics, Location, Profile

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
ROOT = Path(__file__).resolve().parents[2]


def named(rows: list[ViewRows], now_ms: float | None = None) -> dict[str, object]:
    """The first row of all views."""
    return {
        name: value
        for one in rows
        for name, value in one.row(0, None if now_ms is None else one.at(now_ms)).items()
    }


def items_table(**columns: list[object]) -> pa.Table:
    defaults = {"item_id": ["a", "b"], "title": ["A", "B"], "category": ["comedy", ""], "tags": [[], []]}
    known = pa.table(defaults | {"created_at_ms": [NOW_MS, None]}, schema=ITEMS_SCHEMA)
    for name, values in columns.items():
        known = known.append_column(name, pa.array(values, pa.float64()))
    return known


def test_a_users_counts_are_of_the_newest_event_and_fade_from_there():
    state = state_of(event("u", "a", "click", NOW_MS - HOUR), event("u", "b", "impression", NOW_MS))
    kept = named(user_rows([state]))
    assert kept["user_last_ms"] == NOW_MS
    assert kept["user_click_1h"] == pytest.approx(math.exp(-1), rel=1e-12)
    assert kept["user_click_1d"] == pytest.approx(math.exp(-1 / 24), rel=1e-12)
    assert kept["user_weight_1h"] == pytest.approx(0.5 * math.exp(-1), rel=1e-12)
    later = named(user_rows([state]), NOW_MS + 2 * HOUR)
    assert later["user_click_1h"] == pytest.approx(math.exp(-3), rel=1e-12)
    assert later["user_last_ms"] == NOW_MS


def test_a_rate_is_of_its_window_and_stays_what_it_is():
    shown = [event("u", "a", "impression", NOW_MS) for _ in range(4)]
    state = state_of(*shown, event("u", "a", "click", NOW_MS), event("u", "a", "hide", NOW_MS))
    for now_ms in (NOW_MS, NOW_MS + 30 * DAY):
        found = named(user_rows([state]), now_ms)
        assert found["user_clicks_per_impression_7d"] == pytest.approx(1 / 4)
        assert found["user_refusals_per_impression_1h"] == pytest.approx(1 / 4)
        assert found["user_purchases_per_click_30d"] == 0.0
    assert named(user_rows([state_of(event("u", "a", "click"))]))["user_clicks_per_impression_7d"] == 0.0


def test_a_rate_is_never_above_one_whatever_was_logged_and_whenever():
    long_ago = event("u", "a", "impression", NOW_MS - 30 * DAY)  # of which an hour's window keeps 1e-313
    found = named(user_rows([state_of(long_ago, event("u", "a", "click"), event("u", "a", "click"))]))
    assert [found[f"user_clicks_per_impression_{window}"] for window in COUNT_WINDOWS] == [1.0] * 4


def test_tastes_stand_by_weight_and_fade_a_tenth_a_day():
    state = state_of(event("u", "a", "click"), event("u", "b", "purchase"), event("u", "unknown", "click"))
    kept, later = named(user_rows([state])), named(user_rows([state]), NOW_MS + 10 * DAY)
    assert [kept[f"taste_{place}"] for place in (1, 2, 3)] == ["drama", "comedy", ""]
    assert [kept[f"taste_{place}_weight"] for place in (1, 2, 3)] == [1.0, 0.5, 0.0]
    assert (kept["taste_total"], kept["taste_num_categories"]) == (1.5, 2)
    assert later["taste_1_weight"] == pytest.approx(math.exp(-1), rel=1e-12)
    assert later["taste_num_categories"] == 2


def test_a_session_is_over_after_half_an_hour_of_silence():
    state = state_of(
        event("u", "a", "click", NOW_MS - 2 * HOUR), event("u", "b", "click", NOW_MS - 5 * MINUTE),
        event("u", "c", "view", NOW_MS), event("u", "a", "impression", NOW_MS + MINUTE),
    )  # fmt: skip
    kept = named(user_rows([state]))
    assert (kept["session_last_ms"], kept["session_started_ms"]) == (NOW_MS, NOW_MS - 5 * MINUTE)
    assert (kept["session_length"], kept["session_last_item"]) == (2, "c")
    assert named(user_rows([state]), NOW_MS + 30 * MINUTE)["session_length"] == 2
    assert named(user_rows([state]), NOW_MS + 30 * MINUTE + 1)["session_length"] == 0


def test_of_a_user_who_took_nothing_the_session_is_empty_and_its_start_unknown():
    kept = named(user_rows([state_of(event("u", "a", "impression"))]))
    assert (kept["session_last_ms"], kept["session_length"]) == (NOW_MS, 0)
    assert (kept["session_started_ms"], kept["session_last_item"]) == (None, "")


def test_an_items_popularity_and_trend():
    counters = counters_of(
        [event("u", "a", "purchase", NOW_MS - 7 * DAY), event("v", "a", "click", NOW_MS)], ["a", "b"]
    )
    kept = named(item_rows(counters))
    assert kept["popularity_all"] == 1.5
    assert kept["trend_7d"] == pytest.approx(0.5 + math.exp(-1), rel=1e-12)
    assert kept["popularity_30d"] == pytest.approx(0.5 + math.exp(-7 / 30), rel=1e-12)
    later = named(item_rows(counters), NOW_MS + 7 * DAY)
    assert (later["popularity_all"], later["trend_7d"]) == (
        1.5, pytest.approx(0.5 * math.exp(-1) + math.exp(-2), rel=1e-12),
    )  # fmt: skip


def test_a_profile_gives_the_age_of_when_it_was_told_and_none_for_what_was_not():
    told = [
        Profile(Demographics(birth_year=1990, gender="f"), Location(lat=52.5, lon=13.4), updated_ms=NOW_MS),
        Profile(Demographics(age=17), updated_ms=NOW_MS),
        Profile(updated_ms=NOW_MS),
    ]
    rows = profile_rows(told)
    assert rows.row(0) == {
        "profile_last_ms": NOW_MS, "user_age": 35, "user_gender": "f", "user_lat": 52.5, "user_lon": 13.4,
    }  # fmt: skip
    assert rows.row(1)["user_age"] == 17
    assert rows.row(2) | {"profile_last_ms": None} == {
        "profile_last_ms": None, "user_age": None, "user_gender": "", "user_lat": None, "user_lon": None,
    }  # fmt: skip


def titled(titles: list[str]) -> pa.Table:
    items = items_table()
    return items.set_column(items.column_names.index("title"), "title", pa.array(titles))


def test_content_names_the_text_that_is_encoded_and_the_space():
    before, same = (content_rows(titled(titles), NOW_MS, "f00d") for titles in (["A", "B"], ["A", "A"]))
    assert before.row(0)["content_sha256"] == hashlib.sha256(b"A").hexdigest()
    assert before.row(0)["content_sha256"] == same.row(1)["content_sha256"] != before.row(1)["content_sha256"]
    assert before.row(0)["content_space"] == "f00d"
    assert content_rows(titled(["a", ""]), NOW_MS, "").texts["content_sha256"] == ["", ""]  # "a" is its id


def test_attributes_are_what_the_catalogue_says_and_unknown_ones_none():
    rows = attribute_rows(items_table(price=[19.5, None]), NOW_MS)
    assert rows.row(0) == {
        "attributes_last_ms": NOW_MS, "item_category": "comedy", "item_created_ms": NOW_MS, "item_price": 19.5,
    }  # fmt: skip
    assert rows.row(1)["item_created_ms"] is None
    assert rows.row(1)["item_price"] is None
    assert attribute_rows(items_table(), NOW_MS).row(0)["item_price"] is None
    assert rows.row(0, rows.at(NOW_MS + DAY)) == rows.row(0)


def test_records_of_nothing_give_rows_of_nothing():
    assert [len(rows) for rows in user_rows([])] == [0, 0, 0]
    assert [len(rows) for rows in item_rows(Counters.zeros(0))] == [0, 0]
    (counters, *_) = user_rows([UserState()])
    assert not counters.at(NOW_MS).any()


@given(
    st.lists(st.tuples(st.integers(0, 40 * DAY), st.sampled_from(ROWS[:-1])), max_size=12),
    st.integers(0, 90 * DAY),
)
def test_the_views_age_as_the_counters_do(happened, later):
    state = state_of(*(event("u", "a", kind, NOW_MS + at, 2.0) for at, kind in happened))
    now_ms = NOW_MS + 40 * DAY + later
    found = named(user_rows([state]), now_ms)
    expected_KW = state.counters.at(now_ms)[0]
    for kind in ROWS:
        for w, window in enumerate(COUNT_WINDOWS):
            assert found[f"user_{kind}_{window}"] == expected_KW[row_of(kind), w]


def test_names_are_used_once_and_times_come_first():
    names = [feature.name for view in VIEWS for feature in view.features]
    assert len(names) == len(set(names))
    assert all(view.features[0].name.endswith("_last_ms") for view in VIEWS)
    assert all(view.features[0].kind == "int64" for view in VIEWS)
    assert all(np.isinf(view.features[0].window_ms) for view in VIEWS)
