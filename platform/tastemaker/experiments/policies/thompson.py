"""Thompson sampling with exact propensities: an arm's weight is the probability that it is the best [Thompson 1933]."""

from functools import lru_cache

from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.quadrature import largest_of_betas, largest_of_students


@lru_cache(maxsize=256)
def beta_weights(arms: tuple[Arm, ...], prior: tuple[float, float]) -> tuple[float, ...]:
    """P(the arm's success probability is the highest), each Beta(prior + successes, prior + failures).

    Args:
        arms: Of rewards 0 and 1.
        prior: Pseudo-counts of success and failure.

    >>> [round(w * 6, 6) for w in beta_weights((Arm.of([1.0]), Arm.of([0.0])), (1.0, 1.0))]  # Beta(2, 1), Beta(1, 2)
    [5.0, 1.0]
    """
    alpha = [prior[0] + arm.total for arm in arms]
    beta = [prior[1] + max(0.0, arm.count - arm.total) for arm in arms]
    return tuple(float(weight) for weight in largest_of_betas(alpha, beta))


def normal_inverse_gamma(
    arm: Arm, prior: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """The posterior (mean, observations, shape, scale) of rewards of unknown mean and variance [Murphy 2007, eq. 86-89].

    With prior (m, k, a, b) and n rewards of mean x and squared deviations S: k' = k + n, m' = (k m + n x) / k', a' = a + n / 2,
    b' = b + S / 2 + k n (x - m)^2 / (2 k').

    By hand: prior (0, 1, 1, 1) and rewards 1 and 3: x = 2, S = 2, so k' = 3, m' = 4/3, a' = 2, b' = 1 + 1 + 1 * 2 * 4 / 6 = 10/3.

    >>> [round(value, 4) for value in normal_inverse_gamma(Arm.of([1.0, 3.0]), (0.0, 1.0, 1.0, 1.0))]
    [1.3333, 3.0, 2.0, 3.3333]
    """
    mean, observations, shape, scale = prior
    n = arm.count
    total = observations + n
    return (
        (observations * mean + arm.total) / total,
        total,
        shape + n / 2,
        scale + arm.deviations / 2 + observations * n * (arm.mean - mean) ** 2 / (2 * total),
    )


@lru_cache(maxsize=256)
def normal_weights(arms: tuple[Arm, ...], prior: tuple[float, float, float, float]) -> tuple[float, ...]:
    """P(the arm's mean is the highest) for rewards of any size, each of unknown mean and variance.

    The marginal posterior of a mean is Student's t of 2a' degrees of freedom around m' with scale sqrt(b' / (a' k'))
    [Murphy 2007, section 3.3].

    Args:
        arms: Of any rewards.
        prior: Mean, observations, shape and scale of the Normal-Inverse-Gamma.
    """
    posterior = [normal_inverse_gamma(arm, prior) for arm in arms]
    weights = largest_of_students(
        [2 * shape for _, _, shape, _ in posterior],
        [mean for mean, _, _, _ in posterior],
        [(scale / (shape * count)) ** 0.5 for _, count, shape, scale in posterior],
    )
    return tuple(float(weight) for weight in weights)
