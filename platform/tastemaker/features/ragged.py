"""Lists of unequal length laid end to end."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from tastemaker.pacing import step
from tastemaker.types import Int64

_AT_ONCE: Final = 2**16


def repeated(values: npt.NDArray[Any], lengths: npt.NDArray[np.integer]) -> npt.NDArray[Any]:
    """What `np.repeat` gives, some ten thousand at a time: it keeps other threads from the interpreter meanwhile.

    >>> repeated(np.array([5, 7]), np.array([2, 1]))
    array([5, 5, 7])
    """
    if len(values) <= _AT_ONCE:
        return np.repeat(values, lengths)
    parts = []
    for start in range(0, len(values), _AT_ONCE):
        step()
        parts.append(np.repeat(values[start : start + _AT_ONCE], lengths[start : start + _AT_ONCE]))
    return np.concatenate(parts)


def ranges(begin: npt.NDArray[np.integer], lengths: npt.NDArray[np.integer]) -> Int64:
    """The numbers begin[0], begin[0] + 1, … of all ranges, end to end; range b has `lengths[b]` of them.

    >>> ranges(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    lengths = lengths.astype(np.int64)
    shift = begin - (np.cumsum(lengths) - lengths)
    numbers: Int64 = repeated(shift, lengths) + np.arange(int(lengths.sum()))
    return numbers
