"""Tests of two groups whose units count once each: did a visitor ever buy, how much did it spend. Others need `influence`."""

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import Difference, critical_value, two_sided


def two_proportions(
    successes: tuple[float, float], trials: tuple[float, float], level: float = 0.95
) -> Difference:
    """Second share less first: pooled z-test, and Newcombe's interval from the two Wilson intervals [Newcombe 1998, method 10].

    `standard_error` is the pooled one. The interval and the test may differ at the edge.

    By hand: 40 and 60 of 100: pooled 1/2, standard error sqrt(1/4 * 2/100) = .0707, z = 2.828.

    >>> found = two_proportions((40, 60), (100, 100))
    >>> round(found.standard_error, 4), round(found.p_value, 5)
    (0.0707, 0.00468)

    Raises:
        ExperimentError: No trials, or more successes than trials.
    """
    if min(trials) <= 0 or not all(0 <= s <= n for s, n in zip(successes, trials, strict=True)):
        raise ExperimentError(
            "successes", value=list(successes), limit=f"from 0 to {list(trials)}, of at least one trial each"
        )
    (low_a, high_a), (low_b, high_b) = (_wilson(s, n, level) for s, n in zip(successes, trials, strict=True))
    share_a, share_b = successes[0] / trials[0], successes[1] / trials[1]
    pooled = sum(successes) / sum(trials)
    error = float(np.sqrt(pooled * (1 - pooled) * (1 / trials[0] + 1 / trials[1])))
    value = share_b - share_a
    return Difference(
        value,
        max(-1.0, value - float(np.hypot(share_b - low_b, high_a - share_a))),
        min(1.0, value + float(np.hypot(high_b - share_b, share_a - low_a))),
        error,
        two_sided(value, error),
    )


def welch(
    mean: tuple[float, float], variance: tuple[float, float], count: tuple[int, int], level: float = 0.95
) -> Difference:
    """Second mean less first, for unequal variances [Welch 1947].

    Args:
        mean: Of each group.
        variance: Of each group's units, with n - 1.
        count: Units.
        level: Of the interval.

    By hand: variances 4 and 16 of 4 and 4 units: squared error 1 + 4 = 5, degrees 25 / (1/3 + 16/3) = 4.41.

    >>> found = welch((10.0, 15.0), (4.0, 16.0), (4, 4))
    >>> round(found.standard_error**2, 9), round(found.p_value, 4)
    (5.0, 0.0827)

    Raises:
        ExperimentError: Fewer than two units in a group.
    """
    if min(count) < 2:
        raise ExperimentError(
            "units in a group", value=min(count), limit="at least 2", mend="wait for traffic"
        )
    part_a, part_b = variance[0] / count[0], variance[1] / count[1]
    error = float(np.sqrt(part_a + part_b))
    value = mean[1] - mean[0]
    if error == 0:
        return Difference(value, value, value, 0.0, float(value == 0))
    degrees = (part_a + part_b) ** 2 / (part_a**2 / (count[0] - 1) + part_b**2 / (count[1] - 1))
    critical_value(level)  # refuses a level outside 0 to 1
    margin = error * float(special.stdtrit(degrees, (1 + level) / 2))
    p_value = float(2 * special.stdtr(degrees, -abs(value) / error))
    return Difference(value, value - margin, value + margin, error, p_value)


def _wilson(successes: float, trials: float, level: float) -> tuple[float, float]:
    z = critical_value(level)
    share, spread = successes / trials, z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    margin = z * float(np.sqrt(share * (1 - share) / trials + spread / trials / 4)) / (1 + spread)
    return centre - margin, centre + margin
