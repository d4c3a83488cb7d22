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
        most = int(num_true(better_BJ).max(initial=0))
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


def _picked(score_BJ: Float32, wanted_BJ: Bool, fewest: int) -> tuple[Int32, Float32]:
    """The wanted items (B, W) of each row in their order, `PADDING` and -inf behind them; W is the most of a row, or `fewest`."""
    num_B, at_N = num_true(wanted_BJ), np.flatnonzero(wanted_BJ)
    row_N = np.repeat(np.arange(len(num_B)), num_B)
    column_N = np.arange(len(at_N)) - (np.cumsum(num_B) - num_B)[row_N]
    shape = (len(num_B), int(num_B.max(initial=fewest)))
    item_BW, score_BW = np.full(shape, PADDING, np.int32), np.full(shape, -np.inf, np.float32)
    item_BW[row_N, column_N] = at_N - row_N * score_BJ.shape[1]
    score_BW[row_N, column_N] = score_BJ.reshape(-1)[at_N]
    return item_BW, score_BW


def best(score_BI: Float32, k: int) -> tuple[Int32, Float32]:
    """The k largest of each row (B, min(k, I)), largest first, of equals the lower row; `PADDING` where the score is -inf.

    NaN counts as larger than all others: a row that has one begins with it.
    """
    num_items = score_BI.shape[1]
    if k >= num_items:
        item_BW, score_BW = np.broadcast_to(np.arange(num_items, dtype=np.int32), score_BI.shape), score_BI
    else:
        item_BW, score_BW = _picked(score_BI, _candidates(score_BI, k), k)
    # Ascending from right to left: of equals the lower row comes last, and NaN behind all.
    last_BK = np.argsort(score_BW[:, ::-1], axis=1, kind="stable")[:, : -k - 1 : -1]
    order_BK = score_BW.shape[1] - 1 - last_BK
    item_BK, score_BK = (
        np.take_along_axis(item_BW, order_BK, axis=1),
        np.take_along_axis(score_BW, order_BK, axis=1),
    )
    item_BK[np.isneginf(score_BK)] = PADDING
    return item_BK, score_BK


def num_true(mask_BI: Bool) -> Int64:
    """(B,) how many of each row are true, in a third of the time of a sum of bits that numpy keeps as bytes."""
    bits_BI = np.bitwise_count(np.packbits(mask_BI, axis=1))
    found_B: Int64 = bits_BI.sum(axis=1, dtype=np.uint32).astype(np.int64)
    return found_B


def _candidates(score_BI: Float32, k: int) -> Bool:
    """Which items may be shown and hold the k largest scores of each row, and at most `_FEW` times as many in all (B, I).

    The k-th largest of groups' largest scores is at most the k-th largest score, and takes much less time to find.
    """
    largest_BG = score_BI
    while (half := largest_BG.shape[1] // 2) >= _FEW * k:
        largest_BG = np.maximum(largest_BG[:, :half], largest_BG[:, half : 2 * half])
    least_B1 = np.partition(largest_BG, -k, axis=1)[:, -k, None]
    stays_BI = ~(score_BI < np.maximum(least_B1, np.finfo(np.float32).min))
    for b in np.flatnonzero(num_true(stays_BI) > _FEW * k):
        stays_BI[b] = _largest(score_BI[b], k)
    return stays_BI


def _largest(score_I: Float32, k: int) -> Bool:
    """Which are the k largest, of equals the lower rows; all NaN, too."""
    least = np.partition(score_I, -k)[-k]
    stays_I: Bool = (score_I > least) | np.isnan(score_I)
    stays_I[np.flatnonzero(score_I == least)[: max(k - int(stays_I.sum()), 0)]] = True
    return stays_I
