"""An index with further vectors behind its own, which are few and scored one by one. Not for building indexes.

Shape letters: B requests, I catalogue, N further items, D dimension, K results.
"""

from collections.abc import Sequence

import numpy as np

from tastemaker.index.rules import Allowed, of_request
from tastemaker.index.vector_index import VectorIndex
from tastemaker.types import Bool, Float32, Int32, Int64, VectorRows


class GrowingVectors:
    """A matrix that rows are added to. Views that were given before stay as they were. One thread adds.

    Adding writes behind all earlier views and copies nothing, but when room runs out; writing over a row copies the whole. So it is
    for the further rows alone, which are few.

    Args:
        dim: Length of a row.
    """

    def __init__(self, dim: int) -> None:
        self.vectors: Float32 = np.zeros((0, dim), np.float32)
        """All rows so far (N, D)."""
        self._buffer = self.vectors

    def write(self, rows_W: Int32 | Int64, vector_WD: Float32) -> Float32:
        """All rows with others at `rows_W`: in place of those that are there, or next behind the last."""
        num, needed = len(self.vectors), max(len(self.vectors), int(rows_W.max(initial=-1)) + 1)
        if needed > len(self._buffer) or (rows_W < num).any():
            spare = needed // 8 + 1024
            buffer = np.zeros((needed + spare, self.vectors.shape[1]), np.float32)
            buffer[:num] = self.vectors
            self._buffer = buffer
        self._buffer[rows_W] = vector_WD
        self.vectors = self._buffer[:needed]
        return self.vectors


class JoinedRows:
    """The rows of a matrix, at least one, and of further ones behind them, looked up as those of one matrix. Neither is copied."""

    def __init__(self, first_ID: VectorRows, further_ND: Float32) -> None:
        self._first_ID, self._further_ND = first_ID, further_ND

    def __len__(self) -> int:
        return len(self._first_ID) + len(self._further_ND)

    def __getitem__(self, rows_K: Int32, /) -> Float32:
        """The vectors (K, D) of `rows_K`, (K,) integers from 0 on and below the length: a copy."""
        assert rows_K.min(initial=0) >= 0, "rows are counted from 0"
        num = len(self._first_ID)
        further = np.flatnonzero(rows_K >= num)
        if not len(further):
            return self._first_ID[rows_K]
        found_KD = self._first_ID[np.minimum(rows_K, num - 1)]
        found_KD[further] = self._further_ND[rows_K[further] - num]
        return found_KD


class ExtendedIndex:
    """A `VectorIndex` of another one's items and of more behind them.

    Args:
        index: Of the first items.
        further_ND: Vectors of the items behind those.
    """

    def __init__(self, index: VectorIndex, further_ND: Float32) -> None:
        self._index, self._further_ND = index, further_ND
        self._vectors = JoinedRows(index.vectors(), further_ND)
        self._first = index.num_items

    @property
    def num_items(self) -> int:
        """Rows, which are item_index 0 to num_items - 1."""
        return self._first + len(self._further_ND)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._index.dim

    def vectors(self) -> VectorRows:
        """All vectors (I, D), read-only."""
        return self._vectors

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> tuple[Int32, Float32]:
        """See `FaissIndex.search`; the further items are scored exactly."""
        masks = [of_request(allowed, b) for b in range(len(queries_BD))]
        assert all(mask is None or len(mask) == self.num_items for mask in masks), "masks of all items"
        first = [None if mask is None else mask[: self._first] for mask in masks]
        rows_BK, score_BK = self._index.search(queries_BD, k, first, exclude)
        more_BN = queries_BD @ self._further_ND.T
        for b, mask in enumerate(masks):
            more_BN[b, self._forbidden(mask, None if exclude is None else exclude[b])] = -np.inf
        more_N = np.arange(self._first, self.num_items, dtype=np.int32)
        rows_BM = np.concatenate([rows_BK, np.broadcast_to(more_N, more_BN.shape)], axis=1)
        score_BM = np.concatenate([score_BK, more_BN], axis=1, dtype=np.float32)
        rows_BM = np.where(np.isneginf(score_BM), -1, rows_BM)
        best_BK = np.lexsort((rows_BM, -score_BM), axis=1)[:, :k]
        return np.take_along_axis(rows_BM, best_BK, 1), np.take_along_axis(score_BM, best_BK, 1)

    def _forbidden(self, mask: Bool | None, exclude: Int32 | None) -> Bool:
        forbidden_N = np.zeros(self.num_items - self._first, bool)
        if mask is not None:
            forbidden_N |= ~mask[self._first :]
        if exclude is not None:
            forbidden_N[exclude[exclude >= self._first] - self._first] = True
        return forbidden_N
