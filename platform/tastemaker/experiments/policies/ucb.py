"""UCB1: the arm whose mean could be highest."""

import math
from collections.abc import Sequence

from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.greedy import shared_by_best


def ucb1_weights(
    arms: Sequence[Arm], exploration: float = 1.0, reward_range: float = 1.0
) -> tuple[float, ...]:
    """1 for the arm of the highest `mean + c r sqrt(2 ln N / n)`, 0 for the others; ties are shared.

    n is the arm's count, N that of all arms, c `exploration` and r `reward_range`, both 1 in [Auer, Cesa-Bianchi & Fischer
    2002, figure 1]. Arms without a reward come first. Discounted counts give discounted UCB [Garivier & Moulines 2008]; the
    logarithm is then of at least 1, as discounted counts may add up to less.

    By hand: counts 4 and 1, N = 5, sqrt(2 ln 5) = 1.794. With means 0.75 and 0 the bounds are 0.75 + 0.897 = 1.647 and 1.794.

    >>> ucb1_weights([Arm.of([1.0, 1.0, 1.0, 0.0]), Arm.of([0.0])])
    (0.0, 1.0)
    >>> ucb1_weights([Arm.of([1.0, 1.0, 1.0, 0.0]), Arm.of([0.0])], exploration=0.1)
    (1.0, 0.0)
    """
    if any(arm.count <= 0 for arm in arms):
        return shared_by_best([float(arm.count <= 0) for arm in arms])
    width = exploration * reward_range * math.sqrt(2 * math.log(max(1.0, sum(arm.count for arm in arms))))
    return shared_by_best([arm.mean + width / math.sqrt(arm.count) for arm in arms])
