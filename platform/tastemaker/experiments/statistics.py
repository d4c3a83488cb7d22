"""What an experiment's numbers say: ratios and lifts with intervals clustered by unit, and SRM checks.

Shape letters: R requests, U units, V variants.

A unit (visitor) makes several requests that resemble each other: treating requests as independent gives over
50% false positives in A/A tests. All variances here are between units. [Deng, Knoblich & Lu 2018] derive the
delta method for ratio metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class UnitTotals:
    """Sums over each unit's requests, per variant: numerator and denominator of a ratio metric.

    A unit that never met a variant has 0 in its denominator there. Under weights both are weighted sums.
    """

    numerator_UV: Float64
    denominator_UV: Float64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, and the standard error that the interval was made from."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Lift:
    """Relative difference to the control, r / r_control - 1; its interval is made on the log scale.

    `p_value` is two-sided, of no difference; `standard_error` is that of log(r / r_control).
    """

    value: float
    low: float
    high: float
    standard_error: float
    p_value: float


def unit_totals(
    unit_R: Sequence[str] | npt.NDArray[np.object_],
    variant_R: Int64,
    numerator_R: Float64,
    denominator_R: Float64,
    num_variants: int,
    *,
    propensity_R: Float64 | None = None,
) -> UnitTotals:
    """Sums by unit and variant.

    Args:
        unit_R: Ids.
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
    units, code_R = np.unique(np.asarray(unit_R, dtype=object), return_inverse=True)
    cell_R = code_R * num_variants + variant_R
    weight_R = np.ones(len(cell_R)) if propensity_R is None else 1 / propensity_R

    def total(value_R: Float64) -> Float64:
        sums = np.bincount(cell_R, weights=value_R * weight_R, minlength=len(units) * num_variants)
        return sums.astype(np.float64).reshape(len(units), num_variants)

    return UnitTotals(total(numerator_R), total(denominator_R))


def ratio(totals: UnitTotals, variant: int, level: float = 0.95) -> Estimate:
    """Sum of numerators over sum of denominators, with a normal interval from the variance between units.

    By hand: two units with 2 of 2 and 0 of 2. r = 2/4; residuals N - rD are 1 and -1; the variance of r is
    n/(n-1) * (1 + 1) / 4^2 = 2 * 2 / 16 = 1/4.

    >>> totals = UnitTotals(np.array([[2.0], [0.0]]), np.array([[2.0], [2.0]]))
    >>> estimate = ratio(totals, 0)
    >>> estimate.value, estimate.standard_error, round(estimate.high, 3)
    (0.5, 0.5, 1.48)

    Raises:
        ExperimentError: Fewer than two units met the variant.
    """
    value, influence_U = _influence(totals, variant)
    error = float(np.sqrt((influence_U**2).sum()))
    z = _z(level)
    return Estimate(value, max(0.0, value - z * error), value + z * error, error)


def ratio_lift(totals: UnitTotals, control: int, treatment: int, level: float = 0.95) -> Lift:
    """Lift of one variant's ratio over another's.

    Var(log(r_B / r_A)) is the sum over units of (I_B / r_B - I_A / r_A)^2, with I a unit's influence on r. A
    unit that met both variants (a bandit's, in different epochs) thereby adds its covariance.

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
        ExperimentError: A variant has fewer than two units, or no click: the log of its ratio is not defined.
    """
    value_a, influence_a = _influence(totals, control)
    value_b, influence_b = _influence(totals, treatment)
    if value_a <= 0 or value_b <= 0:
        raise ExperimentError("a variant has no clicks yet", mend="wait for more traffic")
    error = float(np.sqrt(((influence_b / value_b - influence_a / value_a) ** 2).sum()))
    log_lift, margin = float(np.log(value_b / value_a)), _z(level) * error
    p_value = float(2 * special.ndtr(-abs(log_lift) / error)) if error > 0 else float(log_lift == 0)
    return Lift(
        float(np.expm1(log_lift)), float(np.expm1(log_lift - margin)), float(np.expm1(log_lift + margin)),
        error, p_value,
    )  # fmt: skip


def srm_fixed(num_units_V: Sequence[int], weights_V: Sequence[float]) -> float:
    """P-value of the units' counts under a fixed split: Pearson's chi-square with V - 1 degrees of freedom.

    By hand: 60 and 40 of 100 at 1/2 each: 10^2/50 + 10^2/50 = 4, and P(chi-square_1 > 4) = P(|z| > 2) =
    0.0455.

    >>> round(srm_fixed([60, 40], [0.5, 0.5]), 4)
    0.0455

    Raises:
        ExperimentError: No units.
    """
    counts = np.asarray(num_units_V, float)
    if counts.sum() == 0:
        raise ExperimentError("no unit was assigned yet", mend="wait for traffic")
    expected = counts.sum() * np.asarray(weights_V)
    return _chi_square_p(float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1)


def srm_bandit(variant_E: Int64, propensity_EV: Float64) -> float:
    """P-value of a bandit's draws under their own propensities, one row per draw (unit and epoch).

    S = sum of (one-hot of the variant - propensities) is a martingale, whatever the propensities learned
    from; its variance is the sum of diag(p) - p p'. S' variance^-1 S over V - 1 variants is chi-square with
    V - 1 degrees.

    By hand: four draws at 1/2, all the first variant: S = 2, variance 4/4 = 1, chi-square 4.

    >>> round(srm_bandit(np.zeros(4, int), np.full((4, 2), 0.5)), 4)
    0.0455

    Raises:
        ExperimentError: No draws.
    """
    if len(variant_E) == 0:
        raise ExperimentError("no unit was assigned yet", mend="wait for traffic")
    num_variants = propensity_EV.shape[1]
    excess_V = (np.eye(num_variants)[variant_E] - propensity_EV).sum(axis=0)[:-1]
    variance_VV = np.diag(propensity_EV.sum(axis=0)) - propensity_EV.T @ propensity_EV
    statistic = excess_V @ np.linalg.solve(variance_VV[:-1, :-1], excess_V)
    return _chi_square_p(float(statistic), num_variants - 1)


def _influence(totals: UnitTotals, variant: int) -> tuple[float, Float64]:
    """The ratio, and each unit's influence on it (0 where it never met the variant), corrected for n."""
    numerator_U, denominator_U = totals.numerator_UV[:, variant], totals.denominator_UV[:, variant]
    num_units, total = int((denominator_U > 0).sum()), denominator_U.sum()
    if num_units < 2:
        raise ExperimentError(
            "units that met a variant", value=num_units, limit="at least 2", mend="wait for traffic"
        )
    value = float(numerator_U.sum() / total)
    return value, (numerator_U - value * denominator_U) / total * np.sqrt(num_units / (num_units - 1))


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ExperimentError("level of an interval", value=level, limit="between 0 and 1")
    return float(special.ndtri((1 + level) / 2))


def _chi_square_p(statistic: float, degrees: int) -> float:
    return float(special.gammaincc(degrees / 2, statistic / 2))
