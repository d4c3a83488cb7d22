"""Intervals that hold at every look: by hand, as laws, and over many simulated experiments that are watched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import Difference, Influence, Lift, lift
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence, unit_totals
from tastemaker.experiments.statistics.sequential import (
    Boundary,
    Looks,
    always_valid_difference,
    always_valid_lift,
    cumulative_totals,
    tightest,
)

alphas = st.floats(0.001, 0.3)
errors = st.floats(1e-4, 10)


def by_visitor(variant_U: np.ndarray, clicks_U: np.ndarray, visits_U: np.ndarray) -> Influence:
    in_UV = np.eye(2)[variant_U]
    return ratio_influence(UnitTotals(in_UV * clicks_U[:, None], in_UV * visits_U[:, None]))


@given(alphas, st.floats(0.01, 100), errors, st.floats(-50, 50))
def test_the_interval_excludes_0_where_the_p_value_is_below_alpha(
    alpha: float, scale: float, error: float, z: float
) -> None:
    boundary = Boundary(alpha, scale)
    margin, p_value = boundary.margin(error), boundary.p_value(z * error, error)
    if abs(abs(z) * error - margin) > 1e-9 * margin:
        assert (abs(z) * error > margin) == (p_value < alpha)


@given(alphas)
def test_the_boundary_is_tightest_where_it_was_tuned_to(alpha: float) -> None:
    boundary = Boundary.at_error(0.02, 1 - alpha)
    # By search: r that makes margin / error least, with error 0.02 = scale / sqrt(r).
    found = optimize.minimize_scalar(
        lambda log_r: (1 + np.exp(-log_r)) * (np.log1p(np.exp(log_r)) - 2 * np.log(alpha)), bounds=(-5, 8), method="bounded"
    )  # fmt: skip
    assert tightest(alpha) == pytest.approx(np.exp(found.x), rel=1e-3)
    around = [boundary.margin(0.02 * factor) / factor for factor in (0.8, 1.0, 1.25)]
    assert min(around) == around[1]


@given(alphas, errors)
def test_it_is_always_wider_than_the_interval_of_one_look(alpha: float, error: float) -> None:
    from scipy import stats

    assert Boundary(alpha, 1.0).margin(error) > stats.norm.isf(alpha / 2) * error


def test_the_mixture_is_that_of_the_msprt_by_quadrature() -> None:
    # E = integral of the likelihood ratio exp(d x / s^2 - d^2 / 2 s^2) over effects d ~ N(0, scale^2).
    scale, error, value = 0.3, 0.1, 0.25
    effect = np.linspace(-3, 3, 200_001)
    prior = np.exp(-((effect / scale) ** 2) / 2) / (scale * np.sqrt(2 * np.pi))
    ratio = np.exp(effect * value / error**2 - (effect / error) ** 2 / 2)
    e_value = np.trapezoid(prior * ratio, effect)
    assert Boundary(0.05, scale).p_value(value, error) == pytest.approx(1 / e_value, rel=1e-9)


def test_for_an_effect_it_is_tuned_to_the_fixed_tests_size() -> None:
    # 2.8016 = 1.95996 + 0.84162 standard errors
    assert Boundary.for_effect(0.1).scale == pytest.approx(Boundary.at_error(0.1 / 2.80158).scale, rel=1e-5)
    assert Boundary.for_effect(-0.1) == Boundary.for_effect(0.1)


def test_watching_after_every_hundred_visitors_gives_few_false_alarms_and_a_fixed_test_many() -> None:
    rng = np.random.default_rng(1)
    valid, fixed, runs, num = 0, 0, 200, 2000
    for _ in range(runs):
        variant, rate = rng.integers(0, 2, num), rng.beta(0.3, 2.7, num)
        often = 0.3 * rng.lognormal(-0.5, 1.0, num)
        clicks, visits = np.zeros(num), np.zeros(num)
        looks, called = Looks(Boundary.for_effect(0.3), 0, 1), np.zeros(2, bool)
        for end in range(100, num + 1, 100):
            came = np.where(np.arange(num) < end - 100, rng.poisson(often), 0)
            came[end - 100 : end] = 1
            visits += came
            clicks += rng.binomial(came, rate)
            influence = by_visitor(variant, clicks, visits)
            if influence.value_V.min() > 0:
                found, once = looks.look(influence), lift(influence, 0, 1)
                called |= [not found.low <= 0 <= found.high, once.p_value < 0.05]
        valid, fixed = valid + called[0], fixed + called[1]
    assert valid / runs <= 0.05
    assert fixed / runs > 0.12


def test_watching_revenue_of_few_large_buyers_gives_few_false_alarms() -> None:
    rng, num, called = np.random.default_rng(8), 2000, 0
    for _ in range(150):
        spent = (rng.random(num) < 0.05) * rng.lognormal(0, 2, num)
        variant, looks, missed = rng.integers(0, 2, num), Looks(Boundary.for_effect(0.5), 0, 1), False
        for end in range(100, num + 1, 100):
            here = np.arange(num) < end
            influence = by_visitor(variant, spent * here, here.astype(float))
            if influence.value_V.min() > 0:
                found = looks.look(influence)
                missed |= not found.low <= 0 <= found.high
        called += missed
    assert called / 150 <= 0.05


def test_fresh_luck_at_the_same_error_is_covered_by_the_looks_clock() -> None:
    """Each look sees other units, as many as before: the error never shrinks, so information alone would stand still."""
    rng = np.random.default_rng(2)
    boundary, runs, missed, still = Boundary.at_error(1.0), 300, 0, 0
    for _ in range(runs):
        looks, hit = Looks(boundary, 0, 1, relative=False), np.zeros(2, bool)
        for look in range(200):
            influence = np.zeros((400, 2))
            influence[2 * look, 0] = influence[2 * look + 1, 1] = np.sqrt(0.5)
            value = np.array([0.0, rng.standard_normal()])
            found = looks.look(Influence(value, influence, np.array([2, 2])))
            hit |= [not found.low <= 0 <= found.high, abs(value[1]) > boundary.margin(1.0)]
        missed, still = missed + hit[0], still + hit[1]
    assert missed / runs <= 0.05
    assert still / runs > 0.2  # 200 independent looks at 3.03 standard errors


def test_units_that_bring_one_value_each_leave_the_clock_at_information() -> None:
    rng = np.random.default_rng(3)
    values = rng.choice([-1.0, 1.0], 4000)  # variance 1 at every size
    variant = np.arange(4000) % 2
    looks, boundary = Looks(Boundary(0.05, 0.1), 0, 1, relative=False), Boundary(0.05, 0.1)
    for end in (500, 1000, 2000, 4000):
        here = (np.arange(4000) < end)[:, None] * np.eye(2)[variant]
        influence = ratio_influence(UnitTotals(here * values[:, None], here))
        found = looks.look(influence)
        assert looks.clock == pytest.approx(boundary.clock(found.standard_error), rel=0.02)


def test_one_look_is_the_first_of_many() -> None:
    influence = by_visitor(np.array([0, 0, 0, 1, 1, 1]), np.array([1.0, 2, 0, 2, 2, 1]), np.full(6, 3.0))
    boundary = Boundary.for_effect(0.5)
    assert always_valid_lift(influence, 0, 1, boundary) == Looks(boundary, 0, 1).look(influence)
    found = always_valid_difference(influence, 0, 1, boundary)
    assert isinstance(found, Difference)
    assert found.value == pytest.approx(5 / 9 - 3 / 9)
    assert found.high - found.value == pytest.approx(boundary.margin(found.standard_error))


def test_without_any_error_nothing_is_said() -> None:
    sure = Influence(np.array([1.0, 2.0]), np.zeros((4, 2)), np.array([2, 2]))
    found = always_valid_lift(sure, 0, 1, Boundary.for_effect(0.1))
    assert isinstance(found, Lift)
    assert (found.low, found.high, found.p_value) == (-1.0, np.inf, 1.0)


rows = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 1), st.integers(0, 3), st.integers(0, 20)), min_size=1
)


@given(rows, st.lists(st.integers(0, 25), min_size=1).map(sorted))
def test_cumulative_totals_are_the_totals_of_what_came_before(
    rows: list[tuple[str, int, int, int]], ends: list[int]
) -> None:
    unit, variant, clicks, time = (np.array(column) for column in zip(*rows, strict=True))
    unit, num = unit.astype(object), clicks.astype(float)
    looks = cumulative_totals(unit, variant, num, np.ones(len(rows)), 2, time, ends)
    for end, totals in zip(ends, looks, strict=True):
        here = time < end
        whole = unit_totals(unit, variant, num * here, here.astype(float), 2)
        np.testing.assert_allclose(totals.numerator_UV, whole.numerator_UV)
        np.testing.assert_allclose(totals.denominator_UV, whole.denominator_UV)


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_outside_0_to_1_is_refused(level: float) -> None:
    with pytest.raises(ExperimentError, match="between 0 and 1"):
        Boundary.at_error(0.1, level)


def test_an_effect_of_0_cannot_be_tuned_to() -> None:
    with pytest.raises(ExperimentError, match="standard error to plan for, is 0"):
        Boundary.for_effect(0.0)
