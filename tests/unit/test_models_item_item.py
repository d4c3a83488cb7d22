import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError
from tastemaker.models.item_item import ItemItem, ItemItemConfig, fit_ease, fit_item_knn
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.types import Query

# Four users, three items: items 0 and 1 occur together twice, item 2 with item 0 once.
HISTORIES = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]], np.float32))


def rows(*lists: list[int]) -> list[np.ndarray]:
    return [np.array(items, np.int32) for items in lists]


def test_ease_of_three_items_is_the_one_worked_out_by_hand():
    # X'X + 1 = [[4, 2, 1], [2, 3, 0], [1, 0, 3]], determinant 4*9 - 2*6 + 1*(0 - 3) = 21
    # its inverse P = [[9, -6, -3], [-6, 11, 2], [-3, 2, 8]] / 21; weights are -P_ij / P_jj
    expected = [[0, 6 / 11, 3 / 8], [6 / 9, 0, -2 / 8], [3 / 9, -2 / 11, 0]]
    model = fit_ease(HISTORIES, l2=1.0)
    np.testing.assert_allclose(model.weights().toarray(), expected, rtol=1e-6)  # float32


@pytest.mark.parametrize("num_users", [5, 40])  # solved by users and by items
def test_ease_is_the_same_whichever_inverse_is_taken(num_users):
    draws = np.random.default_rng(0).random((num_users, 12)) < 0.4
    X = draws.astype(np.float64)
    P = np.linalg.inv(X.T @ X + 3.0 * np.eye(12))
    expected = -P / np.diag(P)
    np.fill_diagonal(expected, 0)
    found = fit_ease(sp.csr_matrix(X), l2=3.0).weights().toarray()
    np.testing.assert_allclose(found, expected, atol=1e-6)  # float32


def test_pruning_keeps_the_strongest_weights_of_each_history_item():
    pruned = fit_ease(HISTORIES, l2=1.0, keep=1).weights().toarray()
    np.testing.assert_allclose(pruned, [[0, 6 / 11, 0], [6 / 9, 0, 0], [3 / 9, 0, 0]], rtol=1e-6)


def test_the_newest_item_weighs_one_and_a_half_life_earlier_half():
    model = fit_ease(HISTORIES, l2=1.0, half_life=1.0)
    scores = model.scores(rows([2, 1]))  # 2 is older: half of its row, and the whole row of 1
    expected = [0.5 * 3 / 9 + 6 / 9, 0.5 * -2 / 11, -2 / 8]
    np.testing.assert_allclose(scores, [expected], rtol=1e-6)


def test_another_half_life_reads_the_same_weights():
    model = fit_ease(HISTORIES, l2=1.0, half_life=1.0).with_half_life(None)
    np.testing.assert_allclose(model.scores(rows([2, 1]))[0, 0], 3 / 9 + 6 / 9, rtol=1e-6)


def test_an_item_that_comes_again_counts_once_at_its_newest_place():
    model = fit_ease(HISTORIES, l2=1.0, half_life=1.0)
    again, once = rows([1, 2, 1], [2, 1])
    np.testing.assert_array_equal(*model.scores([again, once]))
    for found, expected in zip(model.neighbours(again), model.neighbours(once), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(st.permutations(range(12)), st.integers(1, 12), st.sampled_from([None, 1.0, 3.0]))
@settings(deadline=None)
def test_a_history_without_repeats_is_read_as_it_stands(order, length, half_life):
    """What is served for it is the weighted sum of its items' rows, as it was before repeats were heeded."""
    draws = np.random.default_rng(0).random((20, 12)) < 0.4
    model = fit_ease(sp.csr_matrix(draws.astype(np.float64)), l2=3.0, half_life=half_life)
    (history,) = rows(order[:length])
    age = np.arange(length)[::-1]
    weight = np.ones(length) if half_life is None else 0.5 ** (age / half_life)
    expected = weight @ model.weights().toarray()[history]
    np.testing.assert_allclose(model.scores([history])[0], expected, atol=1e-6)  # float32
    (source,) = ItemItemSource("ease", model).ask([Query(history)]).score([np.arange(12, dtype=np.int32)])
    np.testing.assert_allclose(source, expected, atol=1e-6)


def test_an_empty_history_scores_zero():
    scores = fit_ease(HISTORIES, l2=1.0).scores(rows([], [0]))
    assert scores[0].tolist() == [0, 0, 0]
    assert scores[1].any()


def test_cosine_neighbours_give_their_similarity_and_not_themselves():
    model = fit_item_knn(HISTORIES, num_neighbours=2)
    # columns have lengths sqrt(3), sqrt(2), sqrt(2); 0 and 1 share two users, 0 and 2 one
    expected = [[0, 2 / 6**0.5, 1 / 6**0.5], [2 / 6**0.5, 0, 0], [1 / 6**0.5, 0, 0]]
    np.testing.assert_allclose(model.weights().toarray(), expected, rtol=1e-6)
    assert fit_item_knn(HISTORIES, num_neighbours=1).weights()[0].nnz == 1


@pytest.mark.parametrize("similarity", ["tfidf", "bm25"])
def test_weighted_similarities_rank_the_item_that_shares_more_users_first(similarity):
    # Both weigh a user by log(items / (1 + items of the user)): here log(6 / 3) for all.
    taken = [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0]]
    histories = sp.csr_matrix(np.array(taken, np.float32))
    scores = fit_item_knn(histories, similarity=similarity, num_neighbours=2).scores(rows([0]))
    assert scores[0, 1] > scores[0, 2] > 0


@pytest.mark.parametrize("similarity", ["tfidf", "bm25"])
def test_items_that_only_insatiable_users_took_are_nobodys_neighbours(similarity):
    everything = sp.csr_matrix(np.ones((3, 4), np.float32))
    everything[0, 3] = 0.0
    everything.eliminate_zeros()
    assert np.isfinite(
        fit_item_knn(everything, similarity=similarity, num_neighbours=2).scores(rows([0, 1]))
    ).all()


def test_state_round_trip():
    model = fit_ease(HISTORIES, l2=1.0, keep=2, half_life=5.0)
    again = ItemItem.from_state(model.config_dict(), model.tensors())
    assert again.config == model.config
    np.testing.assert_array_equal(again.scores(rows([0, 1], [2])), model.scores(rows([0, 1], [2])))


def test_weights_of_another_catalogue_are_refused():
    with pytest.raises(CompatibilityError, match=r"item-to-item weights, is \(3, 3\), must be \(4, 4\)"):
        ItemItem.from_state(
            ItemItemConfig(kind="ease", num_items=4).model_dump(mode="json"),
            fit_ease(HISTORIES, 1.0).tensors(),
        )
