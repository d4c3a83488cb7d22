"""Masks over a whole catalogue, the ones asked for lately, brought up to date where rows are written.

A mask of a million items takes tens of milliseconds to make anew; a step of the catalogue writes some rows. Not for what a mask
is of: its owner says that.

Shape letters: I catalogue, W rows that a step writes.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property
from typing import Final, Generic, Self, TypeVar

import numpy as np

from tastemaker.types import Bool, Int32

FEW_FORBIDDEN: Final = 1000
"""So many items are excluded by name; more by a mask over all rows."""
K = TypeVar("K", bound=Hashable)


class Mask:
    """What may be shown (I,), read-only."""

    def __init__(self, allowed_I: Bool) -> None:
        allowed_I.flags.writeable = False
        self.allowed_I = allowed_I

    @cached_property
    def few_forbidden(self) -> Int32 | None:
        """Rows of what may not, ascending; None where there are over `FEW_FORBIDDEN`."""
        rows = np.flatnonzero(~self.allowed_I).astype(np.int32)
        return rows if len(rows) <= FEW_FORBIDDEN else None

    def after(self, rows_W: Int32, num: int, allowed_W: Bool) -> "Mask":
        """The mask of `num` rows that says `allowed_W` of `rows_W`; rows behind its own are all among these."""
        allowed_I = np.zeros(num, bool)
        allowed_I[: len(self.allowed_I)] = self.allowed_I
        allowed_I[rows_W] = allowed_W
        return Mask(allowed_I)


class KeptMasks(Generic[K]):
    """The masks of one moment of a catalogue by what they are of. Thread-safe.

    Args:
        most: Masks that are kept, a byte an item each; those that were not asked for the longest go.
        kept: The first ones.
    """

    def __init__(self, most: int, kept: Mapping[K, Mask] | None = None) -> None:
        self._most, self._kept = most, OrderedDict(kept or {})
        self._lock = threading.Lock()

    def get(self, key: K, make: Callable[[], Bool]) -> Mask:
        """The mask of `key`; what `make` gives (I,) where it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = Mask(make())
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made

    def after(self, rows_W: Int32, num: int, allowed_at: Callable[[K], Bool]) -> Self:
        """The masks after a step that wrote `rows_W`, of `num` rows in all; `allowed_at` gives those of a key (W,) now."""
        with self._lock:
            kept = list(self._kept.items())
        return type(self)(self._most, {key: mask.after(rows_W, num, allowed_at(key)) for key, mask in kept})
