"""What became of the items that users took: the ranker's labels beside the click, as far as the data tells.

Shape letters: N rows of what was taken.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from tastemaker.data.schema import POSITIVE_KINDS, Dataset
from tastemaker.data.splits import Histories
from tastemaker.features.ranking_data import Target
from tastemaker.types import Float32, Int64

LIKED_RATING = 4.0
"""A rating of this or more is a like."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Labels (N,) by target, row by row beside `taken`; only targets of which the data tells anything.

    `like` and `purchase` are 1 where any event of that user and item says so, a rating of at least `LIKED_RATING`
    included, else 0. `watch` is the seconds of all its watch events, NaN where it has none.
    """

    taken: Histories
    labels: dict[Target, Float32]

    @classmethod
    def of(cls, dataset: Dataset, taken: Histories) -> Self:
        """The outcomes of some of the dataset's rows."""
        rating, like, purchase, watch = (
            dataset.kind_index == POSITIVE_KINDS.index(kind)
            for kind in ("rating", "like", "purchase", "watch")
        )
        pair_N = _pairs(dataset, taken.user_index, taken.item_index)
        pairs = _pairs(dataset, dataset.user_index, dataset.item_index)
        labels: dict[Target, Float32] = {}
        if like.any() or rating.any():
            liked = like | (rating & (dataset.value >= LIKED_RATING))
            labels["like"] = np.isin(pair_N, pairs[liked]).astype(np.float32)
        if purchase.any():
            labels["purchase"] = np.isin(pair_N, pairs[purchase]).astype(np.float32)
        if watch.any():
            labels["watch"] = _sums(pair_N, pairs[watch], dataset.value[watch])
        return cls(taken, labels)

    def __getitem__(self, user: int) -> dict[Target, Float32]:
        """The labels of one user's items, in the order of `taken[user]`."""
        begin, end = self.taken.offsets[user], self.taken.offsets[user + 1]
        return {target: label_N[begin:end] for target, label_N in self.labels.items()}


def _pairs(dataset: Dataset, user_N: np.ndarray, item_N: np.ndarray) -> Int64:
    pair_N: Int64 = user_N.astype(np.int64) * dataset.num_items + item_N
    return pair_N


def _sums(pair_N: Int64, pairs: Int64, values: Float32) -> Float32:
    """The sum of the values of each pair, NaN where it has none."""
    known, inverse = np.unique(pairs, return_inverse=True)
    sums = np.bincount(inverse, values, len(known))
    at_N = np.minimum(np.searchsorted(known, pair_N), len(known) - 1)
    return np.where(known[at_N] == pair_N, sums[at_N], np.nan).astype(np.float32)
