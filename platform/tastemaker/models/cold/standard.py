"""Columns of numbers, some unknown, at a common scale.

Shape letters: N rows, M columns.
"""

from typing import Any, Final, Self

import numpy as np
import pyarrow as pa

from tastemaker.types import Float32, Float64

_FURTHEST: Final = 3.0
_LEAST_SCALE: Final = 1e-6
"""Standard deviations below this, of a mean of 1 or less or else over it, are rounding."""


class Standard:
    """Takes the mean from each column, and divides by 3 standard deviations; what is further off is 1 or -1, the unknown 0.

    Args:
        mean_M: Of the known.
        scale_M: Their standard deviations; a column whose numbers are all alike counts for nothing.
    """

    def __init__(self, mean_M: Float64, scale_M: Float64) -> None:
        self.mean_M, self.scale_M = mean_M, scale_M

    @classmethod
    def fit(cls, value_NM: Float64) -> Self:
        """Of numbers, NaN where one is unknown.

        >>> standard = Standard.fit(np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]]))
        >>> standard(np.array([[3.5, 5.0], [np.nan, 9.0], [99.0, 5.0]])).tolist()
        [[0.5, 0.0], [0.0, 0.0], [1.0, 0.0]]
        """
        known_NM = ~np.isnan(value_NM)
        num_M = np.maximum(known_NM.sum(axis=0), 1)
        mean_M = np.where(known_NM, value_NM, 0).sum(axis=0) / num_M
        scale_M = np.sqrt(np.where(known_NM, (value_NM - mean_M) ** 2, 0).sum(axis=0) / num_M)
        varies_M = scale_M > _LEAST_SCALE * np.maximum(np.abs(mean_M), 1)
        return cls(mean_M, np.where(varies_M, scale_M, 0))

    def __call__(self, value_NM: Float64) -> Float32:
        """(N, M) from -1 to 1."""
        safe_M = np.where(self.scale_M > 0, self.scale_M, np.inf)
        standard_NM = np.nan_to_num((value_NM - self.mean_M) / safe_M)
        scaled_NM: Float32 = (np.clip(standard_NM, -_FURTHEST, _FURTHEST) / _FURTHEST).astype(np.float32)
        return scaled_NM


def numbers_of(table: pa.Table, names: tuple[str, ...]) -> Float64:
    """(N, M) of columns; NaN where one is unknown, not finite, not there or of no numbers."""
    found_NM = np.full((table.num_rows, len(names)), np.nan)
    for place, name in enumerate(names):
        if name in table.column_names and is_number(table.schema.field(name).type):
            values: Any = table[name].cast(pa.float64())
            found_NM[:, place] = values.to_numpy()
    found_NM[~np.isfinite(found_NM)] = np.nan
    return found_NM


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type is one of numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
