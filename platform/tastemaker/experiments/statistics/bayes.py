"""Which variant is probably the best, and what choosing another would cost, from posterior distributions.

Shape letters: V variants.

These are no tests: P(best) = 95% is reached by luck more often than once in twenty looks of an A/A experiment. They weigh a choice
that has to be made now; always-valid intervals say whether there is a difference.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.policies.quadrature import largest_of_betas, largest_of_normals
from tastemaker.experiments.statistics.influence import Influence
from tastemaker.types import Float64

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_REACH = np.array([-10.0, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 10])
_TAILS = np.array([1e-14, 1e-9, 1e-5, 1e-3, 0.02, 0.15, 0.5])


@dataclass(frozen=True, slots=True)
class Best:
    """By variant: P(it is the best), adding up to 1, and the expected loss of choosing it.

    The loss is E(largest value - its value), in the metric's own unit, 0 or more.
    """

    probability_V: Float64
    expected_loss_V: Float64


def best_of(influence: Influence) -> Best:
    """From a flat prior and the normal errors of values between units: right for any metric of many units.

    The largest value is the best: turn values and influences round for metrics that should be small. Two variants may share units (a bandit's); more than two are taken as independent, as under a fixed split.

    Raises:
        ExperimentError: A variant has no value yet.
    """
    if np.isnan(influence.value_V).any():
        raise ExperimentError("a variant has no value yet", mend="wait for traffic")
    value_V, influence_UV = influence.value_V, influence.influence_UV
    if len(value_V) == 2:
        return _better_of_two(value_V, float(np.linalg.norm(influence_UV[:, 1] - influence_UV[:, 0])))
    return best_of_means(value_V, np.linalg.norm(influence_UV, axis=0))


def best_of_means(value_V: Float64, standard_error_V: Float64) -> Best:
    """From independent normal posteriors.

    By hand: values 0 and 1 with errors whose squares add up to 1: the difference is N(1, 1), so P(second is best) is
    Phi(1) = .8413, and the second's loss is E(max(-N, 0)) = phi(1) - (1 - Phi(1)) = .2420 - .1587 = .0833.

    >>> found = best_of_means(np.array([0.0, 1.0]), np.sqrt([0.5, 0.5]))
    >>> found.probability_V.round(4).tolist(), found.expected_loss_V.round(4).tolist()
    ([0.1587, 0.8413], [1.0833, 0.0833])
    """
    error_V = np.maximum(standard_error_V, 1e-12 * np.maximum(np.abs(value_V).max(), 1e-300))
    if len(value_V) == 2:
        return _better_of_two(value_V, float(np.hypot(*error_V)))
    borders = np.unique(value_V[:, None] + error_V[:, None] * _REACH)
    largest = _expected_largest(borders, lambda x: special.ndtr((x - value_V[:, None]) / error_V[:, None]))
    return Best(
        largest_of_normals(value_V.tolist(), error_V.tolist()), np.maximum(largest - value_V, 0.0)
    )  # fmt: skip


def best_of_proportions(
    successes_V: Sequence[float], trials_V: Sequence[float], prior: tuple[float, float] = (1.0, 1.0)
) -> Best:
    """From Beta posteriors of units that count once each; where units return, `best_of` is right.

    By hand: one of one against none of one, prior Beta(1, 1): X ~ Beta(2, 1), Y ~ Beta(1, 2). P(X > Y) = 5/6; P(max < t) is
    t^2 (2t - t^2), so E(max) = 1 - 2/4 + 1/5 = .7, less the means 2/3 and 1/3.

    >>> found = best_of_proportions([1, 0], [1, 1])
    >>> (found.probability_V * 6).round(9).tolist(), (found.expected_loss_V * 30).round(6).tolist()
    ([5.0, 1.0], [1.0, 11.0])

    Raises:
        ExperimentError: More successes than trials, or a negative number.
    """
    successes, trials = np.asarray(successes_V, float), np.asarray(trials_V, float)
    if (successes < 0).any() or (successes > trials).any():
        raise ExperimentError("successes", value=successes.tolist(), limit=f"from 0 to {trials.tolist()}")
    a, b = prior[0] + successes, prior[1] + trials - successes
    share = np.concatenate([_TAILS, 1 - _TAILS])
    borders = np.unique(np.r_[0.0, special.betaincinv(a[:, None], b[:, None], share).ravel(), 1.0])
    largest = _expected_largest(borders, lambda x: special.betainc(a[:, None], b[:, None], x))
    return Best(largest_of_betas(a.tolist(), b.tolist()), np.maximum(largest - a / (a + b), 0.0))


def _better_of_two(value_V: Float64, error: float) -> Best:
    ahead = float(value_V[1] - value_V[0])
    if error == 0:
        second = 0.5 if ahead == 0 else float(ahead > 0)
        return Best(np.array([1 - second, second]), np.array([max(ahead, 0.0), max(-ahead, 0.0)]))
    z = ahead / error
    density = float(np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))
    gain = error * (density + z * float(special.ndtr(z)))
    return Best(np.array([special.ndtr(-z), special.ndtr(z)]), np.array([gain, max(gain - ahead, 0.0)]))


def _expected_largest(borders: Float64, distribution: Callable[[Float64], Float64]) -> float:
    """E(largest) of independent numbers: the first border, below all of them, plus the integral of 1 - product of F."""
    width = np.diff(borders)[:, None]
    points = (borders[:-1, None] + width * (_NODES + 1) / 2).ravel()
    above = 1 - distribution(points).prod(axis=0)
    return float(borders[0] + (width / 2 * _WEIGHTS).ravel() @ above)
