"""P(best) and expected loss beside simulation and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.bayes import best_of, best_of_means, best_of_proportions
from tastemaker.experiments.statistics.influence import Influence

NUM_DRAWS = 400_000


def simulated(draws_NV: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    best = np.bincount(draws_NV.argmax(axis=1), minlength=draws_NV.shape[1]) / len(draws_NV)
    return best, (draws_NV.max(axis=1, keepdims=True) - draws_NV).mean(axis=0)


def test_proportions_agree_with_draws() -> None:
    successes, trials = [40, 52, 45], [400, 410, 300]
    found = best_of_proportions(successes, trials)
    rng = np.random.default_rng(1)
    draws = np.column_stack(
        [rng.beta(1 + s, 1 + n - s, NUM_DRAWS) for s, n in zip(successes, trials, strict=True)]
    )
    best, loss = simulated(draws)
    assert found.probability_V == pytest.approx(best, abs=0.003)  # standard deviation .0008
    assert found.expected_loss_V == pytest.approx(loss, abs=2e-4)


def test_means_agree_with_draws() -> None:
    value, error = np.array([1.0, 1.1, 0.9, 1.05]), np.array([0.1, 0.05, 0.3, 0.02])
    found = best_of_means(value, error)
    best, loss = simulated(np.random.default_rng(2).normal(value, error, (NUM_DRAWS, 4)))
    assert found.probability_V == pytest.approx(best, abs=0.003)
    assert found.expected_loss_V == pytest.approx(loss, abs=1e-3)


def test_units_that_two_variants_share_count_with_their_covariance() -> None:
    # Both errors are one unit's: the difference is sure.
    shared = Influence(np.array([1.0, 1.2]), np.array([[0.5, 0.5], [0.1, 0.1]]), np.array([2, 2]))
    found = best_of(shared)
    assert found.probability_V.tolist() == [0.0, 1.0]
    assert found.expected_loss_V == pytest.approx([0.2, 0.0])


def test_three_variants_of_an_influence_are_means_with_their_errors() -> None:
    influence = np.zeros((6, 3))
    influence[[0, 1], 0], influence[[2, 3], 1], influence[[4, 5], 2] = 0.1, 0.2, 0.3
    found = best_of(Influence(np.array([1.0, 1.1, 1.2]), influence, np.array([2, 2, 2])))
    expected = best_of_means(np.array([1.0, 1.1, 1.2]), np.sqrt(2) * np.array([0.1, 0.2, 0.3]))
    assert found.probability_V == pytest.approx(expected.probability_V)
    assert found.expected_loss_V == pytest.approx(expected.expected_loss_V)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 3)), min_size=2, max_size=5))
def test_probabilities_add_up_and_the_least_loss_is_the_highest_values(
    arms: list[tuple[float, float]],
) -> None:
    value, error = (np.array(column) for column in zip(*arms, strict=True))
    found = best_of_means(value, error)
    assert found.probability_V.sum() == pytest.approx(1, abs=1e-6)
    assert (found.expected_loss_V >= 0).all()
    apart = value.max() - value
    assert found.expected_loss_V - found.expected_loss_V.min() == pytest.approx(apart, abs=1e-6)


def test_without_errors_the_largest_is_surely_the_best() -> None:
    found = best_of_means(np.array([1.0, 3.0, 2.0]), np.zeros(3))
    assert found.probability_V == pytest.approx([0, 1, 0])
    assert found.expected_loss_V == pytest.approx([2, 0, 1], abs=1e-9)
    even = best_of(Influence(np.array([1.0, 1.0]), np.zeros((4, 2)), np.array([2, 2])))
    assert even.probability_V.tolist() == [0.5, 0.5]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ExperimentError, match="successes"):
        best_of_proportions([5, 3], [4, 10])
    with pytest.raises(ExperimentError, match="no value yet"):
        best_of(Influence(np.array([1.0, np.nan]), np.zeros((4, 2)), np.array([2, 0])))
