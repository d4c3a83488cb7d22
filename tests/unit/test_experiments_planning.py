"""Sizes of experiments: closed forms, laws, and simulated experiments of the planned size."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.cli import invoke
from tastemaker.errors import ExperimentError, UsageError
from tastemaker.experiments.statistics.planning import (
    crossing,
    plan,
    sequential_distance,
    variation_of,
    variation_of_rate,
)
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence
from tastemaker.experiments.statistics.sequential import Boundary


def test_a_fixed_plan_is_the_textbooks() -> None:
    # statsmodels 0.15.0: NormalIndPower().solve_power(effect_size=0.2, alpha=0.05, power=0.8) = 392.44 a group
    found = plan(np.expm1(0.2), 1.0, sequential=False)
    assert found.units_by_variant == (393, 393)
    assert found.expected_units == found.units
    assert found.standard_error == pytest.approx(0.2 / 2.801585, rel=1e-6)


@given(
    st.floats(0.01, 0.3), st.floats(0.5, 20), st.floats(0.05, 0.95), st.floats(0, 0.9), st.booleans()
)  # fmt: skip
def test_plans_scale_as_they_must(
    effect: float, variation: float, share: float, reduction: float, sequential: bool
) -> None:
    shares = (1 - share, share)
    found = plan(effect, variation, shares=shares, sequential=sequential)
    less = plan(effect, variation, shares=shares, sequential=sequential, variance_reduction=reduction)
    assert less.units == pytest.approx(found.units * (1 - reduction), abs=3)
    assert found.units >= plan(effect, variation, sequential=sequential).units - 1  # halves are best
    assert found.expected_units <= found.units
    assert found.units >= plan(effect, variation, shares=shares, sequential=False).units
    # The plan's end is where the log lift has the planned error.
    control, treated = found.units_by_variant
    error = variation * np.sqrt(1 / control + 1 / treated)
    assert found.standard_error * (1 - 1 / min(control, treated)) <= error <= found.standard_error


def test_more_variants_take_more_units_each() -> None:
    two, three = plan(0.1, 2.0), plan(0.1, 2.0, shares=(1 / 3, 1 / 3, 1 / 3))
    assert three.units_by_variant[1] > two.units_by_variant[1]


def test_days_are_rounded_up() -> None:
    found = plan(np.expm1(0.2), 1.0, sequential=False, units_per_day=100)  # 786 units
    assert found.days == 8
    assert plan(0.1, 1.0).days is None


def test_the_chance_of_crossing_is_that_of_simulated_walks() -> None:
    rng, looks, distance = np.random.default_rng(1), 20, 3.0
    share = np.arange(1, looks + 1) / looks
    boundary = Boundary.for_effect(distance)
    margin = np.array([boundary.margin(1 / np.sqrt(s)) * s for s in share])
    steps = rng.normal(distance / looks, np.sqrt(1 / looks), (100_000, looks))
    crossed = np.abs(steps.cumsum(axis=1)) > margin
    found, taken = crossing(distance)
    assert found == pytest.approx(crossed.any(axis=1).mean(), abs=0.006)  # standard deviation .0015
    first = np.where(crossed.any(axis=1), crossed.argmax(axis=1) + 1, looks) / looks
    assert taken == pytest.approx(first.mean(), abs=0.004)


@pytest.mark.parametrize("num_looks", [5, 50, 300])
def test_looks_at_nothing_cross_less_often_than_alpha(num_looks: int) -> None:
    assert 0 < crossing(0.0, num_looks=num_looks)[0] < 0.05


@pytest.mark.parametrize(("level", "power"), [(0.95, 0.8), (0.99, 0.9), (0.8, 0.5)])
def test_the_planned_distance_has_the_planned_power(level: float, power: float) -> None:
    distance, _ = sequential_distance(level, power)
    assert crossing(distance, level)[0] == pytest.approx(power, abs=1e-3)


def test_clustered_rates_vary_as_the_data_do() -> None:
    rng = np.random.default_rng(2)
    rate = rng.beta(1.0, 9.0, 200_000)  # correlation within a unit 1 / (1 + 1 + 9)
    clicks = rng.binomial(5, rate).astype(float)
    seen = ratio_influence(UnitTotals(clicks[:, None], np.full((200_000, 1), 5.0)))
    assert variation_of(seen) == pytest.approx(variation_of_rate(0.1, 5, 1 / 11), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ((0.0, 1.0), {}, "effect"),
        ((-1.0, 1.0), {}, "effect"),
        ((0.1, 0.0), {}, "variation"),
        ((0.1, 1.0), {"shares": (0.5, 0.6)}, "shares"),
        ((0.1, 1.0), {"shares": (1.0,)}, "shares"),
        ((0.1, 1.0), {"power": 1.0}, "power"),
        ((0.1, 1.0), {"variance_reduction": 1.0}, "variance reduction"),
        ((0.1, 1.0), {"units_per_day": 0.0}, "units per day"),
        ((0.1, 1.0), {"level": 1.0}, "level"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: tuple[float, float], options: dict[str, object], match: str
) -> None:
    with pytest.raises(ExperimentError, match=match):
        plan(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "match"), [((0.0,), "rate"), ((0.1, 0.5), "answers"), ((0.1, 2.0, 1.5), "correlation")]
)
def test_rates_that_cannot_be_are_refused(arguments: tuple[float, ...], match: str) -> None:
    with pytest.raises(ExperimentError, match=match):
        variation_of_rate(*arguments)


def test_the_command_plans_both_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    tree = invoke(
        ["experiment", "plan", "--effect", "0.05", "--rate", "0.1", "--units-per-day", "5000", "--json"]
    )
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(tree))
    assert tree["variation"] == pytest.approx(3.0)
    assert tree["fixed"]["units"] == plan(0.05, 3.0, sequential=False).units
    assert tree["sequential"]["days"] == -(-tree["sequential"]["units"] // 5000)
    invoke(["experiment", "plan", "--effect", "-0.1", "--mean", "12", "--deviation", "30"])
    assert "at any time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ([], "one of them"),
        (["--rate", "0.1", "--mean", "2"], "one of them"),
        (["--mean", "2"], "with --deviation"),
        (["--rate", "0.1", "--metric", "revenue"], "--like"),
        (["--rate", "0.1", "--shares", "half"], "numbers by comma"),
    ],
)
def test_the_command_says_what_it_lacks(options: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        invoke(["experiment", "plan", "--effect", "0.05", *options])
