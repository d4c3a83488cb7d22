"""A bundle's items as they are now: its own columns and vectors, with those of put items behind and in place of them.

Shape letters: I catalogue, N items behind the bundle's, W rows that a step writes, F features, D dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.features.columns import ItemColumns
from tastemaker.features.content import ContentSpace, is_heavy
from tastemaker.features.places import Places
from tastemaker.features.traits import ItemTraits
from tastemaker.index.extended import GrowingVectors
from tastemaker.stages.overlay import Overlay, Step
from tastemaker.stages.signals import RowOf
from tastemaker.types import Float32

Encode = Callable[[pa.Table], Float32]
"""Vectors (W, D) of items."""
ContentOf = Callable[[str, int, Sequence[str]], Float32]
"""From a space's fingerprint and length, and ids of items, to their vectors (N, D); zeros where none is known yet."""


class LaterItems(NamedTuple):
    """What a model of the bundle knows of items that came later: their features (N, F), and vectors (N, D)."""

    features_NF: Float32
    vectors_ND: Float32


@dataclass(frozen=True)
class LiveItems:
    """One moment of the catalogue in a bundle's rows. Immutable.

    An item of the bundle whose attributes were put anew keeps the bundle's vectors, by which its index knows it; the next
    bundle has new ones. Of vectors it has those behind the bundle's: the item tower's, and content vectors, None where no
    source reads them. `traits` is None where no rule reads them here, `places` where no source does. `later` has an entry for each
    source whose model knows later items.
    """

    overlay: Overlay
    row_of: RowOf
    columns: ItemColumns
    vectors_ND: Float32
    content_ND: Float32 | None
    traits: ItemTraits | None = None
    places: Places | None = None
    later: Mapping[str, LaterItems] = field(default_factory=dict)


class LiveVectors:
    """Vectors behind the bundle's own in one space, as items come; the bundle's are not copied. One thread takes steps.

    Args:
        num_bundle: Items of the bundle.
        dim: Length of a vector.
        encode: Makes those of new items.
    """

    def __init__(self, num_bundle: int, dim: int, encode: Encode) -> None:
        self._num_bundle, self._encode = num_bundle, encode
        self._growing = GrowingVectors(dim)

    def after(self, step: Step) -> Float32:
        """All (N, D) after a step; what earlier steps gave stays as it was."""
        is_new_W = step.rows_W >= self._num_bundle
        if not is_new_W.any():
            return self._growing.vectors
        new = step.items.filter(pa.array(is_new_W))
        return self._growing.write(step.rows_W[is_new_W] - self._num_bundle, self._encode(new))


def content_vectors(space: ContentSpace, items: pa.Table, content_of: ContentOf | None) -> Float32:
    """Content vectors (W, D) of items: made here, or looked up where the encoder is heavy and `content_of` is given."""
    if content_of is None or not is_heavy(space.config):
        return space.encode(items)
    item_ids: list[Any] = items[Column.ITEM_ID].to_pylist()
    return content_of(space.fingerprint, space.dim, item_ids)
