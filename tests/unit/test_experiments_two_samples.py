"""Tests of units that count once, beside the values of statsmodels 0.15.0 and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import difference
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence
from tastemaker.experiments.statistics.two_samples import two_proportions, welch


def test_two_proportions_agree_with_statsmodels() -> None:
    # proportions_ztest([31, 19], [120, 95]); confint_proportions_2indep(19, 95, 31, 120, method="newcomb")
    found = two_proportions((31, 19), (120, 95))
    assert found.value == pytest.approx(19 / 95 - 31 / 120)
    assert found.p_value == pytest.approx(0.3146791032718451, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.1671830265555021, 0.056746722677785064), abs=1e-9)


def test_welch_agrees_with_statsmodels() -> None:
    a, b = np.array([3.1, 2.7, 5.2, 4.4, 3.9]), np.array([6.1, 4.2, 7.9, 5.5, 6.3, 8.8, 2.0])
    # ttest_ind(b, a, usevar="unequal") and CompareMeans.tconfint_diff
    found = welch((a.mean(), b.mean()), (a.var(ddof=1), b.var(ddof=1)), (5, 7))
    assert found.p_value == pytest.approx(0.07312040448838517, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((-0.22820910097293057, 4.165351958115789), abs=1e-9)


values = st.floats(-100, 100).map(lambda x: round(x, 3))


@given(st.lists(values, min_size=2, max_size=20), st.lists(values, min_size=2, max_size=20))
def test_welch_agrees_with_scipy(a: list[float], b: list[float]) -> None:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return
    found = welch((np.mean(a), np.mean(b)), (np.var(a, ddof=1), np.var(b, ddof=1)), (len(a), len(b)))
    expected = stats.ttest_ind(b, a, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-6, abs=1e-6)


@given(st.integers(0, 50), st.integers(0, 50), st.sampled_from([0.8, 0.95, 0.99]))
def test_intervals_of_shares_stay_within_their_range_and_around_the_difference(
    a: int, b: int, level: float
) -> None:
    found = two_proportions((a, b), (50, 50), level)
    assert -1 <= found.low <= found.value <= found.high <= 1
    turned = two_proportions((b, a), (50, 50), level)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))


def test_many_units_make_welch_and_the_clustered_difference_one() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.exponential(2.0, 4000), rng.exponential(2.1, 5000)
    in_UV = np.zeros((9000, 2))
    in_UV[:4000, 0] = in_UV[4000:, 1] = 1.0
    clustered = difference(ratio_influence(UnitTotals(in_UV * np.r_[a, b][:, None], in_UV)), 0, 1)
    plain = welch((a.mean(), b.mean()), (a.var(ddof=1), b.var(ddof=1)), (4000, 5000))
    assert clustered.value == pytest.approx(plain.value)
    assert clustered.standard_error == pytest.approx(plain.standard_error, rel=1e-12)
    assert clustered.p_value == pytest.approx(plain.p_value, rel=1e-2)  # normal beside t with 8,900 degrees


def test_groups_that_do_not_vary_differ_or_do_not() -> None:
    assert welch((1.0, 1.0), (0.0, 0.0), (3, 3)).p_value == 1.0
    assert welch((1.0, 2.0), (0.0, 0.0), (3, 3)).p_value == 0.0


def test_too_few_or_too_many_are_refused() -> None:
    with pytest.raises(ExperimentError, match="units in a group, is 1, must be at least 2"):
        welch((1.0, 2.0), (0.0, 1.0), (1, 5))
    with pytest.raises(ExperimentError, match="successes"):
        two_proportions((6, 1), (5, 5))
    with pytest.raises(ExperimentError, match="successes"):
        two_proportions((0, 0), (0, 5))
