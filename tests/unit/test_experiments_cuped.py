"""CUPED: the same as regression, unbiased, narrower by rho, and honest about who has no past."""

import numpy as np
import pytest

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.cuped import cuped, ratio_covariate
from tastemaker.experiments.statistics.influence import Influence, difference, lift
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence


def values(value_U: np.ndarray, variant_U: np.ndarray, num_variants: int = 2) -> tuple[Influence, np.ndarray]:
    in_UV = np.eye(num_variants)[variant_U]
    return ratio_influence(UnitTotals(in_UV * value_U[:, None], in_UV)), in_UV > 0


def test_the_difference_is_that_of_a_regression_on_variant_and_past() -> None:
    rng = np.random.default_rng(1)
    variant, past = rng.integers(0, 2, 300), rng.standard_normal((300, 2))
    value = 1 + 0.3 * variant + past @ [0.5, -0.8] + rng.standard_normal(300)
    influence, member = values(value, variant)
    found = difference(cuped(influence, past, member).influence, 0, 1)
    # Ordinary least squares with both covariates.
    columns = np.column_stack([np.ones(300), variant, past])
    assert found.value == pytest.approx(np.linalg.lstsq(columns, value, rcond=None)[0][1], rel=1e-10)


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_what_is_left_of_the_variance_is_1_less_rho_squared(rho: float) -> None:
    rng = np.random.default_rng(2)
    claimed, plain, adjusted, covered = [], [], [], []
    for _ in range(400):
        past = rng.standard_normal(500)
        value = 3 + rho * past + np.sqrt(1 - rho**2) * rng.standard_normal(500)
        influence, member = values(value, rng.integers(0, 2, 500))
        less = cuped(influence, past[:, None], member)
        found = difference(less.influence, 0, 1)
        claimed.append(1 - less.variance_reduction)
        plain.append(difference(influence, 0, 1).value)
        adjusted.append(found.value)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(claimed) == pytest.approx(1 - rho**2, abs=0.01)
    # 400 runs: the ratio's standard deviation is 2 rho (1 - rho^2)^(1/2) / 20 at most 5%
    assert np.var(adjusted) / np.var(plain) == pytest.approx(1 - rho**2, abs=0.16)
    assert 0.92 <= np.mean(covered) <= 0.98  # standard deviation 1.1%


def test_new_units_without_a_past_neither_bias_nor_break_it() -> None:
    rng = np.random.default_rng(3)
    estimates, covered, reduced = [], [], []
    for _ in range(300):
        own = rng.standard_normal(600)
        new = rng.random(600) < 0.4
        value = 5 + own - 2 * new + 0.5 * rng.standard_normal(600)  # new units differ from others
        variant = rng.integers(0, 2, 600)
        past = np.where(new, np.nan, own + 0.5 * rng.standard_normal(600))
        influence, member = values(value + 0.2 * variant, variant)
        less = cuped(influence, past[:, None], member)
        found = difference(less.influence, 0, 1)
        estimates.append(found.value)
        covered.append(found.low <= 0.2 <= found.high)
        reduced.append(less.variance_reduction)
    assert np.mean(estimates) == pytest.approx(0.2, abs=0.02)  # standard deviation of the mean .006
    assert 0.91 <= np.mean(covered) <= 0.98
    # Variance 1 + .25 + 4 * .24 = 2.21: new or not takes .96, and for 60% the past takes .8 of 1.
    assert np.mean(reduced) == pytest.approx((0.96 + 0.6 * 0.8) / 2.21, abs=0.02)


def test_a_ratio_metric_is_adjusted_by_its_own_past() -> None:
    rng = np.random.default_rng(4)
    claimed, plain, adjusted = [], [], []
    for _ in range(300):
        rate, often = rng.beta(0.6, 2.4, 500), rng.gamma(2.0, 2.0, 500)
        visits, before = 1 + rng.poisson(often), rng.poisson(2 * often)
        clicks = rng.binomial(visits, rate).astype(float)
        past = ratio_covariate(rng.binomial(before, rate).astype(float), before.astype(float))
        in_UV = np.eye(2)[rng.integers(0, 2, 500)]
        totals = UnitTotals(in_UV * clicks[:, None], in_UV * visits[:, None])
        influence = ratio_influence(totals)
        less = cuped(influence, past, totals.denominator_UV > 0)
        claimed.append(1 - less.variance_reduction)
        plain.append(lift(influence, 0, 1).value)
        adjusted.append(lift(less.influence, 0, 1).value)
    assert np.mean(claimed) < 0.7
    assert np.var(adjusted) / np.var(plain) == pytest.approx(np.mean(claimed), abs=0.1)


def test_a_past_that_says_nothing_changes_nothing() -> None:
    influence, member = values(np.array([1.0, 2, 3, 4]), np.array([0, 0, 1, 1]))
    found = cuped(influence, np.full((4, 1), np.nan), member)
    assert found.variance_reduction == 0
    np.testing.assert_allclose(found.influence.value_V, influence.value_V)
    np.testing.assert_allclose(found.influence.influence_UV, influence.influence_UV)


def test_units_that_met_no_variant_have_no_say() -> None:
    rng = np.random.default_rng(5)
    value, past, variant = rng.standard_normal(50) + 3, rng.standard_normal((50, 1)), np.arange(50) % 2
    influence, member = values(value, variant)
    less = cuped(influence, past, member)
    padded = Influence(
        influence.value_V, np.concatenate([influence.influence_UV, np.zeros((7, 2))]), influence.units_V
    )
    more = cuped(
        padded,
        np.concatenate([past, np.full((7, 1), 100.0)]),
        np.concatenate([member, np.zeros((7, 2), bool)]),
    )
    np.testing.assert_allclose(more.influence.value_V, less.influence.value_V)
    np.testing.assert_allclose(more.influence.influence_UV[:50], less.influence.influence_UV)
    np.testing.assert_allclose(more.influence.influence_UV[50:], 0)


def test_a_bandits_units_and_strange_shapes_are_refused() -> None:
    influence, member = values(np.arange(4.0), np.array([0, 0, 1, 1]))
    with pytest.raises(ExperimentError, match="covariates' shape"):
        cuped(influence, np.zeros((3, 1)), member)
    with pytest.raises(ExperimentError, match="met several variants"):
        cuped(influence, np.zeros((4, 1)), np.ones((4, 2), bool))
