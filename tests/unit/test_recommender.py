"""The interface of the zoo: logs, askers, filters, lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError, ConfigError, DataError, UsageError
from tastemaker.models import zoo
from tastemaker.models.log import NOBODY, Askers, Filters, Log
from tastemaker.models.top import PADDING, best


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


def test_a_log_is_sorted_by_user_and_time_and_ties_keep_their_order():
    log = Log.of(
        rows(1, 0, 1, 1), rows(5, 2, 3, 4), num_users=3, num_items=6, timestamp_ms_N=np.array([9, 1, 7, 9])
    )
    assert [items.tolist() for items in log.histories()] == [[2], [3, 5, 4], []]
    assert log.value_N.tolist() == [1, 1, 1, 1]
    assert log.matrix().toarray()[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_values_of_one_pair_are_summed_and_its_one_stays_one():
    log = Log.of(rows(0, 0), rows(1, 1), num_users=1, num_items=2, value_N=np.array([2.0, 3.0]))
    assert log.matrix().toarray().tolist() == [[0, 1]]
    assert log.matrix(values=True).toarray().tolist() == [[0, 5]]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ((rows(0), rows(0, 1), None), "differ in length"),
        ((rows(0, 3), rows(0, 1), None), "user row of a log"),
        ((rows(0, 1), rows(0, -1), None), "item row of a log"),
        ((rows(0), rows(0), np.array([np.nan])), "not finite"),
    ],
)
def test_a_log_that_cannot_be_is_refused(columns, text):
    user_N, item_N, value_N = columns
    with pytest.raises(DataError, match=text):
        Log.of(user_N, item_N, num_users=2, num_items=2, value_N=value_N)


def test_askers_know_who_is_in_the_log_and_what_was_taken():
    askers = Askers(
        rows(1, NOBODY, 7), [rows(0, 9), rows(), rows(2, -4)], [np.ones(2), np.empty(0), np.ones(2)]
    )
    place, row = askers.users(num_users=5)
    assert (place.tolist(), row.tolist()) == ([0], [1])
    place_N, item_N, value_N = askers.taken(num_items=3)
    assert (place_N.tolist(), item_N.tolist(), value_N.tolist()) == ([0, 2], [0, 2], [1, 1])
    assert np.isnan(Askers.strangers([rows(1)]).taken(3)[2]).all()


def test_askers_without_some_are_the_others_in_order():
    values = [np.array([1.0]), np.array([2.0, 3.0]), np.empty(0)]
    askers = Askers(rows(1, NOBODY, 7), [rows(0), rows(2, 3), rows()], values)
    left, others = askers.without(np.array([1]))
    assert left.tolist() == [0, 2]
    assert others.row_B.tolist() == [1, 7]
    assert [items.tolist() for items in others.histories] == [[0], []]
    assert others.values is not None
    assert [value_L.tolist() for value_L in others.values] == [[1.0], []]
    assert len(askers.without(np.arange(3))[1]) == 0
    assert Askers.strangers([rows(1)]).without(rows())[1].values is None


scores = st.integers(1, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 3), min_size=width, max_size=width), min_size=1, max_size=4
    )
)


@given(scores, st.integers(1, 14))
@settings(max_examples=200)
def test_the_best_are_the_first_of_all_sorted_with_ties_by_row(table, k):
    score_BI = np.array(table, np.float32)
    item_BK, value_BK = best(score_BI, min(k, score_BI.shape[1]))
    for row_I, item_K, value_K in zip(score_BI, item_BK, value_BK, strict=True):
        expected = np.argsort(-row_I, kind="stable")[:k]
        assert item_K.tolist() == expected.tolist()
        assert value_K.tolist() == row_I[expected].tolist()


def test_what_is_blocked_is_padding_behind_the_others():
    model = zoo.fit("popular", Log.of(rows(0, 0, 1), rows(0, 1, 1), num_users=2, num_items=3))
    asked = Askers.strangers([rows(1)])
    item_BK, score_BK = model.recommend(asked, 4, Filters(exclude=[rows(2)]))
    assert item_BK.tolist() == [[0, PADDING, PADDING, PADDING]]
    assert score_BK[0, 0] == 1
    assert np.isneginf(score_BK[0, 1:]).all()


def test_lists_out_of_ranges_fetch_vectors_once_and_are_those_of_all_scores(monkeypatch):
    draws = np.random.default_rng(0)
    log = Log.of(draws.integers(0, 20, 200), draws.integers(0, 30, 200), num_users=20, num_items=30)
    model, askers, filters = zoo.fit("ials", log, {"dim": 4}), Askers.known(log), Filters()
    score_BI = model.scores(askers)
    filters.block(score_BI, askers)
    item_ID, fetched = model.item_vectors(), []
    monkeypatch.setattr(model, "item_vectors", lambda: fetched.append(1) or item_ID)
    monkeypatch.setattr("tastemaker.models.recommender._ITEMS_AT_ONCE", 7)
    monkeypatch.setattr("tastemaker.models.recommender._BLOCK_SCORES", 7 * 3)
    item_BK, _ = model.recommend(askers, 5, filters)
    assert item_BK.tolist() == best(score_BI, 5)[0].tolist()
    # Once for the lists; users are folded in from vectors that the model has.
    assert len(fetched) == 1


def test_no_list_is_shorter_than_an_item():
    model = zoo.fit("popular", Log.of(rows(0), rows(0), num_users=1, num_items=1))
    with pytest.raises(UsageError, match="k, is 0, must be 1 or more"):
        model.recommend(Askers.strangers([rows()]), 0)


def test_an_unknown_kind_or_setting_is_refused():
    log = Log.of(rows(0), rows(0), num_users=1, num_items=1)
    with pytest.raises(UsageError, match="kind of model, is 'lightfm'"):
        zoo.fit("lightfm", log)
    with pytest.raises(ConfigError, match="unknown key alpha"):
        zoo.fit("popular", log, {"alpha": 1})
    with pytest.raises(CompatibilityError, match="kind of a bundle's model"):
        zoo.Packed.from_state({"kind": "lightfm", "model": {}}, {})
    with pytest.raises(CompatibilityError, match="config and tensors of a user-knn lack 'offsets'"):
        zoo.Packed.from_state({"kind": "user-knn", "model": {"num_items": 3}}, {})
