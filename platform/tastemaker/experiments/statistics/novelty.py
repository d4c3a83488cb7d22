"""Whether an effect fades as units get used to it: the lift by days since a unit's first exposure, and its trend.

Shape letters: R requests, D days since first exposure.
"""

from dataclasses import dataclass

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import critical_value, log_lift, two_sided
from tastemaker.experiments.statistics.ratios import Units, ratio_influence, unit_codes, unit_totals
from tastemaker.types import Float64, Int64

_LEAST_DAYS, _LEAST_UNITS = 3, 10


@dataclass(frozen=True, slots=True)
class Novelty:
    """The trend of the log lift per day since first exposure, and the lift of each day with its own interval."""

    slope: float
    low: float
    high: float
    p_value: float
    fades: bool
    day_D: Int64
    lift_D: Float64
    low_D: Float64
    high_D: Float64


def novelty(
    unit_R: Units,
    variant_R: Int64,
    day_R: Int64,
    numerator_R: Float64,
    denominator_R: Float64,
    control: int,
    treatment: int,
    *,
    num_variants: int = 2,
    max_days: int = 28,
    level: float = 0.95,
) -> Novelty:
    """Regression of the log lift on days since first exposure, by weighted least squares with errors clustered by unit.

    Each day compares units of the same age in the experiment, which assignment made alike. Weights are the days' own
    precisions; the slope's error is the sum over units of their influence on it, so that a unit that came on many days is
    one unit [Liang & Zeger 1986]. The effect fades where the slope's interval excludes 0 and points against the effect.

    Args:
        unit_R: Ids, or numbers of units.
        variant_R: Number of the variant.
        day_R: Days since the unit's first exposure, from 0; of `max_days` or more are left out.
        numerator_R: Such as clicks.
        denominator_R: Such as ones.
        control: Variant to compare with.
        treatment: Variant that may fade.
        num_variants: V.
        max_days: How far it looks.
        level: Of the intervals.

    Raises:
        ExperimentError: Fewer than three days on which both variants have ten units and a value above 0.
    """
    num_units, code_R = unit_codes(unit_R)
    days, lifts, errors, parts = [], [], [], []
    for day in range(max_days):
        rows = np.flatnonzero(day_R == day)
        if not len(rows):
            continue
        totals = unit_totals(
            code_R[rows], variant_R[rows], numerator_R[rows], denominator_R[rows], num_variants
        )
        influence = ratio_influence(totals)
        pair = [control, treatment]
        if influence.units_V[pair].min() < _LEAST_UNITS or influence.value_V[pair].min() <= 0:
            continue
        value, error, influence_U = log_lift(influence, control, treatment)
        days.append(day)
        lifts.append(value)
        errors.append(error)
        parts.append((np.unique(code_R[rows]), influence_U))
    if len(days) < _LEAST_DAYS or min(errors) == 0:
        raise ExperimentError(
            "days since first exposure with enough units",
            value=len(days),
            limit=f"at least {_LEAST_DAYS}",
            mend="wait for units that come again",
        )
    day_D, log_lift_D, error_D = np.array(days), np.array(lifts), np.array(errors)
    share_D = _slope_shares(day_D, error_D)
    slope, mean = float(share_D @ log_lift_D), float(np.average(log_lift_D, weights=error_D**-2))
    influence_U = np.zeros(num_units)
    for share, (code_U, part_U) in zip(share_D, parts, strict=True):
        influence_U[code_U] += share * part_U
    error, z = float(np.linalg.norm(influence_U)), critical_value(level)
    fades = abs(slope) > z * error and slope * mean < 0
    low_D, high_D = np.expm1(log_lift_D - z * error_D), np.expm1(log_lift_D + z * error_D)
    return Novelty(
        slope, slope - z * error, slope + z * error, two_sided(slope, error), fades, day_D, np.expm1(log_lift_D), low_D, high_D
    )  # fmt: skip


def _slope_shares(day_D: Int64, error_D: Float64) -> Float64:
    """What each day's value adds to the slope of the weighted regression line.

    >>> _slope_shares(np.array([0, 1, 2]), np.ones(3)).tolist()  # half the rise from day 0 to day 2
    [-0.5, 0.0, 0.5]
    """
    weight_D = error_D**-2
    apart_D = day_D - np.average(day_D, weights=weight_D)
    return np.asarray(weight_D * apart_D / (weight_D @ apart_D**2))
