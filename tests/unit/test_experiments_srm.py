"""Mismatched splits: numbers by hand, and how often fair and unfair splits are called wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.srm import srm, srm_draws


def test_a_fixed_split_as_planned_is_no_mismatch_and_a_lost_tenth_is() -> None:
    assert srm(np.array([[5050, 4950]]), np.array([[0.5, 0.5]])).p_value > 0.3  # chi-square 1
    assert srm(np.array([[5000, 4500]]), np.array([[0.5, 0.5]])).p_value < 1e-6  # chi-square 26.3
    planned = srm(np.array([[2000, 1000, 1000]]), np.array([[0.5, 0.25, 0.25]]))
    assert (planned.p_value, planned.always_valid_p_value) == (1.0, 1.0)


def test_three_variants_give_pearsons_chi_square() -> None:
    # 20^2/200 + 10^2/100 + 10^2/100 = 4 with 2 degrees: exp(-4/2)
    found = srm(np.array([[220, 90, 90]]), np.array([[0.5, 0.25, 0.25]]))
    assert found.p_value == pytest.approx(np.exp(-2.0), rel=1e-12)


def test_a_ramp_is_no_mismatch_but_would_be_one_under_its_last_allocation() -> None:
    num, weights = np.array([[9900, 100], [5000, 5000]]), np.array([[0.99, 0.01], [0.5, 0.5]])
    assert srm(num, weights).p_value == 1.0
    assert srm(num.sum(axis=0)[None], weights[1:]).p_value < 1e-100


def test_a_loss_that_lasts_adds_up_over_the_periods_of_a_ramp() -> None:
    weights = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5]])
    num = np.array([[9050, 950], [8070, 1930], [5080, 4920]])
    found = srm(num, weights)
    assert (found.by_period_P > 0.05).all()
    # excess 50 + 70 + 80 = 200, variance 900 + 1600 + 2500 = 5000: z = 2.83
    assert found.p_value == pytest.approx(0.00468, abs=1e-5)


def test_a_unit_where_none_could_be_is_a_mismatch() -> None:
    found = srm(np.array([[99, 1], [50, 50]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    assert found.p_value == found.always_valid_p_value == 0.0
    assert found.alarm


def test_periods_without_units_or_without_luck_say_nothing() -> None:
    found = srm(np.array([[0, 0], [40, 0], [5, 5]]), np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]]))
    assert np.isnan(found.by_period_P[0])
    assert found.by_period_P[1] == found.p_value == 1.0


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 200), st.floats(0.05, 0.95)), min_size=1, max_size=6
    ).filter(lambda rows: sum(a + b for a, b, _ in rows) > 0)
)
def test_draws_one_by_one_say_what_their_counts_say(rows: list[tuple[int, int, float]]) -> None:
    num = np.array([row[:2] for row in rows])
    weights = np.array([[share, 1 - share] for _, _, share in rows])
    counted = srm(num, weights)
    variant = np.concatenate([np.repeat([0, 1], row) for row in num])
    drawn = srm_draws(variant, np.repeat(weights, num.sum(axis=1), axis=0))
    assert drawn.p_value == pytest.approx(counted.p_value, rel=1e-6, abs=1e-12)
    assert drawn.always_valid_p_value == pytest.approx(counted.always_valid_p_value, rel=1e-6)


def test_a_bandits_draws_are_uniform_in_p_value_and_a_lost_fifth_is_found() -> None:
    rng = np.random.default_rng(6)
    p_values, broken = [], []
    for _ in range(500):
        share = np.clip(np.linspace(0.5, rng.uniform(0.1, 0.9), 2000), 0.1, 0.9)
        propensity = np.column_stack([1 - share, share])
        variant = (rng.random(2000) < share).astype(int)
        p_values.append(srm_draws(variant, propensity).p_value)
        kept = (variant == 0) | (rng.random(2000) < 0.8)
        broken.append(srm_draws(variant[kept], propensity[kept]).p_value)
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09  # standard deviation 1%
    assert np.mean(np.array(broken) < 0.05) > 0.9


def test_looking_often_alarms_by_the_fixed_p_value_and_not_by_the_always_valid_one() -> None:
    rng = np.random.default_rng(7)
    weights, fixed, valid = np.array([[0.5, 0.5]]), 0, 0
    for _ in range(150):
        first = rng.binomial(200, 0.5, 40).cumsum()
        looks = [srm(np.array([[a, 200 * (k + 1) - a]]), weights) for k, a in enumerate(first)]
        fixed += min(look.p_value for look in looks) < 0.05
        valid += min(look.always_valid_p_value for look in looks) < 0.05
    assert fixed / 150 > 0.2
    assert valid / 150 <= 0.05


def test_49_to_51_is_found_at_a_million() -> None:
    found = srm(np.array([[490_000, 510_000]]), np.array([[0.5, 0.5]]))
    assert found.alarm
    assert not srm(np.array([[500_700, 499_300]]), np.array([[0.5, 0.5]])).alarm  # z = 1.4


def test_without_units_there_is_no_ratio_to_check() -> None:
    with pytest.raises(ExperimentError, match="no unit was assigned"):
        srm(np.array([[0, 0]]), np.array([[0.5, 0.5]]))
    with pytest.raises(ExperimentError, match="no unit was assigned"):
        srm_draws(np.empty(0, int), np.empty((0, 2)))


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.5, -0.5]])
def test_shares_that_do_not_add_up_are_refused(weights: list[float]) -> None:
    with pytest.raises(ExperimentError, match="adding up to 1"):
        srm(np.array([[5, 5]]), np.array([weights]))


def test_shares_of_other_variants_are_refused() -> None:
    with pytest.raises(ExperimentError, match="shares' shape"):
        srm(np.array([[5, 5]]), np.array([[0.5, 0.25, 0.25]]))
