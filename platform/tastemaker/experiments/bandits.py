"""Thompson sampling with exact propensities: P(best) by numeric integration, not by simulation.

A variant's posterior of its success probability is Beta(prior + successes, prior + failures). It is drawn
with probability p = f + (1 - n f) w, with f the floor, n the number of variants and w = P(it is the best).
[Thompson 1933]; mixing with a floor keeps every propensity at f or more, as off-policy estimates need.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from tastemaker.types import Float64

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_EDGES = np.array([1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 12.0, 20.0])
_SEGMENT_EDGES = np.concatenate([-_EDGES[::-1], [0.0], _EDGES])


def probability_best(alpha: Sequence[float], beta: Sequence[float]) -> Float64:
    """P(X_i is the largest) for independent X_i ~ Beta(alpha_i, beta_i), one per variant, adding up to 1.

    w_i = integral of f_i(x) times the product over j != i of F_j(x), with f the density and F the
    distribution function. In t = log(x / (1 - x)) every f_i is smooth and log-concave, with mean digamma(a)
    - digamma(b) and variance trigamma(a) + trigamma(b): the integral is taken by 20 Gauss-Legendre nodes
    between each two of the points that lie 0 to 20 standard deviations from any variant's mean. The error
    stays below 1e-9 for parameters from 0.5 to 1e6.

    By hand: X ~ Beta(2, 1) has density 2x and Y ~ Beta(1, 2) has P(Y < x) = 2x - x^2, so P(X > Y) is the
    integral of 2x (2x - x^2) = 4/3 - 1/2 = 5/6.

    >>> probability_best([2, 1], [1, 2]).round(10) * 6
    array([5., 1.])
    """
    a, b = np.asarray(alpha, float)[:, None], np.asarray(beta, float)[:, None]
    mean = special.digamma(a) - special.digamma(b)
    deviation = np.sqrt(special.polygamma(1, a) + special.polygamma(1, b))
    edges = np.unique(mean + deviation * _SEGMENT_EDGES)
    width = np.diff(edges)[:, None]
    t = (edges[:-1, None] + width * (_NODES + 1) / 2).ravel()
    weight = (width / 2 * _WEIGHTS).ravel()
    log_density = a * -np.logaddexp(0, -t) + b * -np.logaddexp(0, t) - special.betaln(a, b)
    mass = np.exp(log_density) * weight
    below = _distribution(a, b, t)
    best = np.array([(mass[i] * np.delete(below, i, axis=0).prod(axis=0)).sum() for i in range(len(a))])
    return np.asarray(best / best.sum())


def _distribution(a: Float64, b: Float64, t: Float64) -> Float64:
    """P(X <= x) at x = 1 / (1 + exp(-t)), exact in both tails."""
    lower, upper = special.betainc(a, b, special.expit(t)), special.betainc(b, a, special.expit(-t))
    return np.asarray(np.where(t > 0, 1 - upper, lower))


@lru_cache(maxsize=256)
def thompson_probabilities(
    successes: tuple[float, ...], failures: tuple[float, ...], floor: float, prior: tuple[float, float]
) -> tuple[float, ...]:
    """Probability with which each variant is drawn, in order; at least `floor` each, adding up to 1.

    >>> thompson_probabilities((0, 0), (0, 0), 0.05, (1.0, 1.0))
    (0.5, 0.5)
    >>> p = thompson_probabilities((1, 0), (0, 1), 0.1, (1.0, 1.0))  # w = 5/6, 1/6: p = .1 + .8 w
    >>> [round(x, 6) for x in p]
    [0.766667, 0.233333]
    """
    best = probability_best([prior[0] + s for s in successes], [prior[1] + f for f in failures])
    shares = floor + (1 - len(successes) * floor) * best
    return tuple(float(round(share, 12)) for share in shares / shares.sum())
