"""Values of a bandit's variants: unbiased under adaptive draws and drift, and covered as often as they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.experiments.policies.quadrature import largest_of_betas
from tastemaker.experiments.statistics.adaptive import adaptive_influence
from tastemaker.experiments.statistics.influence import difference, lift
from tastemaker.experiments.statistics.ratios import ratio_influence, unit_totals


def bandit(
    rng: np.random.Generator, rates: tuple[float, float], drift: float = 0.0, epochs: int = 10, num: int = 200
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Unit, variant, propensities and clicks of draws by Thompson sampling with a floor of 10%."""
    counts, parts = np.ones((2, 2)), []
    own = rng.beta(4, 4, 1000) * 2  # of mean 1
    for epoch in range(epochs):
        shares = 0.1 + 0.8 * largest_of_betas(counts[0].tolist(), counts[1].tolist())
        unit = rng.choice(1000, num, replace=False)
        variant = (rng.random(num) < shares[1]).astype(int)
        chance = np.array(rates)[variant] * own[unit] * (1 + drift * epoch / epochs)
        clicks = rng.random(num) < chance
        counts += [np.bincount(variant[clicks], minlength=2), np.bincount(variant[~clicks], minlength=2)]
        parts.append((unit, variant, np.tile(shares, (num, 1)), clicks.astype(float)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize(("rates", "drift"), [((0.2, 0.2), 1.0), ((0.2, 0.25), 0.0)])
def test_the_difference_is_unbiased_and_covered(rates: tuple[float, float], drift: float) -> None:
    rng = np.random.default_rng(1)
    truth, found, plain = rates[1] - rates[0], [], []
    for _ in range(200):
        unit, variant, propensity, clicks = bandit(rng, rates, drift)
        found.append(difference(adaptive_influence(unit, variant, propensity, clicks), 0, 1))
        plain.append(clicks[variant == 1].mean() - clicks[variant == 0].mean())
    error = np.mean([one.standard_error for one in found])
    assert np.mean([one.value for one in found]) == pytest.approx(truth, abs=4 * error / np.sqrt(200))
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert 0.9 <= covered <= 0.99  # standard deviation 1.5%
    if drift:  # what was preferred late saw the better days
        assert np.mean(np.abs(plain)) > 2 * np.mean([abs(one.value) for one in found])


def test_it_is_narrower_than_plain_weights() -> None:
    unit, variant, propensity, clicks = bandit(np.random.default_rng(2), (0.3, 0.45))
    own = propensity[np.arange(len(variant)), variant]
    plain = ratio_influence(
        unit_totals(unit.astype(object), variant, clicks, np.ones(len(unit)), 2, propensity_R=own)
    )
    adaptive = adaptive_influence(unit, variant, propensity, clicks)
    assert difference(adaptive, 0, 1).standard_error < difference(plain, 0, 1).standard_error


def test_ratios_of_draws_with_several_requests() -> None:
    rng = np.random.default_rng(3)
    unit, variant, propensity, _ = bandit(rng, (0.2, 0.2), epochs=40)
    visits = 1 + rng.poisson(2, len(unit))
    clicks = rng.binomial(visits, np.where(variant == 1, 0.3, 0.2))
    found = lift(
        adaptive_influence(unit, variant, propensity, clicks.astype(float), visits.astype(float)), 0, 1
    )
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.5


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=1, max_size=30))
def test_sure_draws_of_one_value_have_it_without_error(rows: list[tuple[int, int]]) -> None:
    """Where every draw of a variant brings the same, all scores after its first are exact."""
    variant = np.array([row[0] for row in rows] + [0, 1, 0, 1])
    unit = [f"u{i}" for i in range(len(variant))]
    found = adaptive_influence(unit, variant, np.full((len(variant), 2), 0.5), np.zeros(len(variant)))
    assert found.value_V.tolist() == [0.0, 0.0]
    assert not found.influence_UV.any()


def test_a_policy_without_a_floor_is_refused() -> None:
    with pytest.raises(ExperimentError, match="give the policy a floor"):
        adaptive_influence(["u"], np.array([1]), np.array([[0.0, 1.0]]), np.ones(1))
    with pytest.raises(ExperimentError, match="no unit was assigned"):
        adaptive_influence([], np.empty(0, int), np.empty((0, 2)), np.empty(0))
