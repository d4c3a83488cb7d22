"""Intervals of off-policy estimates, by whole clusters: a user's rows resemble each other.

Bootstrap-t [Efron & Tibshirani 1993, Ch. 12.5]: clusters are drawn with replacement, and each draw's estimate is measured in
its own standard errors. Weighted rewards are skewed; an interval of percentiles is then too short on one side. Where very many
clusters differ from each other, the skewness is taken out by Hall's transformation instead [Hall 1992], which is as accurate.

Shape letters: R rows, J ratios, C clusters, D distinct clusters, B draws.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.terms import Terms, ratios
from tastemaker.types import Float64, Int64

NUM_DRAWS: Final = 1000
MOST_DISTINCT: Final = 1000
"""Clusters that differ in what they add to the estimate; with more of them nothing is drawn."""
_CELLS: Final = 4_000_000
_CROWDED: Final = 4
_TINY: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, where it lies at the asked level, and its standard error between clusters."""

    value: float
    low: float
    high: float
    standard_error: float


def interval(
    terms: Terms, cluster_R: Int64, level: float = 0.95, seed: int = 0, num_draws: int = NUM_DRAWS
) -> Interval:
    """The estimate with its interval.

    The error of every estimate here comes from the influence of each cluster on it [Deng, Knoblich & Lu 2018, delta method].
    Where no draw has an error, all clusters are the same, and so are the ends.

    Args:
        terms: Of the estimate.
        cluster_R: The cluster of each row, numbered from 0, such as its user.
        level: Share of intervals that hold the truth.
        seed: Of the draws.
        num_draws: Draws of the bootstrap.

    Raises:
        ExperimentError: Fewer than two clusters, or a level that is none.
    """
    if not 0 < level < 1:
        raise ExperimentError("level of an interval", value=level, limit="between 0 and 1")
    of_cluster = terms.by_cluster(cluster_R)
    num = len(of_cluster.numerator_RJ)
    if num < 2:
        raise ExperimentError("users with answers", value=num, limit="at least 2", mend="wait for traffic")
    value, error = of_cluster.value, standard_error(of_cluster)
    distinct, times_D = _distinct(of_cluster)
    tails = ((1 - level) / 2, (1 + level) / 2)
    if len(times_D) > MOST_DISTINCT:
        lower, upper = _hall(_influence(of_cluster), tails)
    else:
        lower, upper = np.quantile(_studentised(distinct, times_D, value, seed, num_draws), tails).tolist()
    return Interval(value, value - upper * error, value - lower * error, error)


def standard_error(of_cluster: Terms) -> float:
    """Of an estimate whose rows are independent.

    By hand: values 1 and 3 have mean 2 and influences -1/2 and 1/2; with n / (n - 1) = 2 their sum of squares is 1.

    >>> standard_error(Terms.mean(np.array([1.0, 3.0])))
    1.0
    """
    influence_C = _influence(of_cluster)
    num = len(influence_C)
    return float(np.sqrt((influence_C**2).sum() * num / (num - 1)))


def _influence(of_cluster: Terms) -> Float64:
    """What each cluster adds to the estimate beyond its part, (C,); they add up to 0."""
    total_J = of_cluster.denominator_RJ.sum(axis=0)
    ratio_J = ratios(of_cluster.numerator_RJ.sum(axis=0), total_J)
    left_CJ = of_cluster.numerator_RJ - of_cluster.denominator_RJ * ratio_J
    influence_C: Float64 = ratios(left_CJ, np.broadcast_to(total_J, left_CJ.shape)).sum(axis=1)
    return influence_C


def _distinct(of_cluster: Terms) -> tuple[Terms, Int64]:
    """The clusters that differ, and how many there are of each: most add the same, nothing, to a weighted sum of clicks."""
    both = np.hstack([of_cluster.numerator_RJ, of_cluster.denominator_RJ])
    order_C = np.lexsort(both.T)
    differs_C = (np.diff(both[order_C], axis=0) != 0).any(axis=1)
    first_D = np.concatenate([[0], np.flatnonzero(differs_C) + 1])
    rows_D = order_C[first_D]
    times_D = np.diff(np.append(first_D, len(both)))
    return Terms(of_cluster.numerator_RJ[rows_D], of_cluster.denominator_RJ[rows_D]), times_D.astype(np.int64)


def _hall(influence_C: Float64, tails: tuple[float, float]) -> list[float]:
    """Quantiles of the studentised estimate, by the cubic transformation that makes it normal [Hall 1992, third-order transformation].

    With skewness g of n clusters: n^(1/2) (3 / g) ((1 + g (z n^(-1/2) - g / (6 n)))^(1/3) - 1); z itself where g is 0.
    """
    num, deviation = len(influence_C), float(influence_C.std())
    skewness = float((influence_C**3).mean()) / deviation**3 if deviation else 0.0
    z = special.ndtri(np.array(tails))
    if abs(skewness) < _TINY:
        return [float(one) for one in z]
    inner = 1 + skewness * (z / np.sqrt(num) - skewness / (6 * num))
    return [float(one) for one in np.sqrt(num) * (3 / skewness) * (np.cbrt(inner) - 1)]


def _studentised(distinct: Terms, times_D: Int64, value: float, seed: int, num_draws: int) -> Float64:
    """How many of its own standard errors each draw's estimate lies above `value` (B,); those without error are left out."""
    luck = np.random.default_rng([seed, 0])
    num = int(times_D.sum())
    at_once = max(1, min(num_draws, _CELLS // len(times_D)))
    found = []
    for start in range(0, num_draws, at_once):
        drawn_BD = _counts(luck, min(at_once, num_draws - start), times_D)
        numerator_BJ = drawn_BD @ distinct.numerator_RJ
        total_BJ = drawn_BD @ distinct.denominator_RJ
        ratio_BJ = ratios(numerator_BJ, total_BJ)
        inverse_BJ = ratios(np.ones_like(total_BJ), total_BJ)
        influence_BD = inverse_BJ @ distinct.numerator_RJ.T
        influence_BD -= (ratio_BJ * inverse_BJ) @ distinct.denominator_RJ.T
        error_B = np.sqrt(np.einsum("bd,bd,bd->b", drawn_BD, influence_BD, influence_BD) * num / (num - 1))
        known_B = error_B > 0
        found.append((ratio_BJ.sum(axis=1)[known_B] - value) / error_B[known_B])
    every = np.concatenate(found)
    return every if len(every) else np.zeros(1)


def _counts(luck: np.random.Generator, num_draws: int, times_D: Int64) -> Float64:
    """How often each draw of as many clusters as there are has each distinct one, (B, D)."""
    num, num_distinct = int(times_D.sum()), len(times_D)
    if num > _CROWDED * num_distinct:
        return luck.multinomial(num, times_D / num, num_draws).astype(np.float64)
    kind_C = np.repeat(np.arange(num_distinct), times_D)
    place = kind_C[luck.integers(num, size=(num_draws, num), dtype=np.int32)]
    place += np.arange(num_draws)[:, None] * num_distinct
    counts = np.bincount(place.ravel(), minlength=num_draws * num_distinct)
    return counts.reshape(num_draws, num_distinct).astype(np.float64)
