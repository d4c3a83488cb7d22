"""How alike two rows of ratings are, over the columns that both have. Rows are users, or items.

Shape letters: A rows that are compared, R rows with which, M columns.
"""

from typing import Literal

import numpy as np
import scipy.sparse as sp

from tastemaker.types import Float32

Measure = Literal["msd", "cosine", "pearson", "pearson-baseline"]
_BLOCK_VALUES = 2**22
_LEAST = 1e-4


class Similarity:
    """Compares rows with those that it was made of, by the n columns that both have; 0 where these are too few or do not vary.

    msd: 1 / (1 + mean squared difference). cosine: sum xy / sqrt(sum xx * sum yy). pearson: the same of x and y less their means
    over the common columns. pearson-baseline: the cosine of what is given, ratings less their baselines, times
    (n - 1) / (n - 1 + shrinkage) [Koren 2010, Eq. 2].

    >>> rows = sp.csr_matrix(np.array([[5, 3, 0], [4, 2, 1]], np.float32))
    >>> Similarity(rows, "msd").to(rows).round(3).tolist()  # differences of 1 and 1: 1 / (1 + 1)
    [[1.0, 0.5], [0.5, 1.0]]
    """

    def __init__(
        self, rows_RM: sp.csr_matrix, measure: Measure, least_common: int = 1, shrinkage: float = 0.0
    ) -> None:
        self._measure, self._least_common, self._shrinkage = measure, least_common, shrinkage
        self._num_rows = rows_RM.shape[0]
        self._value_MR = sp.csr_matrix(rows_RM.T)
        self._square_MR = _with(self._value_MR, self._value_MR.data**2)
        self._there_MR = _with(self._value_MR, np.ones_like(self._value_MR.data))

    def to(self, rows_AM: sp.csr_matrix) -> Float32:
        """(A, R) similarities."""
        step = max(1, _BLOCK_VALUES // max(1, self._num_rows))
        blocks = [self._block(rows_AM[at : at + step]) for at in range(0, rows_AM.shape[0], step)]
        return np.concatenate([*blocks, np.empty((0, self._num_rows), np.float32)])

    def _block(self, a_AM: sp.csr_matrix) -> Float32:
        there_AM, square_AM = _with(a_AM, np.ones_like(a_AM.data)), _with(a_AM, a_AM.data**2)
        count_AR = _product(there_AM, self._there_MR)
        xy_AR = _product(a_AM, self._value_MR)
        xx_AR, yy_AR = _product(square_AM, self._there_MR), _product(there_AM, self._square_MR)
        if self._measure == "msd":
            squares_AR = np.maximum(xx_AR - 2 * xy_AR + yy_AR, 0)
            alike_AR = 1 / (1 + squares_AR / np.maximum(count_AR, 1))
        elif self._measure == "pearson":
            x_AR, y_AR = _product(a_AM, self._there_MR), _product(there_AM, self._value_MR)
            parts = (
                count_AR * xy_AR - x_AR * y_AR, count_AR * xx_AR - x_AR**2, count_AR * yy_AR - y_AR**2,
            )  # fmt: skip
            alike_AR = _cosine(*parts)
        else:
            alike_AR = _cosine(xy_AR, xx_AR, yy_AR)
        if self._measure == "pearson-baseline":
            alike_AR *= np.maximum(count_AR - 1, 0) / np.maximum(count_AR - 1 + self._shrinkage, _LEAST)
        alike_AR[count_AR < self._least_common] = 0.0
        return np.asarray(alike_AR, np.float32)


def _product(a_AM: sp.csr_matrix, b_MR: sp.csr_matrix) -> Float32:
    product_AR: Float32 = (a_AM @ b_MR).toarray()
    return product_AR


def _cosine(product_AR: Float32, x_AR: Float32, y_AR: Float32) -> Float32:
    under_AR = np.sqrt(np.maximum(x_AR, 0) * np.maximum(y_AR, 0))
    found_AR: Float32 = np.divide(
        product_AR, under_AR, out=np.zeros_like(product_AR), where=under_AR > _LEAST
    )
    return found_AR


def _with(rows: sp.csr_matrix, data: Float32) -> sp.csr_matrix:
    """Other values in the same places."""
    return sp.csr_matrix((data, rows.indices, rows.indptr), rows.shape)
