"""Which systems differ from a baseline beyond luck: paired bootstrap over users, corrected for how many questions are asked.

Shape letters: U users, R bootstrap rounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tastemaker.evaluation.offline import paired_bootstrap
from tastemaker.experiments.statistics.multiplicity import benjamini_hochberg, holm
from tastemaker.types import Float64

Correction = Literal["holm", "benjamini-hochberg"]
_ROUNDS = 4000
_ROUNDS_AT_ONCE = 100
_DRAWS_AT_ONCE = 2**21


@dataclass(frozen=True, slots=True)
class Difference:
    """Of a system's mean from the baseline's, with its 95% interval, p-value as it is and corrected for all that are asked."""

    system: str
    metric: str
    mean: float
    low: float
    high: float
    p_value: float
    corrected: float


def differences(
    per_user: Mapping[str, Mapping[str, Float64]],
    baseline: str,
    metrics: Sequence[str],
    correction: Correction = "holm",
    seed: int = 0,
) -> list[Difference]:
    """Every other system's differences from the baseline, metric by metric.

    Args:
        per_user: By system and metric the values of the same users in the same order; NaN where a user has none. Where nobody
            has both a system's and the baseline's value there is no difference.
        baseline: What is compared with.
        metrics: Which.
        correction: Holm: no false difference at all; Benjamini-Hochberg: few among those that are called one.
        seed: Of the draws.
    """
    found = []
    for system, values in per_user.items():
        for metric in metrics:
            if system == baseline or metric not in values or metric not in per_user[baseline]:
                continue
            a_U, b_U = values[metric], per_user[baseline][metric]
            both_U = ~np.isnan(a_U) & ~np.isnan(b_U)
            if not both_U.any():
                continue
            mean, low, high = paired_bootstrap(a_U[both_U], b_U[both_U], seed)
            p_value = bootstrap_p_value(a_U[both_U] - b_U[both_U], seed)
            found.append((system, metric, mean, low, high, p_value))
    adjust = holm if correction == "holm" else benjamini_hochberg
    corrected: list[float] = adjust([p_value for *_, p_value in found]).tolist() if found else []
    return [Difference(*row, p) for row, p in zip(found, corrected, strict=True)]


def bootstrap_p_value(difference_U: Float64, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference of 0: how often the mean of users drawn anew, moved to 0, is as far off as the one found.

    [Davison & Hinkley 1997, Eq. 4.11]: (1 + times) / (1 + rounds), so never below 1 / 4001.

    >>> bootstrap_p_value(np.zeros(8))
    1.0
    """
    num, observed = len(difference_U), abs(float(difference_U.mean()))
    draws, share, times = np.random.default_rng(seed), np.full(num, 1 / num), 0
    centred_U = difference_U - difference_U.mean()
    at_once = max(1, min(_ROUNDS_AT_ONCE, _DRAWS_AT_ONCE // num))
    for begin in range(0, _ROUNDS, at_once):
        mean_R = draws.multinomial(num, share, size=min(at_once, _ROUNDS - begin)) @ centred_U / num
        times += int((np.abs(mean_R) >= observed).sum())
    return (1 + times) / (1 + _ROUNDS)
