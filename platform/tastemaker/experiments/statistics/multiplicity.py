"""Many questions of one experiment: p-values and intervals that stay honest over all variants and metrics together."""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import (
    Influence,
    Lift,
    critical_value,
    lift_of,
    log_lift,
)
from tastemaker.types import Float64, Int64

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(100)


def holm(p_values: Sequence[float] | Float64) -> Float64:
    """P-values to hold against one level: the chance of any false discovery stays below it [Holm 1979].

    The k-th smallest of m times m - k + 1, not smaller than those before it, at most 1; in the order given. Whatever
    the p-values depend on.

    >>> holm([0.04, 0.01, 0.02]).tolist()  # .01 x 3, .02 x 2, .04 x 1
    [0.04, 0.03, 0.04]

    Raises:
        ExperimentError: A p-value outside 0 to 1.
    """
    p, order = _ordered(p_values)
    adjusted = np.maximum.accumulate(np.minimum(p[order] * np.arange(len(p), 0, -1), 1.0))
    return _in_the_order_given(adjusted, order)


def benjamini_hochberg(p_values: Sequence[float] | Float64) -> Float64:
    """P-values to hold against one level: that share of discoveries, at most, is false [Benjamini & Hochberg 1995].

    The k-th smallest of m times m / k, not larger than those after it. For p-values that are independent or rise together;
    for screens of many metrics, where one false discovery among twenty does no harm.

    >>> benjamini_hochberg([0.04, 0.01, 0.03]).tolist()  # .01 x 3, min(.03 x 3/2, .04), .04
    [0.04, 0.03, 0.04]

    Raises:
        ExperimentError: A p-value outside 0 to 1.
    """
    p, order = _ordered(p_values)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _in_the_order_given(np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0), order)


def simultaneous_level(num_comparisons: int, level: float = 0.95) -> float:
    """The level of each interval so that all of them hold at once with `level`, whatever they depend on [Bonferroni].

    >>> round(simultaneous_level(5, 0.95), 10)
    0.99
    """
    return 1 - (1 - level) / max(num_comparisons, 1)


def simultaneous_lifts(influence: Influence, control: int, level: float = 0.95) -> dict[int, Lift]:
    """Lifts of all other variants over the control, whose intervals hold all at once; p-values are adjusted alike.

    Under a fixed split the lifts share the control's error and nothing else: Dunnett's distribution, here for unequal errors.
    Where units met several variants it is Sidak's bound, which holds for any dependence of normal values [Sidak 1967].

    Raises:
        ExperimentError: As for `lift`.
    """
    others = [v for v in range(len(influence.value_V)) if v != control]
    effects = [log_lift(influence, control, v) for v in others]
    error_C = np.array([error for _, error, _ in effects])
    shared = float(np.linalg.norm(influence.influence_UV[:, control])) / influence.value_V[control]
    overlap = ((influence.influence_UV != 0).sum(axis=1) > 1).any()
    loading_C = (
        np.zeros(len(others)) if overlap else np.divide(shared, error_C, where=error_C > 0, out=0 * error_C)
    )
    reach = _reach(loading_C, level)
    lifts = {}
    for place, v in enumerate(others):
        value, error = effects[place][0], float(error_C[place])
        p_value = 1 - _all_within(abs(value) / error, loading_C) if error > 0 else float(value == 0)
        lifts[v] = lift_of(value, reach * error, error, max(p_value, 0.0))
    return lifts


def dunnett_reach(num_comparisons: int, level: float = 0.95, correlation: float = 0.5) -> float:
    """Standard errors to each side of so many comparisons with one control, for many units [Dunnett 1955].

    >>> [round(dunnett_reach(n), 3) for n in (1, 2, 5)]  # Dunnett's table for endless degrees of freedom: 1.96, 2.21, 2.51
    [1.96, 2.212, 2.511]
    """
    return _reach(np.full(num_comparisons, np.sqrt(correlation)), level)


def _reach(loading_C: Float64, level: float) -> float:
    least, most = critical_value(level), critical_value(simultaneous_level(len(loading_C), level)) + 1e-9
    if len(loading_C) == 1:
        return least
    return float(optimize.brentq(lambda reach: _all_within(reach, loading_C) - level, least, most))


def _all_within(reach: float, loading_C: Float64) -> float:
    """P(|X_c| <= reach for all c) with X_c = loading_c Z + sqrt(1 - loading_c^2) Z_c, by quadrature over Z."""
    own_C = np.sqrt(np.maximum(1 - loading_C**2, 1e-12))
    shift_ZC = _NODES[:, None] * loading_C
    inside_ZC = special.ndtr((reach - shift_ZC) / own_C) - special.ndtr((-reach - shift_ZC) / own_C)
    return float(_WEIGHTS @ inside_ZC.prod(axis=1) / _WEIGHTS.sum())


def _ordered(p_values: Sequence[float] | Float64) -> tuple[Float64, Int64]:
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ExperimentError("p-values", value=p.tolist(), limit="from 0 to 1")
    return p, np.argsort(p, kind="stable")


def _in_the_order_given(adjusted: Float64, order: Int64) -> Float64:
    found = np.empty_like(adjusted)
    found[order] = adjusted
    return found
