"""The best of scores that are seen range by range, and models that are asked so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.models import recommender, zoo
from tastemaker.models.log import NOBODY, Askers, Filters, Log, each_once
from tastemaker.models.top import PADDING, TopItems, best
from tastemaker.testing.worlds import Tastes

NUM_ITEMS = 60


@given(
    st.integers(1, 40).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0, 3.0]), min_size=width, max_size=width),
            min_size=1,
            max_size=4,
        )
    ),
    st.integers(1, 45),
    st.integers(1, 12),
)
@settings(max_examples=300, deadline=None)
def test_ranges_give_what_the_whole_gives(table, k, at_once):
    score_BI = np.array(table, np.float32)
    num_items = score_BI.shape[1]
    top = TopItems(len(score_BI), k)
    for first in range(0, num_items, at_once):
        top.add(score_BI[:, first : first + at_once].copy(), first)
    item_BK, value_BK = best(score_BI, min(k, num_items))
    assert top.item_BK[:, :num_items].tolist() == item_BK.tolist()
    assert top.score_BK[:, :num_items].tolist() == value_BK.tolist()
    assert (top.item_BK[:, num_items:] == PADDING).all()


@given(
    st.integers(1, 30).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([-np.inf, 0.0, 1.0, 2.0]), min_size=width, max_size=width), max_size=4
        ).map(lambda rows: np.array(rows, np.float32).reshape(len(rows), width))
    ),
    st.integers(1, 35),
)
@settings(max_examples=300, deadline=None)
def test_the_best_are_those_of_a_stable_sort(score_BI, k):
    k = min(k, score_BI.shape[1])
    order_BK = np.argsort(-score_BI, axis=1, kind="stable")[:, :k]
    value_BK = np.take_along_axis(score_BI, order_BK, axis=1)
    for laid_out in (score_BI, np.asfortranarray(score_BI)):
        found_BK, found_value_BK = best(laid_out, k)
        assert found_BK.tolist() == np.where(np.isneginf(value_BK), PADDING, order_BK).tolist()
        assert found_value_BK.tolist() == value_BK.tolist()


def test_scores_that_rise_all_along_are_sorted_range_by_range():
    """Every item is better than all before it: no range is passed over."""
    score_BI = np.arange(200, dtype=np.float32)[None]
    top = TopItems(1, 3)
    for first in range(0, 200, 50):
        top.add(score_BI[:, first : first + 50].copy(), first)
    assert top.item_BK.tolist() == [[199, 198, 197]]


@pytest.fixture(scope="module")
def log() -> Log:
    return Tastes.of(3, num_users=80).log


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("als", {"dim": 4, "iterations": 3}),
        ("ials", {"dim": 4, "iterations": 3}),
        ("bpr", {"dim": 4, "epochs": 2}),
    ],
)
def test_lists_do_not_depend_on_how_many_items_are_scored_at_once(kind, config, log, monkeypatch):
    model = zoo.fit(kind, log, config)
    known = Askers.known(log, np.arange(9, dtype=np.int32))
    histories = [*known.histories, np.array([], np.int32), np.array([70, -1], np.int32)]
    askers = Askers(np.append(known.row_B, [NOBODY, NOBODY]).astype(np.int32), histories)
    exclude = [np.array([5, 12, 41], np.int32)] * len(askers)
    filters = Filters(exclude=exclude, allowed_I=np.arange(log.num_items) % 4 != 1)
    item_BK, score_BK = model.recommend(askers, 15, filters)
    monkeypatch.setattr(recommender, "_ITEMS_AT_ONCE", 7)
    monkeypatch.setattr(recommender, "_BLOCK_SCORES", 28)  # four askers at once
    part_BK, part_score_BK = model.recommend(askers, 15, filters)
    assert item_BK.tolist() == part_BK.tolist()
    np.testing.assert_allclose(score_BK, part_score_BK, rtol=1e-5, atol=1e-6)  # another order of sums


def test_what_a_history_has_twice_is_kept_at_its_newest_place():
    history = np.array([3, 1, 3, 2, 1], np.int32)
    assert each_once(history).tolist() == [3, 2, 1]
    single = history[:2]
    assert each_once(single) is single
    assert each_once(np.array([], np.int32)).tolist() == []


@given(
    st.integers(1, 60).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([-np.inf, np.nan, 0.0, 1.0, np.inf]), min_size=width, max_size=width),
            min_size=1,
            max_size=3,
        )
    ),
    st.integers(1, 5),
)
@settings(max_examples=200, deadline=None)
def test_a_row_with_a_nan_begins_with_it(table, k):
    score_BI = np.array(table, np.float32)
    item_BK, value_BK = best(score_BI, k)
    assert (np.isnan(value_BK[:, 0]) == np.isnan(score_BI).any(axis=1)).all()
    for row_I, item_K, value_K in zip(score_BI, item_BK, value_BK, strict=True):
        shown_K = item_K[item_K != PADDING]
        assert len(shown_K) == min(k, (~np.isneginf(row_I)).sum())
        np.testing.assert_array_equal(value_K[: len(shown_K)], row_I[shown_K])


def test_lists_are_right_where_all_good_items_are_of_one_group():
    """Items 0, 4, 8, ... have the largest scores of all, so that few groups of items hold the whole list."""
    score_BI = np.zeros((2, 4096), np.float32)
    score_BI[:, ::4] = np.arange(1024, 0, -1)
    item_BK, _ = best(score_BI, 20)
    assert item_BK.tolist() == [list(range(0, 80, 4))] * 2


def test_what_may_not_be_shown_fills_no_list():
    score_BI = np.full((2, 500), -np.inf, np.float32)
    score_BI[0, [7, 300]] = 1.0, 2.0
    item_BK, value_BK = best(score_BI, 3)
    assert item_BK.tolist() == [[300, 7, PADDING], [PADDING] * 3]
    assert value_BK[0].tolist() == [2.0, 1.0, -np.inf]
