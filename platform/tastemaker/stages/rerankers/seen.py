"""What a reranking stage is given: the list as it stands, and what is known of the items.

Shape letters: N candidates, I catalogue, D dimension.
"""

from dataclasses import dataclass

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.features.traits import NO_WORD, ItemTraits
from tastemaker.types import Float32, Int32, Int64, VectorRows


@dataclass(frozen=True, slots=True)
class RerankingItems:
    """What reranking knows of the items: unit vectors (I, D), category int32 (I,), -1 for none, and traits.

    Without traits no item has a franchise, tags, a price or an age.
    """

    vectors_ID: VectorRows
    category_I: Int32
    traits: ItemTraits | None = None

    def __post_init__(self) -> None:
        """Refuses columns of two catalogues."""
        lengths = len(self.vectors_ID), len(self.category_I)
        if lengths[0] != lengths[1] or (self.traits is not None and len(self.traits) != lengths[0]):
            raise CompatibilityError(
                "items of reranking", value=f"{lengths[0]} vectors, {lengths[1]} categories",
                limit="one catalogue", mend="load both from one bundle",
            )  # fmt: skip

    def franchise(self, rows_N: Int32) -> Int32:
        """Codes (N,) of items' franchises, -1 for none."""
        if self.traits is None:
            return np.full(len(rows_N), NO_WORD, np.int32)
        return self.traits.franchise.code_I[rows_N]


@dataclass(frozen=True, slots=True)
class Seen:
    """A list in the order that earlier stages gave it.

    Relevance belongs to places, not to items: it falls from place to place, so that each stage trades on the order that it
    is given. The first `keep_top` stay where they are.
    """

    rows_N: Int32
    relevance_N: Float32
    keep_top: int
    k: int

    def __len__(self) -> int:
        return len(self.rows_N)

    def ordered(self, order_N: Int64) -> "Seen":
        """The list in another order."""
        return Seen(self.rows_N[order_N], self.relevance_N, self.keep_top, self.k)


def with_rest(head_M: Int64, num: int) -> Int64:
    """An order of the first M places, the rest of `num` behind as they were."""
    return np.concatenate([head_M, np.arange(len(head_M), num)])
