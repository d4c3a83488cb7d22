"""Lists of unequal length laid end to end."""

import numpy as np
import numpy.typing as npt

from tastemaker.types import Int64


def ranges(begin: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Int64:
    """The numbers begin[0], begin[0] + 1, … of all ranges, end to end; range b has `lengths[b]` of them.

    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    lengths = lengths.astype(np.int64)
    shift = begin - (np.cumsum(lengths) - lengths)
    numbers: Int64 = np.repeat(shift, lengths) + np.arange(int(lengths.sum()))
    return numbers
