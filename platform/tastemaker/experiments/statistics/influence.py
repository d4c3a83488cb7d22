"""Values of variants with each unit's influence on them: what every interval and test here is made from.

Shape letters: U units, V variants.

An estimator of many independent units behaves like a mean: its error is, up to terms that vanish, a sum of one term a unit,
that unit's influence [Hampel 1974]. The sum of their squares is the variance, products of two estimators' influences add up
to their covariance, and a unit that came often is one unit. Ratios, CUPED and weighted estimates differ in their influences
alone.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.types import Float64, Int64

_NEARLY_EQUAL = 1e-6
"""Log of a ratio below which geometric and logarithmic mean agree to 1e-13, and rounding would tell them apart."""


@dataclass(frozen=True, slots=True)
class Influence:
    """Values by variant, NaN where there is none yet, and what each unit adds to their errors.

    `influence_UV` is 0 where a unit has no part in a variant; its squares add up over units to the values' variances.
    """

    value_V: Float64
    influence_UV: Float64
    units_V: Int64


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval, and the standard error that the interval was made from."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A value less the control's, in the metric's own unit; `p_value` is two-sided, of no difference."""

    value: float
    low: float
    high: float
    standard_error: float
    p_value: float


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


def estimate(influence: Influence, variant: int, level: float = 0.95) -> Estimate:
    """A variant's value with a normal interval.

    Raises:
        ExperimentError: Fewer than two units met the variant.
    """
    value = _value(influence, variant)
    error = float(np.linalg.norm(influence.influence_UV[:, variant]))
    margin = critical_value(level) * error
    return Estimate(value, value - margin, value + margin, error)


def difference(influence: Influence, control: int, treatment: int, level: float = 0.95) -> Difference:
    """How far a variant lies above the control; for metrics that may be 0 or negative.

    By hand: units with 2 and 0 against 5 and 3, all influences 1: means 1 and 4, each of variance 1 + 1 = 2, so the standard
    error of the difference is 2 and z = 3/2.

    >>> ones = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    >>> found = difference(Influence(np.array([1.0, 4.0]), ones, np.array([2, 2])), 0, 1)
    >>> found.value, found.standard_error, round(found.p_value, 4)
    (3.0, 2.0, 0.1336)

    Raises:
        ExperimentError: Fewer than two units met a variant.
    """
    value, influence_U = difference_influence(influence, control, treatment)
    error = float(np.linalg.norm(influence_U))
    margin = critical_value(level) * error
    return Difference(value, value - margin, value + margin, error, two_sided(value, error))


def lift(influence: Influence, control: int, treatment: int, level: float = 0.95) -> Lift:
    """How much larger a variant's value is than the control's, as a share of the control's.

    Raises:
        ExperimentError: Fewer than two units met a variant, or its value is not above 0: the log is not defined.
    """
    value, error, _ = log_lift(influence, control, treatment)
    return lift_of(value, critical_value(level) * error, error, two_sided(value, error))


def log_lift(influence: Influence, control: int, treatment: int) -> tuple[float, float, Float64]:
    """The log of the ratio of two variants' values, its standard error, and the units' influences on it (U,).

    By the delta method Var(log(r_B / r_A)) is the sum over units of (I_B / r_B - I_A / r_A)^2, with I a unit's influence on r.
    A unit that met both variants (a bandit's, in different epochs) thereby adds its covariance. Of values with heavy tails
    (revenue) that is too sure of itself: a variant that has met no large value yet seems low and exact, and of A/A experiments
    with 40 buyers a seventh was called different. A difference is not, for its error has the other variant's too. So the error is the delta
    method's, or the difference's over the logarithmic mean of the values, (r_B - r_A) / log(r_B / r_A), whichever is larger:
    no difference is called one that is none on the metric's own scale, and for small lifts the two are one. Influences are the latter's.

    Raises:
        ExperimentError: As for `lift`.
    """
    apart, apart_U = difference_influence(influence, control, treatment)
    value_a, value_b = float(influence.value_V[control]), float(influence.value_V[treatment])
    if value_a <= 0 or value_b <= 0:
        raise ExperimentError(
            "a variant's value", value=min(value_a, value_b), limit="above 0", mend="wait for more traffic"
        )
    value = float(np.log(value_b / value_a))
    delta_U = influence.influence_UV[:, treatment] / value_b - influence.influence_UV[:, control] / value_a
    mean = apart / value if abs(value) > _NEARLY_EQUAL else float(np.sqrt(value_a * value_b))
    influence_U = apart_U / mean
    return value, max(float(np.linalg.norm(delta_U)), float(np.linalg.norm(influence_U))), influence_U


def difference_influence(influence: Influence, control: int, treatment: int) -> tuple[float, Float64]:
    """The difference of two variants' values, and each unit's influence on it (U,).

    Raises:
        ExperimentError: Fewer than two units met a variant.
    """
    value = _value(influence, treatment) - _value(influence, control)
    return value, influence.influence_UV[:, treatment] - influence.influence_UV[:, control]


def lift_of(log_lift: float, margin: float, error: float, p_value: float) -> Lift:
    """The lift whose logarithm is `log_lift`, give or take `margin`."""
    with np.errstate(over="ignore"):
        low, high = np.expm1(log_lift - margin), np.expm1(log_lift + margin)
    return Lift(float(np.expm1(log_lift)), float(low), float(high), error, p_value)


def critical_value(level: float) -> float:
    """How many standard errors a normal interval reaches to each side.

    >>> round(critical_value(0.95), 4)
    1.96

    Raises:
        ExperimentError: A level outside 0 to 1.
    """
    if not 0 < level < 1:
        raise ExperimentError("level of an interval", value=level, limit="between 0 and 1")
    return float(special.ndtri((1 + level) / 2))


def two_sided(value: float, error: float) -> float:
    """P-value of a normal value that should be 0; without any error, 1 where it is 0 and else 0."""
    return float(2 * special.ndtr(-abs(value) / error)) if error > 0 else float(value == 0)


def _value(influence: Influence, variant: int) -> float:
    value = float(influence.value_V[variant])
    if np.isnan(value):
        raise ExperimentError(
            "units that met a variant",
            value=int(influence.units_V[variant]),
            limit="at least 2",
            mend="wait for traffic",
        )
    return value
