"""The users of each step of a pass over them."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from tastemaker.types import Int64

LEAST_STEPS: Final = 8


def batches(user_U: Int64, size: int, draws: np.random.Generator) -> Iterator[Int64]:
    """All users in batches, in an order by chance; where that is fewer than `LEAST_STEPS` steps, several times over.

    >>> [len(list(batches(np.arange(num), 4, np.random.default_rng(0)))) for num in (1, 9, 40)]
    [8, 9, 10]
    """
    num_steps = -(-len(user_U) // size)
    for _ in range(-(-LEAST_STEPS // max(num_steps, 1))):
        order_U = draws.permutation(user_U)
        for at in range(0, len(order_U), size):
            yield order_U[at : at + size]
