"""What finds the nearest items to a vector by inner product, under hard rules. Not how: see `faiss_index`, `sharded`, `extended`.

Shape letters: B requests, I catalogue, D dimension, K results.
"""

from collections.abc import Sequence
from typing import Protocol

from tastemaker.index.rules import Allowed
from tastemaker.types import Float32, Int32, VectorRows


class VectorIndex(Protocol):
    """Finds the items of largest inner product with a vector. Safe to search from several threads."""

    @property
    def num_items(self) -> int:
        """Rows, which are item_index 0 to num_items - 1."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> tuple[Int32, Float32]:
        """The k best allowed items of each query, see `FaissIndex.search`."""
        ...

    def vectors(self) -> VectorRows:
        """All vectors (I, D), read-only."""
        ...
