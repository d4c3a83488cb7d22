"""Arms by their mean, with ties shared evenly: epsilon-greedy."""

from collections.abc import Sequence

from tastemaker.experiments.policies.arms import Arm


def shared_by_best(values: Sequence[float]) -> tuple[float, ...]:
    """1 spread evenly over the largest values.

    >>> shared_by_best([0.2, 0.7, 0.7, 0.1])
    (0.0, 0.5, 0.5, 0.0)
    """
    best = max(values)
    ties = sum(value == best for value in values)
    return tuple(1 / ties if value == best else 0.0 for value in values)


def epsilon_greedy_weights(arms: Sequence[Arm], epsilon: float) -> tuple[float, ...]:
    """`epsilon / n + (1 - epsilon)` for the best mean, `epsilon / n` for the others [Sutton & Barto 2018, section 2.2].

    Arms without a reward yet count as best, so that each is tried.

    >>> epsilon_greedy_weights([Arm.of([1.0, 0.0]), Arm.of([0.0])], 0.5)
    (0.75, 0.25)
    >>> epsilon_greedy_weights([Arm.of([1.0, 1.0]), Arm(), Arm()], 0.0)
    (0.0, 0.5, 0.5)
    """
    means = [arm.mean if arm.count > 0 else float("inf") for arm in arms]
    return tuple(epsilon / len(arms) + (1 - epsilon) * share for share in shared_by_best(means))
