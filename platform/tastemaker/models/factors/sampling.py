"""Draws for models that learn by what users did not take.

Shape letters: N rows, M taken pairs.
"""

import numpy as np

from tastemaker.models.log import Log
from tastemaker.types import Int32, Int64

_ROUNDS = 8


class Untaken:
    """Draws items that a user has not taken, each alike."""

    def __init__(self, log: Log) -> None:
        self._num_items = log.num_items
        self._key_M = np.unique(self._keys(log.user_N, log.item_N))

    def _keys(self, user_N: Int32 | Int64, item_N: Int32 | Int64) -> Int64:
        return user_N.astype(np.int64) * self._num_items + item_N

    def draw(self, user_N: Int32 | Int64, generator: np.random.Generator) -> Int64:
        """(N,) an item for each of some users; of users who took nearly all it may be one that they took."""
        item_N = generator.integers(self._num_items, size=len(user_N))
        bad = self._taken(user_N, item_N)
        for _ in range(_ROUNDS):
            if not len(bad):
                break
            item_N[bad] = generator.integers(self._num_items, size=len(bad))
            bad = bad[self._taken(user_N[bad], item_N[bad])]
        return item_N

    def _taken(self, user_N: Int32 | Int64, item_N: Int64) -> Int64:
        """Places of the pairs that are taken."""
        key_N = self._keys(user_N, item_N)
        at_N = np.minimum(np.searchsorted(self._key_M, key_N), len(self._key_M) - 1)
        return np.flatnonzero(self._key_M[at_N] == key_N)
