"""What an experiment's numbers say: sums by unit, and ratios and lifts with intervals clustered by unit.

Shape letters: R requests, U units, V variants.

A unit (visitor) makes several requests that resemble each other: treating requests as independent gives over
50% false positives in A/A tests. All variances here are between units. [Deng, Knoblich & Lu 2018] derive the
delta method for ratio metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tastemaker.experiments.statistics.influence import Estimate, Influence, Lift, estimate, lift
from tastemaker.types import Float64, Int64, Strings

Units = Sequence[str] | Strings | Int64
"""Which unit each row is of: ids, or numbers in their place, which are much faster."""


@dataclass(frozen=True, slots=True)
class UnitTotals:
    """Sums over each unit's requests, per variant: numerator and denominator of a ratio metric.

    A unit that never met a variant has 0 in its denominator there. Under weights both are weighted sums.
    """

    numerator_UV: Float64
    denominator_UV: Float64


def unit_totals(
    unit_R: Units,
    variant_R: Int64,
    numerator_R: Float64,
    denominator_R: Float64,
    num_variants: int,
    *,
    propensity_R: Float64 | None = None,
) -> UnitTotals:
    """Sums by unit and variant.

    Args:
        unit_R: Ids, or numbers of units.
        variant_R: Number of the variant, from 0.
        numerator_R: Such as clicks.
        denominator_R: Such as ones.
        num_variants: V.
        propensity_R: Probability with which the variant was drawn; rows then weigh 1 / propensity, and
            ratios of the sums are Hájek estimates. Unset weighs all alike, which is right for a fixed split.

    >>> totals = unit_totals(["u", "u", "w"], np.array([0, 0, 1]), np.array([1., 0., 1.]), np.ones(3), 2)
    >>> totals.numerator_UV.tolist(), totals.denominator_UV.tolist()
    ([[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]])
    """
    num_units, code_R = unit_codes(unit_R)
    cell_R = code_R * num_variants + variant_R
    weight_R = np.ones(len(cell_R)) if propensity_R is None else 1 / propensity_R

    def total(value_R: Float64) -> Float64:
        sums = np.bincount(cell_R, weights=value_R * weight_R, minlength=num_units * num_variants)
        return sums.astype(np.float64).reshape(num_units, num_variants)

    return UnitTotals(total(numerator_R), total(denominator_R))


def unit_codes(unit_R: Units) -> tuple[int, Int64]:
    """How many units there are, and each request's as a number from 0, in the order of ids.

    >>> unit_codes(["w", "u", "w"])
    (2, array([1, 0, 1]))
    """
    ids = unit_R if isinstance(unit_R, np.ndarray) else np.asarray(unit_R, dtype=object)
    units, code_R = np.unique(ids, return_inverse=True)
    return len(units), code_R


def ratio_influence(totals: UnitTotals) -> Influence:
    """Sum of numerators over sum of denominators by variant, with the influences of the delta method.

    A unit's influence on r = N / D is (n - r d) / D, times sqrt(n / (n - 1)) for the r that was fitted
    [Deng, Knoblich & Lu 2018]. With fewer than two units a variant has NaN. With ones for denominators r is the
    mean over units.

    >>> totals = UnitTotals(np.array([[2.0, 1], [0, 0]]), np.array([[2.0, 1], [2, 0]]))
    >>> found = ratio_influence(totals)
    >>> found.value_V.tolist(), found.units_V.tolist(), (found.influence_UV[:, 0] ** 2).round(6).tolist()
    ([0.5, nan], [2, 1], [0.125, 0.125])
    """
    numerator_UV, denominator_UV = totals.numerator_UV, totals.denominator_UV
    units_V = np.count_nonzero(denominator_UV > 0, axis=0)
    known_V = units_V >= 2
    total_V = np.where(known_V, denominator_UV.sum(axis=0), 1.0)
    value_V = np.where(known_V, numerator_UV.sum(axis=0) / total_V, 0.0)
    scale_V = np.where(known_V, np.sqrt(units_V / np.maximum(units_V - 1, 1)) / total_V, 0.0)
    influence_UV = (numerator_UV - value_V * denominator_UV) * scale_V
    return Influence(np.where(known_V, value_V, np.nan), influence_UV, units_V)


def ratio(totals: UnitTotals, variant: int, level: float = 0.95) -> Estimate:
    """A variant's ratio with a normal interval from the variance between units; not below 0.

    By hand: two units with 2 of 2 and 0 of 2. r = 2/4; residuals N - rD are 1 and -1; the variance of r is
    n/(n-1) * (1 + 1) / 4^2 = 2 * 2 / 16 = 1/4.

    >>> totals = UnitTotals(np.array([[2.0], [0.0]]), np.array([[2.0], [2.0]]))
    >>> estimate = ratio(totals, 0)
    >>> estimate.value, round(estimate.standard_error, 12), round(estimate.high, 3)
    (0.5, 0.5, 1.48)

    Raises:
        ExperimentError: Fewer than two units met the variant.
    """
    found = estimate(ratio_influence(totals), variant, level)
    return replace(found, low=max(0.0, found.low))


def ratio_lift(totals: UnitTotals, control: int, treatment: int, level: float = 0.95) -> Lift:
    """Lift of one variant's ratio over another's.

    By hand: A as in `ratio` (r = 1/2, standard error 1/2), B with 2 of 2 twice (r = 1, 0): the lift is 1 and
    the standard error of its log is (1/2) / (1/2) = 1.

    >>> clicks = np.array([[2.0, 0], [0, 0], [0, 2], [0, 2]])
    >>> requests = np.array([[2.0, 0], [2, 0], [0, 2], [0, 2]])
    >>> lift = ratio_lift(UnitTotals(clicks, requests), control=0, treatment=1)
    >>> lift.value, round(lift.standard_error, 12)
    (1.0, 1.0)
    >>> bool(np.isclose(lift.high, 2 * np.exp(1.959964) - 1))
    True

    Raises:
        ExperimentError: A variant has fewer than two units, or a value of 0: the log is not defined.
    """
    return lift(ratio_influence(totals), control, treatment, level)
