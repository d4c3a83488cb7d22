"""Which rows a search may find: a mask less what is excluded, as FAISS's selectors. Not for deciding them.

Shape letters: I catalogue, E excluded rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tastemaker.index.library import faiss
from tastemaker.types import Bool, Int32, Int64

Allowed = Bool | Sequence[Bool | None] | None

_FEW = 1000
"""Excluded rows up to which a set of them is cheaper than a mask of the catalogue."""


class Rules(NamedTuple):
    """What one search may find: rows of `mask_I`, or where that is None, all but `excluded_E`."""

    mask_I: Bool | None
    excluded_E: Int64
    num_left: int

    @classmethod
    def of(cls, num_items: int, allowed: Bool | None, exclude: Int32 | None) -> "Rules":
        """Rows that `allowed` (I,) has and `exclude` has not; repeats and rows out of range in `exclude` count for nothing."""
        gone_E = np.empty(0, np.int64) if exclude is None else exclude.astype(np.int64)
        gone_E = gone_E[(gone_E >= 0) & (gone_E < num_items)]
        if allowed is None and len(gone_E) <= _FEW:
            gone_E = np.unique(gone_E)
            return cls(None, gone_E, num_items - len(gone_E))
        assert allowed is None or allowed.shape == (num_items,), (allowed.shape, num_items)
        mask_I = np.ones(num_items, bool) if allowed is None else allowed.copy()
        mask_I[gone_E] = False
        return cls(mask_I, np.empty(0, np.int64), int(np.count_nonzero(mask_I)))

    @classmethod
    def none(cls, num_items: int) -> "Rules":
        """Everything may be found."""
        return cls(None, np.empty(0, np.int64), num_items)

    def selector(self) -> Any:
        """FAISS's; None where everything may be found."""
        if self.mask_I is not None:
            return faiss.IDSelectorBitmap(np.packbits(self.mask_I, bitorder="little"))
        return faiss.IDSelectorNot(faiss.IDSelectorBatch(self.excluded_E)) if len(self.excluded_E) else None


def of_request(allowed: Allowed, b: int) -> Bool | None:
    """The mask of request `b`."""
    if allowed is None or (isinstance(allowed, np.ndarray) and allowed.ndim == 1):
        return allowed
    return allowed[b]


def all_alike(allowed: Allowed, exclude: Sequence[Int32] | None, num: int) -> bool:
    """Whether `num` requests, one or more, have the very same rules: one object, not only equal ones."""
    first = of_request(allowed, 0)
    return all(of_request(allowed, b) is first for b in range(1, num)) and (
        exclude is None or all(exclude[b] is exclude[0] for b in range(1, num))
    )
