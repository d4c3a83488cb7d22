"""What each input of a network adds to its output, by gradients on the ways from the rows that a row competes with.

Shape letters: K rows that compete, S of them where ways begin, X inputs, P points, B of the S at a time, N = B * P.
"""

import logging
from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tastemaker.models.contributions import Contributions, summed
from tastemaker.types import Float32, Float64, Int64

_POINTS: Final = (8, 24, 72)
"""On the way from each row; more where fewer leave too much unexplained. Middles of steps are middles of a third of them too."""
_VALUES: Final = 4096
"""Of one pass through a model."""
_ROWS: Final = 16384
"""Of all passes of one explanation beside the rows themselves: where ways from all of them need more, they are sampled."""
_MOST_BEGINNINGS: Final = _ROWS // _POINTS[-1]
_SEED: Final = 0

log = logging.getLogger(__name__)


def expected_gradients(
    outputs: Callable[[Tensor], Tensor], input_KX: Tensor, names: list[str], at: int, largest: int = 1
) -> Contributions:
    """Integrated gradients [Sundararajan et al. 2017] of one row, the mean over all rows as where they begin [Erion et al. 2021].

    Of more than 227 rows ways begin at 227: a systematic sample by output with a fixed seed [Cochran 1977, chapter 8]. `base` is then the
    sample's mean. What the last points leave too much of is in `rest`, and logged.

    Beginning at row k, input i adds (x_i - k_i) times the mean of the output's derivative by it on the straight way from k to x, here
    at the middles of equal steps. What the inputs add up to is the output at x less that at k, and so, in the mean, less the mean output. An
    input in which all rows are alike adds nothing.

    Args:
        outputs: The model: outputs (N,) of inputs (N, X), each row's of its own inputs alone.
        input_KX: Of the rows that compete.
        names: Of each input the feature whose it is.
        at: The row.
        largest: Values of a row's largest field: the more, the fewer rows in a pass.

    >>> x = torch.tensor([[2.0, 3.0], [0.0, 1.0]])
    >>> expected_gradients(lambda row: row[:, 0] * row[:, 1], x, ["price", "age"], 0)  # 6 beside the mean of 6 and 0
    Contributions(base=3.0, by_feature={'price': 2.0, 'age': 1.0}, rest=0.0)
    """
    most = max(1, _VALUES // max(1, largest))
    with torch.no_grad():
        output_K = torch.cat([outputs(some_BX) for some_BX in torch.split(input_KX, most)]).numpy()
    begin_S = _beginnings(output_K)
    base, output = float(output_K[begin_S].mean(dtype=np.float64)), float(output_K[at])
    begin_SX = input_KX[torch.from_numpy(begin_S)]
    total_X, found, done = np.zeros(input_KX.shape[1]), None, 0
    for points in _POINTS:
        total_X += _added_up(outputs, begin_SX, input_KX[at], _places(points, done), most)
        found, done = summed(total_X / (points * len(begin_S)), names, base, output), points
        if found.is_explained:
            return found
    assert found is not None
    log.warning("contributions leave %.3g of %.3g unexplained", found.rest, output - base)
    return found


def _beginnings(output_K: Float32) -> Int64:
    """(S,) rows: all, or of each of as many equal parts of their order by output one, in the order that they have."""
    if len(output_K) <= _MOST_BEGINNINGS:
        return np.arange(len(output_K))
    start = np.random.default_rng(_SEED).random()
    place_S = ((np.arange(_MOST_BEGINNINGS) + start) * len(output_K) / _MOST_BEGINNINGS).astype(np.int64)
    found: Int64 = np.sort(np.argsort(output_K, kind="stable")[place_S])
    return found


def _places(points: int, done: int) -> Tensor:
    """Middles of `points` equal steps from 0 to 1 but for those of a third as many, where these are done."""
    place_P = (torch.arange(points) + 0.5) / points
    return place_P[torch.arange(points) % 3 != 1] if done else place_P


def _added_up(
    outputs: Callable[[Tensor], Tensor], begin_SX: Tensor, end_X: Tensor, place_P: Tensor, most: int
) -> Float64:
    """(X,) slopes at the places of all ways, times the ways."""
    total_X = torch.zeros(len(end_X), dtype=torch.float64)
    for begin_BX in torch.split(begin_SX, max(1, most // len(place_P))):
        way_BX = end_X - begin_BX
        input_NX = (begin_BX[:, None] + place_P[:, None] * way_BX[:, None]).flatten(0, 1).requires_grad_()
        (slope_NX,) = torch.autograd.grad(outputs(input_NX).sum(), input_NX)
        slope_BX = slope_NX.view(len(begin_BX), len(place_P), -1).sum(1, dtype=torch.float64)
        total_X += (slope_BX * way_BX).sum(0)
    found: Float64 = total_X.numpy()
    return found
