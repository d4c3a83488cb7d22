"""Which items are in which segments, such as a tag or a category, as lists of rows: a matrix of both would be mostly zeros.

Shape letters: S segments, I catalogue, K candidates, V members of all segments.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from tastemaker.types import Bool, Int32, Int64


@dataclass(frozen=True)
class Segments:
    """Segment s has the items `row_V[offsets_S1[s]:offsets_S1[s + 1]]`, ascending. Immutable."""

    num_items: int
    offsets_S1: Int64
    row_V: Int32

    @classmethod
    def of(cls, num_items: int, lists: Iterable[Sequence[int] | npt.NDArray[np.integer]]) -> Self:
        """Those of lists of rows, one a segment.

        >>> Segments.of(4, [[3, 1], []]).matrix().astype(int).tolist()
        [[0, 1, 0, 1], [0, 0, 0, 0]]
        """
        rows = [np.unique(np.asarray(own, np.int32)) for own in lists]
        offsets = np.concatenate([[0], np.cumsum([len(own) for own in rows])]).astype(np.int64)
        return cls(num_items, offsets, np.concatenate([*rows, np.empty(0, np.int32)]).astype(np.int32))

    @classmethod
    def from_matrix(cls, members_SI: np.ndarray) -> Self:
        """Those of a matrix that is true, or not 0, where an item is in a segment."""
        return cls.of(members_SI.shape[1], [np.flatnonzero(own) for own in members_SI])

    def matrix(self) -> Bool:
        """Whether each item is in each segment (S, I)."""
        members_SI: Bool = np.zeros((len(self), self.num_items), bool)
        for s in range(len(self)):
            members_SI[s, self.rows(s)] = True
        return members_SI

    def rows(self, segment: int) -> Int32:
        """The items of a segment, ascending."""
        return self.row_V[self.offsets_S1[segment] : self.offsets_S1[segment + 1]]

    def any_of(self, segments: Sequence[int], rows_K: Int32 | None = None) -> Bool:
        """Which items (all, or those at `rows_K`) are in at least one of the segments."""
        if rows_K is None:
            is_in: Bool = np.zeros(self.num_items, bool)
            for segment in segments:
                is_in[self.rows(segment)] = True
            return is_in
        is_in = np.zeros(len(rows_K), bool)
        for segment in segments:
            own = self.rows(segment)
            if len(own):
                is_in |= own[np.minimum(np.searchsorted(own, rows_K), len(own) - 1)] == rows_K
        return is_in

    def grown(self, num_items: int) -> Self:
        """The same in a catalogue of further items, which are in none."""
        return type(self)(num_items, self.offsets_S1, self.row_V)

    def __len__(self) -> int:
        return len(self.offsets_S1) - 1
