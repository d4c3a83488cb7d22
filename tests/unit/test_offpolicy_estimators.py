"""Estimators of choices: by hand, and unbiased by exact expectation over every log that a tiny world can make."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.estimators import (
    Choices,
    clipped,
    direct,
    doubly_robust,
    ips,
    self_normalised,
    self_normalised_doubly_robust,
    shrunk_doubly_robust,
    switch_doubly_robust,
)
from tastemaker.offpolicy.reward_model import expected_rewards, logistic, ridge
from tastemaker.offpolicy.terms import Terms

# Two contexts of shares 0.3 and 0.7, three actions, rewards 0 or 1 with these probabilities.
SHARE_X = np.array([0.3, 0.7])
REWARD_XA = np.array([[0.1, 0.5, 0.9], [0.6, 0.2, 0.4]])
LOGGING_XA = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
POLICY_XA = np.array([[0.2, 0.2, 0.6], [0.8, 0.1, 0.1]])
MODEL_XA = np.array([[0.3, 0.3, 0.3], [0.9, 0.0, 0.2]])  # wrong
TRUTH = float(SHARE_X @ (POLICY_XA * REWARD_XA).sum(axis=1))


def one_row(x: int, a: int, reward: float, model_XA: Any = MODEL_XA) -> Choices:
    return Choices(
        np.array([a]), np.array([reward]), LOGGING_XA[x, [a]], POLICY_XA[[x]], model_RA=model_XA[[x]]
    )


def expectation(estimator: Callable[[Choices], Terms], model_XA: Any = MODEL_XA) -> float:
    """Over the 12 logs of one row."""
    total = 0.0
    for x in range(2):
        for a in range(3):
            for reward in (0.0, 1.0):
                chance = REWARD_XA[x, a] if reward else 1 - REWARD_XA[x, a]
                probability = SHARE_X[x] * LOGGING_XA[x, a] * chance
                total += probability * estimator(one_row(x, a, reward, model_XA)).value
    return total


def test_truth_by_hand() -> None:
    # .3 (.2 * .1 + .2 * .5 + .6 * .9) + .7 (.8 * .6 + .1 * .2 + .1 * .4) = .3 * .66 + .7 * .54
    assert pytest.approx(0.576, abs=1e-12) == TRUTH


def test_ips_and_doubly_robust_are_unbiased() -> None:
    assert expectation(ips) == pytest.approx(TRUTH, abs=1e-12)
    assert expectation(doubly_robust) == pytest.approx(TRUTH, abs=1e-12)


def test_doubly_robust_is_unbiased_with_wrong_propensities_where_the_model_is_right() -> None:
    def wrong(choices: Choices) -> Terms:
        return doubly_robust(replace(choices, propensity_R=choices.propensity_R / 2))

    assert expectation(wrong, REWARD_XA) == pytest.approx(TRUTH, abs=1e-12)
    assert expectation(wrong, MODEL_XA) != pytest.approx(TRUTH, abs=1e-3)


def test_the_direct_method_is_as_good_as_its_model() -> None:
    assert expectation(direct, REWARD_XA) == pytest.approx(TRUTH, abs=1e-12)
    wrong = float(SHARE_X @ (POLICY_XA * MODEL_XA).sum(axis=1))
    assert expectation(direct) == pytest.approx(wrong, abs=1e-12)


def test_clipping_and_switching_between_their_ends() -> None:
    assert expectation(lambda c: clipped(c, 1e9)) == pytest.approx(TRUTH, abs=1e-12)
    assert expectation(lambda c: clipped(c, 1.0)) < TRUTH
    assert expectation(lambda c: switch_doubly_robust(c, 1e9)) == pytest.approx(TRUTH, abs=1e-12)
    assert expectation(lambda c: switch_doubly_robust(c, 0.0)) == pytest.approx(
        expectation(direct), abs=1e-12
    )
    assert expectation(lambda c: shrunk_doubly_robust(c, 1e12)) == pytest.approx(TRUTH, abs=1e-6)
    # Shrunk with strength 1: a weight of 2 counts 2 / (4 + 1).
    choices = Choices(
        np.array([0]), np.array([1.0]), np.array([0.5]), np.array([[1.0, 0.0]]), model_RA=np.zeros((1, 2))
    )
    assert shrunk_doubly_robust(choices, 1.0).value == pytest.approx(0.4, abs=1e-12)
    # A weight of 2 is within a limit of 2: 0 + 2 (1 - 0); beyond a smaller one the model alone speaks.
    assert [switch_doubly_robust(choices, limit).value for limit in (2.0, 1.9)] == [2.0, 0.0]


def drawn(num: int, seed: int, **others: Any) -> Choices:
    luck = np.random.default_rng(seed)
    x = luck.choice(2, num, p=SHARE_X)
    a = (luck.random(num)[:, None] > LOGGING_XA[x].cumsum(axis=1)).sum(axis=1)
    reward = (luck.random(num) < REWARD_XA[x, a]).astype(float)
    return Choices(a, reward, LOGGING_XA[x, a], POLICY_XA, x, MODEL_XA[x], **others)


@pytest.mark.parametrize("estimator", [ips, self_normalised, doubly_robust, self_normalised_doubly_robust])
def test_near_the_truth_on_a_large_log(estimator: Callable[[Choices], Terms]) -> None:
    # The standard error of all is below .006.
    assert estimator(drawn(100_000, 1)).value == pytest.approx(TRUTH, abs=0.02)


@given(st.integers(0, 10_000), st.floats(-5, 5), st.floats(0.1, 10))
def test_self_normalised_estimates_move_with_the_rewards(seed: int, shift: float, scale: float) -> None:
    choices = drawn(40, seed)
    moved = replace(choices, reward_R=scale * choices.reward_R + shift)
    value = self_normalised(choices).value
    assert self_normalised(moved).value == pytest.approx(scale * value + shift, abs=1e-9)
    assert 0 <= value <= 1
    assert ips(replace(choices, reward_R=scale * choices.reward_R)).value == pytest.approx(
        scale * ips(choices).value, abs=1e-9
    )


@given(st.integers(0, 10_000))
def test_the_logging_policy_is_worth_what_was_logged(seed: int) -> None:
    choices = replace(drawn(40, seed), policy_PA=LOGGING_XA)
    for estimator in (ips, self_normalised):
        assert estimator(choices).value == pytest.approx(choices.reward_R.mean(), abs=1e-12)
    assert np.allclose(choices.weights, 1)


@given(st.integers(0, 10_000), st.integers(0, 1000))
def test_no_estimate_depends_on_the_order_of_the_rows(seed: int, order: int) -> None:
    choices = drawn(30, seed)
    rows = np.random.default_rng(order).permutation(30)
    assert choices.policy_row_R is not None
    assert choices.model_RA is not None
    turned = Choices(
        choices.action_R[rows], choices.reward_R[rows], choices.propensity_R[rows], choices.policy_PA,
        choices.policy_row_R[rows], choices.model_RA[rows],
    )  # fmt: skip
    for estimator in (ips, self_normalised, direct, doubly_robust, self_normalised_doubly_robust):
        assert estimator(turned).value == pytest.approx(estimator(choices).value, abs=1e-12)


def test_distributions_by_row_and_by_number_are_the_same() -> None:
    choices = drawn(50, 3)
    assert choices.policy_row_R is not None
    whole = replace(choices, policy_PA=POLICY_XA[choices.policy_row_R], policy_row_R=None)
    assert np.allclose(whole.expected, choices.expected)
    assert np.allclose(whole.weights, choices.weights)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"propensity_R": np.array([0.0, 0.5])}, "propensity of row 0, is 0.0, must be above 0"),
        ({"propensity_R": np.array([0.5, np.nan])}, "propensity of row 1"),
        ({"propensity_R": np.array([0.5])}, "propensities, is 1, must be 2"),
        ({"reward_R": np.array([1.0, np.inf])}, "a reward, is inf, must be finite"),
        ({"action_R": np.array([0, 2])}, "a logged choice, is 2, must be from 0 to 1"),
        ({"policy_PA": np.array([[0.5, 0.4]])}, "distribution 0: its sum, is 0.9, must be 1"),
        ({"policy_PA": np.array([[1.5, -0.5]])}, "of parts from 0 on"),
        ({"policy_PA": np.full((3, 2), 0.5)}, "distributions of the policy, is 3, must be 2"),
        ({"model_RA": np.full((2, 3), 0.5)}, "the reward model"),
    ],
)
def test_what_is_no_log_is_refused(change: dict[str, Any], match: str) -> None:
    good = Choices(np.array([0, 1]), np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([[0.5, 0.5]]))
    with pytest.raises(ExperimentError, match=match):
        replace(good, **change)


def test_a_model_is_asked_for_by_name() -> None:
    good = Choices(np.array([0]), np.array([1.0]), np.array([0.5]), np.array([[0.5, 0.5]]))
    with pytest.raises(ExperimentError, match="lack a reward model"):
        direct(good)


def test_reward_models_find_what_made_the_rewards() -> None:
    luck = np.random.default_rng(0)
    feature_RZ = luck.normal(size=(20_000, 2))
    logit_R = 0.5 + feature_RZ @ np.array([1.0, -2.0])
    reward_R = (luck.random(20_000) < 1 / (1 + np.exp(-logit_R))).astype(float)
    at = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    true = 1 / (1 + np.exp(-(0.5 + at @ np.array([1.0, -2.0]))))
    assert logistic(feature_RZ, reward_R, 1.0)(at) == pytest.approx(true, abs=0.02)
    assert ridge(feature_RZ, logit_R, 1e-6)(at) == pytest.approx(0.5 + at @ [1.0, -2.0], abs=1e-6)


def test_nobody_is_foretold_by_a_model_that_saw_them() -> None:
    # One cluster alone takes action 1 and is always rewarded: its own folds know nothing of that.
    cluster_R = np.repeat(np.arange(6), 5)
    action_R = (cluster_R == 5).astype(np.int64)
    reward_R = action_R.astype(float)
    found = expected_rewards(np.empty((30, 0)), action_R, reward_R, np.eye(2), cluster_R, penalty=0.01)
    assert found[cluster_R == 5][:, 1].max() < 0.01
    others = found[cluster_R != 5][:, 1]
    assert others.max() > 0.9
    with pytest.raises(ExperimentError, match="users to fit a reward model on, is 2, must be at least 3"):
        expected_rewards(np.empty((4, 0)), np.zeros(4, int), np.zeros(4), np.eye(1), np.array([0, 0, 1, 1]))
