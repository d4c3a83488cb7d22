"""Columns of which some rows are replaced and others added, without looking at the rest one by one.

Shape letters: I rows, W rows that are written, V values of all rows' lists.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tastemaker.features.ragged import ranges
from tastemaker.types import Int64

T = TypeVar("T", bound=np.generic)
Rows = npt.NDArray[np.integer]


def placed(values_I: npt.NDArray[T], rows_W: Rows, values_W: npt.NDArray[T]) -> npt.NDArray[T]:
    """A copy of `values_I` with others at `rows_W`, which may continue it.

    >>> placed(np.array([1, 2, 3]), np.array([0, 3]), np.array([7, 8]))
    array([7, 2, 3, 8])
    """
    num = max(len(values_I), int(rows_W.max(initial=-1)) + 1)
    out_I = np.empty((num, *values_I.shape[1:]), values_I.dtype)
    out_I[: len(values_I)] = values_I
    out_I[rows_W] = values_W
    return out_I


def spliced(
    offsets_I1: Int64, values_V: npt.NDArray[T], rows_W: Rows, offsets_W1: Int64, others_V: npt.NDArray[T]
) -> tuple[Int64, npt.NDArray[T]]:
    """The same of rows that are lists, laid end to end: row i has `values_V[offsets_I1[i]:offsets_I1[i + 1]]`.

    >>> offsets, values = spliced(np.array([0, 2, 3]), np.array([1, 2, 3]), np.array([0]), np.array([0, 1]), np.array([9]))
    >>> offsets.tolist(), values.tolist()
    ([0, 1, 2], [9, 3])
    """
    lengths_I = placed(np.diff(offsets_I1), rows_W, np.diff(offsets_W1))
    begin_I = placed(offsets_I1[:-1], rows_W, offsets_W1[:-1] + len(values_V))
    at_V = ranges(begin_I, lengths_I)
    offsets = np.concatenate([[0], np.cumsum(lengths_I)]).astype(np.int64)
    return offsets, np.concatenate([values_V, others_V])[at_V]
