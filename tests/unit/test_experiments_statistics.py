"""Intervals and tests: numbers by hand, then how often they are right over many simulated experiments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.ratios import (
    Lift,
    UnitTotals,
    ratio,
    ratio_lift,
    unit_totals,
)

NUM_REPLICATIONS = 2000


def visitors(rng: np.random.Generator, num: int, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Clicks and requests of visitors who differ much from each other."""
    rate_U = rng.beta(3 * mean, 3 * (1 - mean), num)
    requests_U = rng.integers(1, 5, num)
    return rng.binomial(requests_U * 3, rate_U).astype(float), requests_U.astype(float)


def two_arms(rng: np.random.Generator, num_per_arm: int, mean_a: float, mean_b: float) -> UnitTotals:
    clicks_a, requests_a = visitors(rng, num_per_arm, mean_a)
    clicks_b, requests_b = visitors(rng, num_per_arm, mean_b)
    zeros = np.zeros(num_per_arm)
    return UnitTotals(
        np.column_stack([np.r_[clicks_a, zeros], np.r_[zeros, clicks_b]]),
        np.column_stack([np.r_[requests_a, zeros], np.r_[zeros, requests_b]]),
    )


def lifts(num_per_arm: int, mean_a: float, mean_b: float, seed: int) -> list[Lift]:
    rng = np.random.default_rng(seed)
    return [ratio_lift(two_arms(rng, num_per_arm, mean_a, mean_b), 0, 1) for _ in range(NUM_REPLICATIONS)]


def test_an_aa_test_is_called_different_in_five_percent_of_cases() -> None:
    found = lifts(400, 0.1, 0.1, seed=1)
    share = np.mean([lift.p_value < 0.05 for lift in found])
    # 2000 replications: the standard deviation of the share is 0.5%.
    assert 0.03 <= share <= 0.07
    disagree = [(lift.p_value < 0.05) == (lift.low <= 0 <= lift.high) for lift in found]
    assert not any(disagree)


def test_ignoring_visitors_would_call_far_more_aa_tests_different() -> None:
    rng, hits = np.random.default_rng(2), 0
    for _ in range(300):
        totals = two_arms(rng, 400, 0.1, 0.1)
        requests, clicks = totals.denominator_UV.sum(0), totals.numerator_UV.sum(0)
        rate = clicks / (3 * requests)
        error = np.sqrt((rate * (1 - rate) / (3 * requests)).sum())
        hits += abs(rate[1] - rate[0]) / error > 1.96
    assert hits / 300 > 0.15


@pytest.mark.parametrize(("mean_a", "mean_b"), [(0.1, 0.13), (0.12, 0.08)])
def test_the_lifts_interval_covers_the_truth_in_95_percent_of_cases(mean_a: float, mean_b: float) -> None:
    truth = mean_b / mean_a - 1
    covered = np.mean([lift.low <= truth <= lift.high for lift in lifts(400, mean_a, mean_b, seed=3)])
    assert 0.93 <= covered <= 0.97


def test_weights_undo_a_bandits_preference() -> None:
    """Loyal visitors come late, when variant 1 gets 90%: plain means mislead, weighted do not."""
    rng = np.random.default_rng(4)
    plain, weighted, covered = [], [], []
    for _ in range(300):
        rate_U = np.r_[np.full(300, 0.1), np.full(300, 0.4)]
        share_U = np.r_[np.full(300, 0.5), np.full(300, 0.9)]
        variant_U = (rng.random(600) < share_U).astype(int)
        drawn_U = np.where(variant_U == 1, share_U, 1 - share_U)
        clicks_U = rng.binomial(3, rate_U).astype(float)  # no variant is better
        arguments = [f"u{i}" for i in range(600)], variant_U, clicks_U, np.full(600, 3.0), 2
        plain.append(ratio_lift(unit_totals(*arguments), 0, 1).value)
        lift = ratio_lift(unit_totals(*arguments, propensity_R=drawn_U), 0, 1)
        weighted.append(lift.value)
        covered.append(lift.low <= 0 <= lift.high)
    assert np.mean(plain) > 0.3
    assert abs(np.mean(weighted)) < 0.05
    assert 0.91 <= np.mean(covered) <= 0.99  # 300 replications: standard deviation 1.3%


def test_a_visitor_in_both_variants_adds_its_covariance() -> None:
    # Each visitor does exactly as well under B: there is no lift, without any doubt.
    clicks = np.array([[1.0, 1.0], [3.0, 3.0], [0.0, 0.0]])
    lift = ratio_lift(UnitTotals(clicks, np.full((3, 2), 4.0)), 0, 1)
    assert lift.value == pytest.approx(0.0, abs=1e-12)
    assert lift.standard_error == pytest.approx(0.0, abs=1e-12)


def test_a_wider_level_gives_a_wider_interval() -> None:
    totals = two_arms(np.random.default_rng(5), 50, 0.2, 0.2)
    narrow, wide = ratio(totals, 0, level=0.8), ratio(totals, 0, level=0.99)
    assert narrow.value == wide.value
    # z(0.9) = 1.2816 and z(0.995) = 2.5758
    assert (wide.high - wide.value) / (narrow.high - narrow.value) == pytest.approx(2.5758 / 1.2816, rel=1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    totals = two_arms(np.random.default_rng(5), 50, 0.2, 0.2)
    with pytest.raises(ExperimentError, match="between 0 and 1"):
        ratio(totals, 0, level)


def test_a_variant_without_clicks_has_no_lift() -> None:
    totals = UnitTotals(
        np.array([[1.0, 0], [1, 0], [0, 0], [0, 0]]), np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    )
    with pytest.raises(ExperimentError, match="value, is 0"):
        ratio_lift(totals, 0, 1)


def test_one_visitor_has_no_variance() -> None:
    with pytest.raises(ExperimentError, match="is 1, must be at least 2"):
        ratio(UnitTotals(np.ones((1, 1)), np.ones((1, 1))), 0)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 1), st.integers(0, 5), st.integers(1, 3)),
        min_size=1,
    )
)
def test_totals_keep_every_click_and_request(rows: list[tuple[str, int, int, int]]) -> None:
    unit, variant, clicks, requests = zip(*rows, strict=True)
    totals = unit_totals(unit, np.array(variant), np.array(clicks, float), np.array(requests, float), 2)
    assert totals.numerator_UV.sum() == sum(clicks)
    assert totals.denominator_UV.sum() == sum(requests)
    assert len(totals.numerator_UV) == len(set(unit))


def test_revenue_of_few_large_buyers_is_called_different_no_more_often_than_it_may() -> None:
    """Lognormal purchases of 2% of units: the delta method alone would call a seventh of A/A experiments different."""
    rng, called = np.random.default_rng(7), 0
    for _ in range(800):
        spent = (rng.random(3000) < 0.02) * rng.lognormal(0, 2, 3000)
        in_UV = np.eye(2)[rng.integers(0, 2, 3000)]
        called += ratio_lift(UnitTotals(in_UV * spent[:, None], in_UV), 0, 1).p_value < 0.05
    assert called / 800 <= 0.05
