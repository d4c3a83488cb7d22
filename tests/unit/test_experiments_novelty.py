"""Effects that fade: worlds where they do and where they do not, and days by hand."""

import numpy as np
import pytest

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.novelty import novelty
from tastemaker.experiments.statistics.ratios import ratio_lift, unit_totals

DAYS = 10


def world(
    rng: np.random.Generator, num: int, effect_D: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit, variant, day, clicks and visits of units who differ much and come on some of the days."""
    variant, rate = rng.integers(0, 2, num), rng.beta(2.0, 8.0, num)
    unit, day = np.nonzero(rng.random((num, DAYS)) < rng.uniform(0.2, 1.0, num)[:, None])
    visits = 1 + rng.poisson(2, len(unit))
    chance = np.minimum(rate[unit] * (1 + variant[unit] * effect_D[day]), 1.0)
    return unit.astype(str).astype(object), variant[unit], day, rng.binomial(visits, chance).astype(float), visits.astype(float)  # fmt: skip


def test_a_steady_effect_fades_by_luck_alone() -> None:
    rng = np.random.default_rng(1)
    found = [novelty(*world(rng, 400, np.full(DAYS, 0.1)), 0, 1) for _ in range(200)]
    assert np.mean([one.low <= 0 <= one.high for one in found]) >= 0.91  # standard deviation 1.5%
    assert np.mean([one.low <= 0 <= one.high for one in found]) <= 0.99
    assert np.mean([one.fades for one in found]) <= 0.06


def test_an_effect_that_fades_is_found_with_its_slope() -> None:
    rng = np.random.default_rng(2)
    log_lift_D = 0.5 - 0.05 * np.arange(DAYS)
    found = [novelty(*world(rng, 2000, np.expm1(log_lift_D)), 0, 1) for _ in range(40)]
    assert np.mean([one.slope for one in found]) == pytest.approx(-0.05, abs=0.004)
    assert np.mean([one.fades for one in found]) > 0.9


def test_a_growing_effect_does_not_fade() -> None:
    found = novelty(*world(np.random.default_rng(3), 3000, 0.1 + 0.06 * np.arange(DAYS)), 0, 1)
    assert found.low > 0
    assert not found.fades


def test_each_days_lift_is_that_of_its_own_requests() -> None:
    unit, variant, day, clicks, visits = world(np.random.default_rng(4), 300, np.zeros(DAYS))
    found = novelty(unit, variant, day, clicks, visits, 0, 1, max_days=7)
    assert found.day_D.tolist() == list(range(7))
    third = day == 3
    lift = ratio_lift(unit_totals(unit[third], variant[third], clicks[third], visits[third], 2), 0, 1)
    assert (found.lift_D[3], found.low_D[3], found.high_D[3]) == pytest.approx(
        (lift.value, lift.low, lift.high)
    )


def test_units_that_came_on_every_day_are_one_unit_each() -> None:
    """Whoever copies each day's requests has no more luck in the slope: its error is that of units."""
    rng = np.random.default_rng(5)
    rate, variant = rng.beta(2, 8, 200), np.arange(200) % 2
    unit = np.tile(np.arange(200).astype(str).astype(object), 4)
    same = np.tile(rng.binomial(10, rate), 4).astype(float)  # each day as the first
    found = novelty(unit, np.tile(variant, 4), np.repeat(np.arange(4), 200), same, np.full(800, 10.0), 0, 1)
    assert found.slope == pytest.approx(0, abs=1e-12)
    assert found.high == pytest.approx(
        0, abs=1e-9
    )  # by requests taken for independent it would be far from 0


def test_too_few_days_say_nothing() -> None:
    unit, variant, day, clicks, visits = world(np.random.default_rng(6), 300, np.zeros(DAYS))
    early = day < 2
    with pytest.raises(ExperimentError, match="days since first exposure with enough units, is 2"):
        novelty(unit[early], variant[early], day[early], clicks[early], visits[early], 0, 1)
