"""Many comparisons: published values, laws, and how often anything false is found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import lift
from tastemaker.experiments.statistics.multiplicity import (
    benjamini_hochberg,
    dunnett_reach,
    holm,
    simultaneous_level,
    simultaneous_lifts,
)
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence

P_VALUES = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
lists = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_adjusted_p_values_agree_with_statsmodels() -> None:
    # statsmodels 0.15.0, multipletests(method="holm") and "fdr_bh"
    assert holm(P_VALUES) == pytest.approx(
        [0.01, 0.072, 0.312, 0.312, 0.312, 0.312, 0.312, 0.615, 0.615, 0.615]
    )
    assert benjamini_hochberg(P_VALUES) == pytest.approx(
        [0.01, 0.04, 0.084, 0.084, 0.084, 0.1, 0.105714, 0.216, 0.216, 0.216], abs=1e-6
    )


@given(lists, st.randoms())
def test_adjusting_keeps_the_order_and_never_lowers(p: list[float], random: object) -> None:
    for adjust in (holm, benjamini_hochberg):
        found = adjust(p)
        assert (found >= np.array(p) - 1e-12).all()
        assert (found <= 1).all()
        order = np.argsort(p, kind="stable")
        assert (np.diff(found[order]) >= 0).all()
        shuffled = list(range(len(p)))
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        assert adjust([p[i] for i in shuffled]) == pytest.approx(found[shuffled])
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


@pytest.mark.parametrize("p", [[0.1, 1.2], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(p: list[float]) -> None:
    with pytest.raises(ExperimentError, match="p-values"):
        holm(p)


@pytest.mark.parametrize(
    ("num", "level", "expected"), [(2, 0.95, 2.212), (3, 0.95, 2.349), (4, 0.95, 2.442), (2, 0.99, 2.794), (9, 0.95, 2.686)]
)  # fmt: skip
def test_dunnetts_table_for_endless_degrees(num: int, level: float, expected: float) -> None:
    # Two-sided, rho 1/2 [Dunnett 1964]; 2 to 4 and 9 comparisons.
    assert dunnett_reach(num, level) == pytest.approx(expected, abs=0.004)


def arms(rng: np.random.Generator, sizes: list[int]) -> UnitTotals:
    variant = np.repeat(np.arange(len(sizes)), sizes)
    in_UV = np.eye(len(sizes))[variant]
    return UnitTotals(in_UV * rng.gamma(2.0, 1.0, len(variant))[:, None], in_UV)


def test_all_intervals_hold_at_once_where_single_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    together, alone, runs = 0, 0, 1500
    for _ in range(runs):
        influence = ratio_influence(arms(rng, [400, 150, 150, 150, 150]))
        lifts = simultaneous_lifts(influence, 0)
        together += all(one.low <= 0 <= one.high for one in lifts.values())
        alone += all(lift(influence, 0, v).p_value >= 0.05 for v in range(1, 5))
        assert all((one.p_value < 0.05) == (not one.low <= 0 <= one.high) for one in lifts.values())
    assert 0.93 <= together / runs <= 0.97  # standard deviation .6%
    assert alone / runs < 0.9


def test_one_comparison_needs_no_correction() -> None:
    influence = ratio_influence(arms(np.random.default_rng(2), [50, 60]))
    one, alone = simultaneous_lifts(influence, 0)[1], lift(influence, 0, 1)
    assert (one.low, one.high, one.p_value) == pytest.approx((alone.low, alone.high, alone.p_value))


def test_units_in_several_variants_get_sidaks_bound() -> None:
    rng = np.random.default_rng(3)
    totals = UnitTotals(rng.gamma(2.0, 1.0, (100, 3)), np.ones((100, 3)))
    influence = ratio_influence(totals)
    one, alone = simultaneous_lifts(influence, 0)[1], lift(influence, 0, 1)
    # Sidak: each of two at sqrt(.95), z = 2.2365
    reach = np.log((1 + one.high) / (1 + one.value)) / alone.standard_error
    assert reach == pytest.approx(2.2365, abs=1e-4)


def test_bonferroni_shares_the_error_out() -> None:
    assert simultaneous_level(1, 0.95) == pytest.approx(0.95)
    assert simultaneous_level(10, 0.95) == pytest.approx(0.995)
