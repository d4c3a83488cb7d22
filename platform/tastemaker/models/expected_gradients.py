"""What each input of a network adds to its output, by gradients on the ways from the rows that a row competes with.

Shape letters: K rows that compete, X inputs, P points, N = K * P, B of the K at a time.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from tastemaker.models.contributions import TOLERANCE, Contributions, summed
from tastemaker.types import Float64

_POINTS: Final = (8, 32, 128)
"""On the way from each competitor; more where fewer leave too much unexplained."""
_ROWS: Final = 4096
"""Of one pass through a model."""


def expected_gradients(
    outputs: Callable[[Tensor], Tensor], input_KX: Tensor, names: list[str], at: int
) -> Contributions:
    """Integrated gradients [Sundararajan et al. 2017] of one row, the mean over all rows as where they begin [Erion et al. 2021].

    Beginning at row k, input i adds (x_i - k_i) times the mean of the output's derivative by it on the straight way from k to x, here
    at the middles of equal steps. What the inputs add up to is the output at x less that at k, and so, in the mean, less the mean output. An
    input in which all rows are alike adds nothing.

    Args:
        outputs: The model: outputs (N,) of inputs (N, X), each row's of its own inputs alone.
        input_KX: Of the rows that compete.
        names: Of each input the feature whose it is.
        at: The row.

    >>> x = torch.tensor([[2.0, 3.0], [0.0, 1.0]])
    >>> expected_gradients(lambda row: row[:, 0] * row[:, 1], x, ["price", "age"], 0)  # 6 beside the mean of 6 and 0
    Contributions(base=3.0, by_feature={'price': 2.0, 'age': 1.0}, rest=0.0)
    """
    with torch.no_grad():
        output_K = outputs(input_KX).numpy()
    found = None
    for points in _POINTS:
        found = summed(_integrated(outputs, input_KX, at, points), names, output_K, at)
        if abs(found.rest) <= TOLERANCE * max(1.0, abs(found.output - found.base)):
            break
    assert found is not None
    return found


def _integrated(outputs: Callable[[Tensor], Tensor], input_KX: Tensor, at: int, points: int) -> Float64:
    """(X,)."""
    place_P = (torch.arange(points) + 0.5) / points
    total_X = torch.zeros(input_KX.shape[1], dtype=torch.float64)
    for begin_BX in torch.split(input_KX, max(1, _ROWS // points)):
        way_BX = input_KX[at] - begin_BX
        input_NX = (begin_BX[:, None] + place_P[:, None] * way_BX[:, None]).flatten(0, 1).requires_grad_()
        (slope_NX,) = torch.autograd.grad(outputs(input_NX).sum(), input_NX)
        slope_BX = slope_NX.view(len(begin_BX), points, -1).mean(1, dtype=torch.float64)
        total_X += (slope_BX * way_BX).sum(0)
    found: Float64 = (total_X / len(input_KX)).numpy()
    return found
