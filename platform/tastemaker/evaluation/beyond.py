"""Metrics beyond accuracy: surprise, popularity bias, calibration to what a user has taken, exposure of groups of items.

Those of diversity, novelty, coverage and concentration are in `metrics`.

Shape letters: B users, K slots (best first), I catalogue, G groups of items, N rows.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from tastemaker.evaluation.metrics import CELLS_AT_ONCE, PADDING, ratio
from tastemaker.types import Bool, Float64, Int32

_SMOOTHING = 0.01
_FEW_GROUPS = 64
_FIRST_PLACES = 4
"""Of the order of the items, times the length of a list: few users have seen so much of what all see."""


def serendipity(relevance_BK: Float64, ranked_BK: Int32, obvious_BK: Int32) -> Float64:
    """(B,) share of a list's K slots with a target that the obvious list does not have [Ge et al. 2010, Eq. 5].

    Args:
        relevance_BK: See `metrics.relevance`.
        ranked_BK: Lists.
        obvious_BK: What a primitive recommender shows to the same users: the most popular items that they have not taken.

    >>> lists, obvious = np.array([[5, 6, 7]], np.int32), np.array([[6, 1, 2]], np.int32)
    >>> serendipity(np.array([[1.0, 1.0, 0.0]]), lists, obvious).round(3).tolist()  # item 5 alone, of 3
    [0.333]
    """
    is_obvious_BK = (ranked_BK[:, :, None] == obvious_BK[:, None, :]).any(axis=2)
    found_B: Float64 = ((relevance_BK > 0) & ~is_obvious_BK).sum(axis=1) / ranked_BK.shape[1]
    return found_B


def most_popular_unseen(order_I: Int32, seen_BI: sp.csr_matrix, k: int) -> Int32:
    """(B, k) the first k of an order of the items that each user has not; `PADDING` at the end where there are fewer.

    Looked for among the order's first places, and among twice as many for users who have seen too many of these.

    >>> seen = sp.csr_matrix(np.array([[0, 1, 0, 1], [0, 0, 0, 0]], float))
    >>> most_popular_unseen(np.array([3, 0, 1, 2], np.int32), seen, 3).tolist()
    [[0, 2, -1], [3, 0, 1]]
    """
    num_users, num_items = seen_BI.shape
    found_BK = np.full((num_users, k), PADDING, np.int32)
    asked, width = np.arange(num_users), min(_FIRST_PLACES * k, num_items)
    while len(asked):
        seen_AW = seen_BI[:, order_I[:width]]
        enough_A = (width - np.diff(seen_AW.indptr) >= k) | (width == num_items)
        done, at_once = np.flatnonzero(enough_A), max(1, CELLS_AT_ONCE // max(1, width))
        for begin in range(0, len(done), at_once):
            some = done[begin : begin + at_once]
            unseen_DW = seen_AW[some].toarray() == 0
            slot_DW = unseen_DW.cumsum(axis=1) - 1
            row_N, at_N = np.nonzero(unseen_DW & (slot_DW < k))
            found_BK[asked[some[row_N]], slot_DW[row_N, at_N]] = order_I[at_N]
        asked, seen_BI, width = asked[~enough_A], seen_BI[~enough_A], min(2 * width, num_items)
    return found_BK


def mean_popularity(ranked_BK: Int32, popularity_I: Float64) -> Float64:
    """(B,) mean popularity of a list's items [Yin et al. 2012], NaN for an empty list.

    >>> mean_popularity(np.array([[0, 1], [1, -1]], np.int32), np.array([0.5, 0.1])).tolist()
    [0.3, 0.1]
    """
    there_BK = ranked_BK != PADDING
    total_B = np.where(there_BK, popularity_I[np.where(there_BK, ranked_BK, 0)], 0.0).sum(axis=1)
    return ratio(total_B, there_BK.sum(axis=1))


def popularity_lift(ranked_BK: Int32, histories_BI: sp.csr_matrix, popularity_I: Float64) -> Float64:
    """(B,) how much more popular a list is than its user's history: mean of the list / mean of the history - 1.

    [Abdollahpouri et al. 2020, Eq. 3], by user and not by group. NaN without a history or a list.
    """
    size_B = np.diff(histories_BI.indptr)
    own_B = ratio(histories_BI @ popularity_I, size_B)
    return ratio(mean_popularity(ranked_BK, popularity_I), own_B) - 1


def miscalibration(ranked_BK: Int32, histories_BI: sp.csr_matrix, share_IG: sp.csr_matrix) -> Float64:
    """(B,) divergence of a list's groups from those of its user's history: 0 where the list has them in the same shares.

    KL(p || 0.99 q + 0.01 p) in nats, p the shares in the history and q in the list [Steck 2018, Eq. 4 to 6]; an item of several groups
    counts for each in part. NaN where the history or the list has no item of any group.

    >>> genres = sp.csr_matrix(np.array([[1, 0], [0, 1], [1, 0]], float))
    >>> history = sp.csr_matrix(np.array([[1, 1, 0]], float))
    >>> lists = np.array([[2, 1]], np.int32)
    >>> miscalibration(lists, history, genres).tolist()
    [0.0]
    """
    taken_BG = _by_group(histories_BI, share_IG)
    listed_BG = _by_group(_listed(ranked_BK, share_IG.shape[0]), share_IG)
    found_B = np.empty(len(ranked_BK))
    at_once = max(1, CELLS_AT_ONCE // max(1, share_IG.shape[1]))
    for begin in range(0, len(ranked_BK), at_once):
        some = slice(begin, begin + at_once)
        found_B[some] = _divergence(_shares(taken_BG[some]), _shares(listed_BG[some]))
    return found_B


def _divergence(p_BG: Float64, q_BG: Float64) -> Float64:
    mixed_BG = (1 - _SMOOTHING) * q_BG + _SMOOTHING * p_BG
    with np.errstate(divide="ignore", invalid="ignore"):
        terms_BG = np.where(p_BG > 0, p_BG * np.log(p_BG / mixed_BG), 0.0)
    known_B = np.isfinite(p_BG).all(axis=1) & np.isfinite(q_BG).all(axis=1)
    return np.where(known_B, np.maximum(terms_BG.sum(axis=1), 0.0), np.nan)


def exposure(ranked_BK: Int32, share_IG: sp.csr_matrix) -> Float64:
    """(G,) the share of all attention that each group of items gets, attention being 1 / log2(place + 1) [Singh & Joachims 2018].

    >>> groups = sp.csr_matrix(np.array([[1, 0], [0, 1]], float))
    >>> exposure(np.array([[0, 1]], np.int32), groups).round(3).tolist()  # 1 and 1 / log2(3), over their sum
    [0.613, 0.387]
    """
    weight_K = 1 / np.log2(np.arange(2, ranked_BK.shape[1] + 2))
    there_BK = ranked_BK != PADDING
    weight_BK = np.broadcast_to(weight_K, ranked_BK.shape)
    attention_I = np.bincount(ranked_BK[there_BK], weight_BK[there_BK], share_IG.shape[0])
    attention_G = np.asarray(attention_I @ share_IG, np.float64)
    total = attention_G.sum()
    return attention_G / total if total else attention_G


def group_shares(groups: Sequence[Sequence[str | None]]) -> tuple[list[str], sp.csr_matrix]:
    """Names of all groups, and (I, G) how much of each item is in each: equal parts, zeros where it is in none.

    An empty word is no group, and one that an item names twice counts once, as among its traits.

    >>> names, share_IG = group_shares([["b", "a", "b"], [""]])
    >>> names, share_IG.toarray().tolist()
    (['a', 'b'], [[0.5, 0.5], [0.0, 0.0]])
    """
    words = [list(dict.fromkeys(name for name in item if name)) for item in groups]
    names = sorted({name for item in words for name in item})
    column = {name: place for place, name in enumerate(names)}
    size_I = np.array([len(item) for item in words], np.int64)
    item_N = np.repeat(np.arange(len(words)), size_I)
    group_N = np.array([column[name] for item in words for name in item], np.int64)
    parts_N = 1 / np.maximum(size_I, 1)[item_N]
    return names, sp.csr_matrix((parts_N, (item_N, group_N)), (len(words), len(names)))


def _listed(ranked_BK: Int32, num_items: int) -> sp.csr_matrix:
    there_BK: Bool = ranked_BK != PADDING
    user_N = np.repeat(np.arange(len(ranked_BK)), there_BK.sum(axis=1))
    return sp.csr_matrix((np.ones(len(user_N)), (user_N, ranked_BK[there_BK])), (len(ranked_BK), num_items))


def _by_group(has_BI: sp.csr_matrix, share_IG: sp.csr_matrix) -> Float64 | sp.csr_matrix:
    """(B, G) how many items of each group; of few groups in a third of the time, as an array."""
    return has_BI @ (share_IG.toarray() if share_IG.shape[1] <= _FEW_GROUPS else share_IG)


def _shares(count_BG: Float64 | sp.csr_matrix) -> Float64:
    dense_BG: Float64 = count_BG if isinstance(count_BG, np.ndarray) else count_BG.toarray()
    total_B1 = dense_BG.sum(axis=1, keepdims=True)
    share_BG: Float64 = np.divide(dense_BG, total_B1, out=np.full_like(dense_BG, np.nan), where=total_B1 > 0)
    return share_BG
