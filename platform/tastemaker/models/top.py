"""The best of many scores: of whole rows, or of rows that are seen a range of items at a time.

Shape letters: B askers, I items, J items of a range, K slots, W candidates of an asker.
"""

import numpy as np

from tastemaker.types import Bool, Float32, Int32, Int64

PADDING = -1
"""In place of an item's row: there are no more."""
_FEW = 4


class TopItems:
    """Lists of k that grow better range by range; memory is that of the lists and of one range's scores.

    >>> top = TopItems(1, 2)
    >>> top.add(np.array([[0.5, 0.1]], np.float32), 0)
    >>> top.add(np.array([[0.5, 0.9]], np.float32), 2)  # items 2 and 3
    >>> top.item_BK.tolist()  # of equals the lower row
    [[3, 0]]
    """

    def __init__(self, num_askers: int, k: int) -> None:
        self.item_BK: Int32 = np.full((num_askers, k), PADDING, np.int32)
        self.score_BK: Float32 = np.full((num_askers, k), -np.inf, np.float32)

    def add(self, score_BJ: Float32, first: int) -> None:
        """Takes scores of the items `first`, `first` + 1, … in, which lie behind all that came before."""
        width, k = score_BJ.shape[1], self.item_BK.shape[1]
        better_BJ = score_BJ > self.score_BK[:, -1:]
        most = int(better_BJ.sum(axis=1).max(initial=0))
        if not most:
            return
        if most > _FEW * k:
            item_BW, score_BW = best(score_BJ, min(k, width))
        else:
            item_BW, score_BW = _picked(score_BJ, better_BJ, most)
        item_BW = np.where(item_BW == PADDING, PADDING, item_BW + np.int32(first))
        item_BW = np.concatenate([self.item_BK, item_BW], axis=1)
        score_BW = np.concatenate([self.score_BK, score_BW], axis=1)
        order_BK = np.argsort(-score_BW, axis=1, kind="stable")[:, :k]
        self.item_BK = np.take_along_axis(item_BW, order_BK, axis=1)
        self.score_BK = np.take_along_axis(score_BW, order_BK, axis=1)


def _picked(score_BJ: Float32, wanted_BJ: Bool, width: int) -> tuple[Int32, Float32]:
    """The wanted items (B, W) of each row in their order, `PADDING` and -inf behind them."""
    place_N, item_N = np.nonzero(wanted_BJ)
    begin_B = np.searchsorted(place_N, np.arange(len(score_BJ)))
    column_N = np.arange(len(place_N)) - begin_B[place_N]
    item_BW = np.full((len(score_BJ), width), PADDING, np.int32)
    score_BW = np.full((len(score_BJ), width), -np.inf, np.float32)
    item_BW[place_N, column_N], score_BW[place_N, column_N] = item_N, score_BJ[place_N, item_N]
    return item_BW, score_BW


def best(score_BI: Float32, k: int) -> tuple[Int32, Float32]:
    """The k largest of each row (B, min(k, I)), largest first, of equals the lower row; `PADDING` where the score is -inf.

    NaN counts as large and says nothing of the order: no model scores so.
    """
    num_items = score_BI.shape[1]
    if k >= num_items:
        item_BK, value_BK = np.broadcast_to(np.arange(num_items), score_BI.shape), score_BI
    else:
        flat_BK = _largest(score_BI, k)
        item_BK = flat_BK - num_items * np.arange(len(score_BI))[:, None]
        value_BK = score_BI.reshape(-1)[flat_BK]
    order_BK = np.argsort(-value_BK, axis=1, kind="stable")
    value_BK = np.take_along_axis(value_BK, order_BK, axis=1)
    item_BK = np.take_along_axis(item_BK, order_BK, axis=1)
    return np.where(np.isneginf(value_BK), PADDING, item_BK).astype(np.int32), value_BK


def num_true(mask_BI: Bool) -> Int64:
    """(B,) how many of each row are true, in a third of the time of a sum of bits that numpy keeps as bytes."""
    found_B: Int64 = np.bitwise_count(np.packbits(mask_BI, axis=1)).sum(axis=1, dtype=np.int64)
    return found_B


def _largest(score_BI: Float32, k: int) -> Int64:
    """Where the k largest of each row (B, k) lie in all rows end to end, in the order of the items.

    Partitioning values and looking for what reaches the k-th takes half the time of partitioning places.
    """
    num_askers, num_items = score_BI.shape
    least_B1 = np.partition(score_BI, num_items - k, axis=1)[:, num_items - k, None]
    stays_BI = ~(score_BI < least_B1)
    surplus_B = num_true(stays_BI) - k
    for b in np.flatnonzero(surplus_B):  # of those that score as the least the lowest stay
        equal = np.flatnonzero(stays_BI[b] & ~(score_BI[b] > least_B1[b]))
        stays_BI[b, equal[len(equal) - surplus_B[b] :]] = False
    return np.flatnonzero(stays_BI).reshape(num_askers, k)
