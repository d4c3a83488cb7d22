"""Metrics of guesses and beyond accuracy: by hand, and beside scikit-learn."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.evaluation import beyond, predictions
from tastemaker.evaluation.comparing import bootstrap_p_value, differences
from tastemaker.evaluation.metrics import PADDING, precision


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
@settings(max_examples=100)
def test_auc_is_that_of_scikit_learn(pairs):
    from sklearn.metrics import roc_auc_score

    score_N, label_N = np.array([s for s, _ in pairs], float), np.array([label for _, label in pairs], int)
    found = predictions.auc(score_N, label_N)
    if label_N.min() == label_N.max():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(label_N, score_N), abs=1e-12)


def test_log_loss_is_that_of_scikit_learn_and_the_base_rate_has_entropy_one():
    from sklearn.metrics import log_loss

    draws = np.random.default_rng(0)
    p_N, label_N = draws.random(400), draws.integers(0, 2, 400)
    assert predictions.logloss(p_N, label_N) == pytest.approx(log_loss(label_N, p_N), abs=1e-12)
    rate_N = np.full(400, label_N.mean())
    assert predictions.normalised_entropy(rate_N, label_N) == pytest.approx(1, abs=1e-12)
    assert np.isnan(predictions.normalised_entropy(p_N, np.ones(400, int)))
    assert np.isfinite(predictions.logloss(np.array([0.0, 1.0]), np.array([1, 0])))
    with pytest.raises(DataError, match="a probability"):
        predictions.logloss(np.array([1.5]), np.array([1]))


def test_gauc_of_one_group_is_auc():
    draws = np.random.default_rng(0)
    score_N, label_N = draws.random(50), draws.integers(0, 2, 50)
    group_N = np.zeros(50, np.int64)
    assert predictions.gauc(group_N, score_N, label_N) == pytest.approx(predictions.auc(score_N, label_N))
    assert np.isnan(predictions.gauc(group_N, score_N, np.ones(50, int)))


def test_nothing_guessed_has_no_error():
    nothing = np.empty(0)
    assert np.isnan([predictions.rmse(nothing, nothing), predictions.mae(nothing, nothing)]).all()


def test_precision_counts_missing_slots_as_wrong():
    assert precision(np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([1]), 4).tolist() == [0.25]


def test_the_obvious_list_passes_over_what_was_taken():
    order_I, seen = (
        np.array([3, 1, 0, 2], np.int32),
        sp.csr_matrix(np.array([[0, 1, 0, 1], [1, 1, 1, 0]], float)),
    )
    assert beyond.most_popular_unseen(order_I, seen, 2).tolist() == [[0, 2], [3, PADDING]]


def test_lift_is_the_lists_popularity_over_the_historys():
    popularity_I, history = np.array([0.8, 0.2, 0.4]), sp.csr_matrix(np.array([[0, 1, 1], [0, 0, 0]], float))
    lists = np.array([[0, 2], [0, 1]], np.int32)
    # (.8 + .4) / 2 over (.2 + .4) / 2, less 1; whoever took nothing has none
    found = beyond.popularity_lift(lists, history, popularity_I)
    assert found[0] == pytest.approx(1.0)
    assert np.isnan(found[1])


def test_miscalibration_is_kl_of_groups():
    genres = sp.csr_matrix(np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 0]], float))
    history = sp.csr_matrix(np.array([[1, 0, 0, 0], [0, 0, 0, 1]], float))
    lists = np.array([[1, PADDING], [0, 1]], np.int32)
    # p = (1, 0) and q = (0, 1): log(1 / .01)
    found = beyond.miscalibration(lists, history, genres)
    assert found[0] == pytest.approx(np.log(100))
    assert np.isnan(found[1])


def test_groups_share_an_item_and_exposure_is_one_in_all():
    names, share_IG = beyond.group_shares([["a", "b"], ["b"], []])
    assert names == ["a", "b"]
    assert share_IG.toarray().tolist() == [[0.5, 0.5], [0, 1], [0, 0]]
    found = beyond.exposure(np.array([[0, 1, 2]], np.int32), share_IG)
    second = 1 / np.log2(3)
    assert found.tolist() == pytest.approx([0.5 / (1 + second), (0.5 + second) / (1 + second)])


def test_a_difference_beyond_luck_has_a_small_p_and_none_a_large_one():
    draws = np.random.default_rng(1)
    noise_U = draws.normal(0, 1, 400)
    assert bootstrap_p_value(noise_U + 0.5) < 0.001
    assert bootstrap_p_value(noise_U - noise_U.mean()) == 1.0


def test_p_values_are_even_where_nothing_differs():
    draws = np.random.default_rng(2)
    p_values = np.array([bootstrap_p_value(draws.normal(0, 1, 60), seed) for seed in range(60)])
    # 12 of 60 below .2, standard deviation sqrt(60 * .2 * .8) = 3.1
    assert abs((p_values < 0.2).sum() - 12) < 3 * 3.1


def test_all_questions_are_corrected_together():
    draws = np.random.default_rng(3)
    base_U = draws.random(200)
    per_user = {
        "base": {"ndcg@10": base_U, "recall@10": base_U},
        "better": {"ndcg@10": base_U + draws.normal(0.05, 0.1, 200), "recall@10": base_U},
        "other": {"ndcg@10": np.where(np.arange(200) < 5, np.nan, base_U)},
    }
    found = differences(per_user, "base", ("ndcg@10", "recall@10"))
    assert [(one.system, one.metric) for one in found] == [
        ("better", "ndcg@10"), ("better", "recall@10"), ("other", "ndcg@10"),
    ]  # fmt: skip
    assert found[0].corrected == pytest.approx(3 * found[0].p_value)
    assert found[0].low < found[0].mean < found[0].high
    assert found[1].corrected == found[2].corrected == 1.0


@given(st.integers(0, 50), st.integers(1, 8), st.floats(0, 1))
@settings(deadline=None)
def test_the_obvious_list_is_the_order_without_what_each_user_has(seed, k, share):
    draws = np.random.default_rng(seed)
    num_items = int(draws.integers(1, 90))
    has_BI = draws.random((5, num_items)) < share
    order_I = draws.permutation(num_items).astype(np.int32)
    expected = [[item for item in order_I.tolist() if not row[item]][:k] for row in has_BI]
    seen_BI = sp.csr_matrix(has_BI.astype(float))
    with pytest.MonkeyPatch.context() as patch:
        for cells in (2**21, 2 * num_items):  # all users at once, and a few
            patch.setattr(beyond, "CELLS_AT_ONCE", cells)
            found = beyond.most_popular_unseen(order_I, seen_BI, k)
            assert found.tolist() == [row + [PADDING] * (k - len(row)) for row in expected]


def test_miscalibration_does_not_depend_on_how_it_is_worked_out(monkeypatch):
    draws = np.random.default_rng(4)
    history = sp.random(40, 30, 0.2, "csr", random_state=1)
    history.data[:] = 1.0
    share_IG = sp.random(30, 7, 0.4, "csr", random_state=2)
    lists = draws.integers(-1, 30, (40, 5)).astype(np.int32)
    found = beyond.miscalibration(lists, history, share_IG)
    assert np.isfinite(found).any()
    monkeypatch.setattr(beyond, "_FEW_GROUPS", 0)
    monkeypatch.setattr(beyond, "CELLS_AT_ONCE", 21)  # three users at once
    np.testing.assert_array_equal(beyond.miscalibration(lists, history, share_IG), found)


def test_empty_words_are_no_group():
    names, share_IG = beyond.group_shares([["a", None, ""], [None]])
    assert names == ["a"]
    assert share_IG.toarray().tolist() == [[1.0], [0.0]]


def test_a_p_value_does_not_depend_on_how_many_rounds_are_drawn_at_once(monkeypatch):
    difference_U = np.random.default_rng(5).normal(0.1, 1, 70)
    expected = bootstrap_p_value(difference_U)
    monkeypatch.setattr("tastemaker.evaluation.comparing._DRAWS_AT_ONCE", 3 * 70)
    assert bootstrap_p_value(difference_U) == expected
