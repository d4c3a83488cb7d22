"""The features of a request: each kind worked out by hand, and that candidates do not see each other."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import NOW_MS, counters_of, event, state_of

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.counters import Counters
from tastemaker.features.item_store import ItemFacts, ItemSnapshot
from tastemaker.features.request_features import CROSSES, GROUPS, REQUEST_FEATURES, chosen, features_for
from tastemaker.features.user_state import UserState
from tastemaker.features.view_rows import attribute_rows, item_rows

HOUR, DAY = 3_600_000, 86_400_000
ITEM_IDS = ["a", "b", "c", "d"]  # comedy, drama, drama, of no category
ALL = np.arange(4, dtype=np.int32)
EVENTS = [
    *(event("x", "a", "impression", NOW_MS) for _ in range(10)), event("x", "a", "click", NOW_MS),
    event("x", "b", "purchase", NOW_MS - 7 * DAY),
]  # fmt: skip


def snapshot(counters: Counters) -> ItemSnapshot:
    columns = {
        "item_id": ITEM_IDS,
        "title": ITEM_IDS,
        "category": ["comedy", "drama", "drama", ""],
        "tags": [[]] * 4,
    }
    created = [NOW_MS - 9 * DAY, NOW_MS, None, NOW_MS + DAY]
    table = pa.table(columns | {"created_at_ms": created}, schema=ITEMS_SCHEMA)
    priced = table.append_column("price", pa.array([19.0, None, 0.0, None]))
    facts = ItemFacts.of(ITEM_IDS, attribute_rows(priced, NOW_MS))
    return ItemSnapshot(1, facts, *item_rows(counters))


ITEMS = snapshot(counters_of(EVENTS, ITEM_IDS))


def named(state: UserState, rows_K: np.ndarray = ALL, now_ms: int = NOW_MS) -> dict[str, list[float]]:
    value_KF = features_for(state, ITEMS.of(rows_K.astype(np.int32)), now_ms)
    assert (value_KF.dtype, value_KF.shape) == (np.float32, (len(rows_K), len(REQUEST_FEATURES)))
    return dict(zip(REQUEST_FEATURES, value_KF.T.tolist(), strict=True))


def test_each_has_a_name_of_its_own():
    assert len(set(REQUEST_FEATURES)) == len(REQUEST_FEATURES) == 50 + len(GROUPS["distance"])


def test_groups_stand_for_their_features_once_each_and_in_order():
    assert (
        sum((GROUPS[group] for group in ("item", "user", "cross", "distance")), ())
        == chosen(["all"])
        == REQUEST_FEATURES
    )
    assert chosen(["cross", "item_price", "refused"]) == ("item_price", *CROSSES)
    assert chosen([]) == ()
    with pytest.raises(
        ValueError, match="'itme' is no feature of a request; known are item, user, cross, distance, all"
    ):
        chosen(["item", "itme"])


def test_what_is_known_of_an_item_as_of_the_request():
    now = named(UserState())
    assert now["item_impression_7d"] == pytest.approx([math.log(11), 0, 0, 0], rel=1e-6)
    assert now["item_clicks_per_impression_7d"] == pytest.approx([0.1, 0, 0, 0], rel=1e-6)
    assert now["item_weight_7d"][1] == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)
    later = named(UserState(), now_ms=NOW_MS + 7 * DAY)
    assert later["item_impression_7d"][0] == pytest.approx(math.log1p(10 * math.exp(-1)), rel=1e-6)
    assert later["item_clicks_per_impression_7d"][0] == pytest.approx(0.1, rel=1e-6)
    assert now["item_age_days"] == pytest.approx([math.log(10), 0, 0, 0], rel=1e-6)
    assert now["item_price"] == pytest.approx([math.log(20), 0, 0, 0], rel=1e-6)


def test_growth_is_the_week_beside_the_month():
    week, month = math.exp(-1) / 7, math.exp(-7 / 30) / 30
    expected = [
        math.log((0.5 / 7 + 1e-3) / (0.5 / 30 + 1e-3)),
        math.log((week + 1e-3) / (month + 1e-3)),
        0,
        0,
    ]
    assert named(UserState())["item_growth"] == pytest.approx(expected, rel=1e-5)


def test_what_is_known_of_the_user_stands_beside_each_candidate():
    state = state_of(event("u", "b", "click", NOW_MS - HOUR), event("u", "c", "click", NOW_MS - HOUR + 1))
    found = named(state, now_ms=NOW_MS - HOUR + 1)
    assert found["user_click_7d"] == pytest.approx([math.log(3)] * 4, rel=1e-6)
    assert found["session_length"] == pytest.approx([math.log(3)] * 4, rel=1e-6)
    assert found["user_idle_days"] == [0.0] * 4
    later = named(state, now_ms=NOW_MS - HOUR + 1 + DAY)
    assert later["session_length"] == [0.0] * 4
    assert later["user_idle_days"] == pytest.approx([math.log(2)] * 4, rel=1e-6)


def test_crosses_set_the_user_beside_the_item():
    state = state_of(
        event("u", "a", "click"), event("u", "b", "purchase"), event("u", "b", "like"), event("u", "c", "hide"),
        event("u", "d", "impression"), event("u", "d", "impression"),
    )  # fmt: skip
    found = named(state)
    drama, comedy = 1.75, 0.5
    assert found["taste_weight"] == pytest.approx(
        [math.log1p(w) for w in (comedy, drama, drama, 0)], rel=1e-6
    )
    share = [comedy / 2.25, drama / 2.25, drama / 2.25, 0]
    assert found["taste_share"] == pytest.approx(share, rel=1e-6)
    assert found["taste_strongest"] == [0, 1, 1, 0]
    length = math.hypot(drama, comedy)
    assert found["novelty"] == pytest.approx(
        [1 - comedy / length, 1 - drama / length, 1 - drama / length, 1], rel=1e-5
    )
    assert found["session_share"] == pytest.approx([1 / 3, 2 / 3, 2 / 3, 0], rel=1e-6)
    assert found["in_session"] == [1, 1, 0, 0]
    assert found["refused"] == [0, 0, 1, 0]
    assert found["times_shown"] == pytest.approx([0, 0, 0, math.log(3)], rel=1e-6)
    popular = [math.log1p(0.5), math.log1p(math.exp(-7 / 30)), 0, 0]
    assert found["taste_times_popularity"] == pytest.approx(
        [s * p for s, p in zip(share, popular, strict=True)], rel=1e-6
    )
    mean = sum(popular) / 4
    assert found["popularity_among_candidates"] == pytest.approx([p - mean for p in popular], abs=1e-6)


def test_of_an_unknown_user_all_is_new_and_nothing_else_is_known():
    found = named(UserState())
    others = set(REQUEST_FEATURES[-len(CROSSES) - 14 :]) - {"novelty", "popularity_among_candidates"}
    assert found["novelty"] == [1.0] * 4
    assert all(not any(found[name]) for name in others)


def test_items_and_categories_that_the_bundle_lacks_count_for_nothing():
    state = state_of(event("u", "zzz", "impression"), event("u", "zzz", "click"))
    state.affinity["western"] = 5.0
    found = named(state)
    assert (found["in_session"], found["taste_share"], found["novelty"]) == ([0] * 4, [0] * 4, [1] * 4)


def test_no_candidates_are_no_rows():
    assert features_for(UserState(), ITEMS.of(np.empty(0, np.int32)), NOW_MS).shape == (
        0,
        len(REQUEST_FEATURES),
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.integers(0, 60 * DAY))
def test_a_candidates_features_do_not_depend_on_the_others(rows, later):
    state = state_of(event("u", "a", "click"), event("u", "b", "view"), event("u", "c", "dislike"))
    together = named(state, np.array(rows), NOW_MS + later)
    alone = named(state, ALL, NOW_MS + later)
    for name in set(REQUEST_FEATURES) - {"popularity_among_candidates"}:
        assert together[name] == [alone[name][row] for row in rows]
