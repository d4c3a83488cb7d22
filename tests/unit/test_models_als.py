import numpy as np
import pytest
import scipy.sparse as sp

from tastemaker.errors import CompatibilityError
from tastemaker.models.als import Als, AlsConfig, fit_als


@pytest.fixture(scope="module")
def histories() -> sp.csr_matrix:
    draws = np.random.default_rng(3).random((60, 25)) < 0.2
    draws[:, 0] = True  # nobody is empty
    return sp.csr_matrix(draws.astype(np.float32))


def as_lists(histories: sp.csr_matrix) -> list[np.ndarray]:
    return [histories[u].indices.astype(np.int32) for u in range(histories.shape[0])]


@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_fold_in_is_what_implicit_recalculates_for_a_user(histories, alpha):
    from implicit.cpu.als import AlternatingLeastSquares

    config = AlsConfig(dim=4, alpha=alpha, iterations=3)
    model = fit_als(histories, config)
    peer = AlternatingLeastSquares(
        factors=4, regularization=config.regularization, alpha=alpha, num_threads=1, random_state=0
    )
    peer.item_factors = model.item_factors_ID
    folded = model.fold_in(as_lists(histories)[:10])
    expected = peer.recalculate_user(np.arange(10), histories[:10])
    np.testing.assert_allclose(folded, expected, rtol=1e-3, atol=1e-4)  # implicit solves in float32


def test_fold_in_of_one_factor_by_hand():
    model = Als(
        AlsConfig(dim=1, regularization=1.0, half_life=1.0), np.array([[1.0], [2.0], [3.0]], np.float32)
    )
    # (1 + 4 + 9 + 1) x = 0.5 * 1 + 1 * 3
    assert model.fold_in([np.array([0, 2], np.int32)])[0, 0] == pytest.approx(3.5 / 15, rel=1e-6)
    # without a half-life the order counts nothing: 15 x = 1 + 3
    plain = Als(AlsConfig(dim=1, regularization=1.0), model.item_factors_ID)
    assert plain.fold_in([np.array([2, 0], np.int32)])[0, 0] == pytest.approx(4 / 15, rel=1e-6)


def test_an_item_that_comes_again_counts_once_at_its_newest_place(histories):
    for alpha in (1.0, 3.0):
        model = fit_als(histories, AlsConfig(dim=4, iterations=1, alpha=alpha, half_life=2.0))
        again, once = (np.array(items, np.int32) for items in ([3, 5, 3], [5, 3]))
        np.testing.assert_array_equal(model.fold_in([again]), model.fold_in([once]))


def test_an_empty_history_folds_to_zeros(histories):
    model = fit_als(histories, AlsConfig(dim=4, iterations=2))
    folded = model.fold_in([np.empty(0, np.int32), np.array([1], np.int32)])
    assert not folded[0].any()
    assert folded[1].any()


def test_the_seed_decides_the_factors(histories):
    config = AlsConfig(dim=4, iterations=3)
    first = fit_als(histories, config).item_factors_ID
    np.testing.assert_array_equal(first, fit_als(histories, config).item_factors_ID)
    other = fit_als(histories, config.model_copy(update={"seed": 1})).item_factors_ID
    assert not np.array_equal(first, other)


def test_taken_items_score_above_others_on_the_whole(histories):
    scores = fit_als(histories, AlsConfig(dim=16, iterations=10)).scores(as_lists(histories))
    taken = histories.toarray() > 0
    assert scores[taken].mean() > scores[~taken].mean() + 0.3


def test_state_round_trip(histories):
    model = fit_als(histories, AlsConfig(dim=4, iterations=2, half_life=5.0))
    again = Als.from_state(model.config_dict(), model.tensors())
    query = as_lists(histories)[:3]
    assert again.config == model.config
    np.testing.assert_array_equal(again.scores(query), model.scores(query))


def test_factors_of_another_dimension_are_refused():
    with pytest.raises(CompatibilityError, match=r"ALS item factors, is \(3, 2\), must be \(items, 4\)"):
        Als.from_state({"dim": 4}, {"item_factors": np.zeros((3, 2), np.float32)})
