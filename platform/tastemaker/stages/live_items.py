"""A bundle's items as they are now: its own columns and vectors, with those of put items behind and in place of them.

Shape letters: I catalogue, W rows that a step writes, D dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from tastemaker.features.columns import ItemColumns
from tastemaker.features.places import Places
from tastemaker.features.traits import ItemTraits
from tastemaker.index.extended import GrowingVectors
from tastemaker.stages.overlay import Overlay, Step
from tastemaker.stages.signals import RowOf
from tastemaker.types import Float32

Encode = Callable[[pa.Table], Float32]
"""Vectors (W, D) of items."""


@dataclass(frozen=True)
class LiveItems:
    """One moment of the catalogue in a bundle's rows. Immutable.

    An item of the bundle whose attributes were put anew keeps the bundle's vectors, by which its index knows it; the next
    bundle has new ones. `content_ID` is None where no source reads content vectors, `traits` where no rule reads them here,
    `places` where no source does.
    """

    overlay: Overlay
    row_of: RowOf
    columns: ItemColumns
    vectors_ID: Float32
    content_ID: Float32 | None
    traits: ItemTraits | None = None
    places: Places | None = None


class LiveVectors:
    """Vectors of one space that grow as items come. One thread takes steps.

    Args:
        growing: The bundle's.
        encode: Makes those of new items.
    """

    def __init__(self, growing: GrowingVectors, encode: Encode) -> None:
        self._growing, self._encode = growing, encode
        self._num_bundle = len(growing.vectors)

    def after(self, step: Step) -> Float32:
        """All vectors after a step."""
        is_new_W = step.rows_W >= self._num_bundle
        if not is_new_W.any():
            return self._growing.vectors
        new = step.items.filter(pa.array(is_new_W))
        return self._growing.write(step.rows_W[is_new_W], self._encode(new))
