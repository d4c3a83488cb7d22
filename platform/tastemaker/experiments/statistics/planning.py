"""How many units an experiment needs, and for how many days, before it starts.

What is asked for is a relative effect; what matters of the metric is its variation, the standard deviation between units over
the mean. A ratio of variant to control has variance variation^2 (1/n_control + 1/n_variant) on the log scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import Influence, critical_value
from tastemaker.experiments.statistics.multiplicity import dunnett_reach, simultaneous_level
from tastemaker.experiments.statistics.sequential import Boundary
from tastemaker.types import Float64

NUM_LOOKS = 20
"""Looks that a sequential plan counts on; more find effects a little earlier."""
_POINTS = 301


@dataclass(frozen=True, slots=True)
class Plan:
    """What an experiment needs.

    `units` are in all variants together, `units_by_variant` one by one, the control first. `expected_units` is how many a sequential
    experiment takes on average where the effect is as large as asked for. `standard_error` is of the log lift at the end. `days` is
    null without a number of units per day.
    """

    units: int
    units_by_variant: tuple[int, ...]
    expected_units: int
    days: int | None
    standard_error: float
    sequential: bool


def plan(
    effect: float,
    variation: float,
    *,
    shares: Sequence[float] = (0.5, 0.5),
    level: float = 0.95,
    power: float = 0.8,
    sequential: bool = True,
    variance_reduction: float = 0.0,
    units_per_day: float | None = None,
) -> Plan:
    """Units for every variant to be found better or worse than the control by `effect`, with this power each.

    Fixed: the log effect must be z_level + z_power standard errors, with Dunnett's reach for several variants. Sequential: as many
    standard errors as let `NUM_LOOKS` looks at the always-valid interval exclude 0 with this power.

    By hand: 10% of units convert, so the variation is sqrt(.9 / .1) = 3; an effect of 5% is log(1.05) = .04879; two halves
    need (1.96 + .8416)^2 * 9 * 4 / .04879^2 = 118,700 units.

    >>> round(plan(0.05, 3.0, sequential=False).units, -2)
    118700

    Args:
        effect: Smallest relative effect worth finding: 0.05 for 5% more, -0.05 for 5% less.
        variation: Standard deviation between units over the mean; see `variation_of_rate`, `variation_of`.
        shares: Of units by variant, the control first; they add up to 1.
        level: Of the intervals.
        power: Chance to find an effect that is as large.
        sequential: Whether it may be watched and stopped at any time.
        variance_reduction: What CUPED takes out, from 0 to below 1.
        units_per_day: New units a day that take part.

    Raises:
        ExperimentError: A value out of its range.
    """
    _check(effect, variation, shares, power, variance_reduction, units_per_day)
    log_effect, comparisons = abs(float(np.log1p(effect))), len(shares) - 1
    if sequential:
        distance, expected = sequential_distance(simultaneous_level(comparisons, level), power)
    else:
        distance, expected = dunnett_reach(comparisons, level) + float(special.ndtri(power)), 1.0
    error = log_effect / distance
    spread = variation**2 * (1 - variance_reduction) * max(1 / shares[0] + 1 / share for share in shares[1:])
    units = spread / error**2
    by_variant = tuple(int(np.ceil(units * share)) for share in shares)
    days = None if units_per_day is None else int(np.ceil(sum(by_variant) / units_per_day))
    total = sum(by_variant)
    return Plan(total, by_variant, round(total * expected), days, error, sequential)


def variation_of_rate(rate: float, per_unit: float = 1.0, correlation: float = 0.0) -> float:
    """Variation of a share of yes among a unit's answers, such as clicks of impressions.

    Var / mean^2 = (1 - p) / p * (1 + (m - 1) rho) / m, with m answers a unit that resemble each other by the intraclass
    correlation rho [Kish 1965].

    >>> variation_of_rate(0.1), round(variation_of_rate(0.1, per_unit=4, correlation=0.2) ** 2, 6)  # 9 * 1.6 / 4
    (3.0, 3.6)

    Raises:
        ExperimentError: A rate or correlation outside 0 to 1, or less than one answer.
    """
    if not 0 < rate < 1:
        raise ExperimentError("rate", value=rate, limit="between 0 and 1")
    if per_unit < 1:
        raise ExperimentError("answers per unit", value=per_unit, limit="at least 1")
    if not 0 <= correlation <= 1:
        raise ExperimentError("correlation within units", value=correlation, limit="from 0 to 1")
    return float(np.sqrt((1 - rate) / rate * (1 + (per_unit - 1) * correlation) / per_unit))


def variation_of(influence: Influence, variant: int = 0) -> float:
    """Variation as data of a running or past experiment show it, clustered by unit.

    Raises:
        ExperimentError: The variant has no value above 0 yet.
    """
    value, units = float(influence.value_V[variant]), int(influence.units_V[variant])
    if not value > 0:
        raise ExperimentError("value to plan from", value=value, limit="above 0", mend="wait for traffic")
    return float(np.linalg.norm(influence.influence_UV[:, variant])) * float(np.sqrt(units)) / value


@lru_cache(maxsize=64)
def sequential_distance(level: float = 0.95, power: float = 0.8) -> tuple[float, float]:
    """Standard errors that an effect must be away from 0 at the end, and the share of units taken on average then.

    >>> distance, expected = sequential_distance()
    >>> round(distance, 2), round((distance / 2.8016) ** 2, 2), round(expected, 2)  # units beside the fixed test's
    (3.7, 1.74, 0.63)
    """
    if not 0 < power < 1:
        raise ExperimentError("power", value=power, limit="between 0 and 1")
    least = critical_value(level)
    distance = float(
        optimize.brentq(lambda far: crossing(far, level)[0] - power, least / 2, 4 * least + 4, xtol=1e-4)
    )
    return distance, crossing(distance, level)[1]


def crossing(distance: float, level: float = 0.95, num_looks: int = NUM_LOOKS) -> tuple[float, float]:
    """Chance that an always-valid interval excludes 0 at one of so many evenly spaced looks, and the share of units then taken.

    The density of what has not yet crossed goes from look to look by numeric integration [Armitage, McPherson & Rowe 1969].
    The boundary is `Boundary.for_effect` of an effect that lies `distance` standard errors away at the last look.

    Args:
        distance: Effect over its standard error at the last look; 0 gives the rate of false positives.
        level: Of the intervals.
        num_looks: Evenly spaced.
    """
    boundary = Boundary.for_effect(distance or 3.7, level)
    step = 1 / num_looks
    deviation, drift = np.sqrt(step), distance * step
    stayed, taken = 1.0, 0.0
    point_old, mass_old = np.zeros(1), np.ones(1)
    for look in range(1, num_looks + 1):
        share = look / num_looks
        # Scores are estimate x information, with information 1 at the last look: error 1 / sqrt(share).
        reach = boundary.margin(1 / np.sqrt(share)) * share
        point = np.linspace(-reach, reach, _POINTS)
        kernel = np.exp(-(((point[:, None] - point_old - drift) / deviation) ** 2) / 2)
        density = kernel @ mass_old / (deviation * np.sqrt(2 * np.pi))
        point_old, mass_old = point, density * _trapezoid(point)
        taken += step * stayed
        stayed = float(mass_old.sum())
    return 1 - stayed, taken


def _trapezoid(point: Float64) -> Float64:
    weight = np.full(len(point), point[1] - point[0])
    weight[[0, -1]] /= 2
    return weight


def _check(
    effect: float,
    variation: float,
    shares: Sequence[float],
    power: float,
    variance_reduction: float,
    units_per_day: float | None,
) -> None:
    if effect == 0 or not -1 < effect < np.inf:
        raise ExperimentError("effect", value=effect, limit="a share above -1, not 0", mend="0.05 is 5% more")
    if not 0 < variation < np.inf:
        raise ExperimentError("variation of the metric", value=variation, limit="above 0")
    if len(shares) < 2 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise ExperimentError("shares", value=list(shares), limit="two or more above 0, adding up to 1")
    if not 0 < power < 1:
        raise ExperimentError("power", value=power, limit="between 0 and 1")
    if not 0 <= variance_reduction < 1:
        raise ExperimentError("variance reduction", value=variance_reduction, limit="from 0 to below 1")
    if units_per_day is not None and not units_per_day > 0:
        raise ExperimentError("units per day", value=units_per_day, limit="above 0")
