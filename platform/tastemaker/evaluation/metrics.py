"""Metrics of ranked lists: per user, and of all lists together. Not the loop that makes the lists: `offline`.

Per-user metrics take `relevance_BK`: the grade of each slot of a user's list, 0 where the item is no target
(see `relevance`). A user without targets has no recall, NDCG or average precision: NaN.

Shape letters: B users, K slots (best first), M targets, I catalogue, N predictions.
"""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tastemaker.features.traits import ItemTraits
from tastemaker.types import Float32, Float64, Int32, Int64

PADDING = -1
"""Stands in `ranked_BK` where a list is shorter than K."""
CELLS_AT_ONCE: Final = 2**21
"""Of what is worked out for many users at once and thrown away: some 16 MiB."""
_PAIRS_AT_ONCE = 2**19
_FEW_TAGS, _WORD = 256, 64


def relevance(ranked_BK: Int32, targets: Sequence[Int32], grades: Sequence[Float64] | None = None) -> Float64:
    """(B, K) grade of each slot: the target's grade, 1 without `grades`, 0 for other items and padding.

    An item that a list holds twice counts at its first place only.

    >>> relevance(np.array([[7, 3, 7, -1]], np.int32), [np.array([7, 9], np.int32)]).tolist()
    [[1.0, 0.0, 0.0, 0.0]]
    """
    found_BK = np.zeros(ranked_BK.shape)
    user_M = np.repeat(np.arange(len(ranked_BK)), num_targets(targets))
    item_M = np.concatenate([*targets, np.empty(0, np.int32)])
    grade_M = np.ones(len(item_M)) if grades is None else np.concatenate([*grades, np.empty(0)])
    at_once = max(1, CELLS_AT_ONCE // max(1, ranked_BK.shape[1]))
    for begin in range(0, len(item_M), at_once):
        some = slice(begin, begin + at_once)
        is_target_MK = (ranked_BK[user_M[some]] == item_M[some, None]) & (item_M[some, None] != PADDING)
        listed_M = is_target_MK.any(axis=1)
        slot_M = is_target_MK.argmax(axis=1)
        found_BK[user_M[some][listed_M], slot_M[listed_M]] = grade_M[some][listed_M]
    return found_BK


def num_targets(targets: Sequence[Int32]) -> Int64:
    """(B,) how many each user has.

    >>> num_targets([np.array([4, 2], np.int32), np.array([], np.int32)]).tolist()
    [2, 0]
    """
    return np.fromiter(map(len, targets), np.int64, len(targets))


def recall(relevance_BK: Float64, num_targets_B: Int64, k: int) -> Float64:
    """(B,) Recall@k = targets among the first k / all targets.

    The denominator is the number of targets, also where that is more than k.

    >>> recall(np.array([[1.0, 0.0, 1.0]]), np.array([4]), k=3).tolist()  # 2 of 4
    [0.5]
    """
    return ratio((relevance_BK[:, :k] > 0).sum(axis=1), num_targets_B)


def precision(relevance_BK: Float64, num_targets_B: Int64, k: int) -> Float64:
    """(B,) Precision@k = targets among the first k / k, also where the list or the targets are fewer than k.

    >>> precision(np.array([[1.0, 0.0, 1.0]]), np.array([4]), k=2).tolist()  # 1 of 2
    [0.5]
    """
    share_B = (relevance_BK[:, :k] > 0).sum(axis=1) / k
    return np.where(num_targets_B > 0, share_B, np.nan)


def hit_rate(relevance_BK: Float64, num_targets_B: Int64, k: int) -> Float64:
    """(B,) 1 where a target is among the first k, else 0.

    >>> hit_rate(np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([1, 1]), k=2).tolist()
    [1.0, 0.0]
    """
    hit_B = (relevance_BK[:, :k] > 0).any(axis=1).astype(np.float64)
    return np.where(num_targets_B > 0, hit_B, np.nan)


def ndcg(relevance_BK: Float64, ideal_BM: Float64, k: int) -> Float64:
    """(B,) NDCG@k = DCG@k / ideal DCG@k, DCG@k = sum over places p = 1..k of (2**grade - 1) / log2(p + 1).

    [Burges et al. 2005]'s gain; with grades of 0 and 1 it is the grade itself.

    Args:
        relevance_BK: See `relevance`.
        ideal_BM: Each user's target grades in any order, padded with 0 (see `ideal_grades`).
        k: Places that count; the ideal list has min(k, targets) of them.

    >>> ndcg(np.array([[0.0, 1.0]]), np.array([[1.0]]), k=2).round(6).tolist()  # 1 / log2(3)
    [0.63093]
    """
    best_BM = -np.sort(-ideal_BM, axis=1)
    return ratio(_dcg(relevance_BK, k), _dcg(best_BM, k))


def ideal_grades(targets: Sequence[Int32], grades: Sequence[Float64] | None = None) -> Float64:
    """(B, M) grades of each user's targets, padded with 0.

    >>> ideal_grades([np.array([4, 2], np.int32), np.array([], np.int32)]).tolist()
    [[1.0, 1.0], [0.0, 0.0]]
    """
    size_B = num_targets(targets)
    ideal_BM = (np.arange(size_B.max(initial=0)) < size_B[:, None]).astype(np.float64)
    if grades is not None:
        ideal_BM[ideal_BM > 0] = np.concatenate([*grades, np.empty(0)])
    return ideal_BM


def average_precision(relevance_BK: Float64, num_targets_B: Int64, k: int) -> Float64:
    """(B,) AP@k = sum over places p = 1..k that hold a target of precision@p, divided by min(targets, k).

    Its mean over users is MAP@k. Here (1/1 + 2/3) / 2:

    >>> average_precision(np.array([[1.0, 0.0, 1.0]]), np.array([2]), k=3).round(6).tolist()
    [0.833333]
    """
    hit_BK = relevance_BK[:, :k] > 0
    precision_BK = hit_BK.cumsum(axis=1) / np.arange(1, hit_BK.shape[1] + 1)
    return ratio((precision_BK * hit_BK).sum(axis=1), np.minimum(num_targets_B, k))


def reciprocal_rank(relevance_BK: Float64, num_targets_B: Int64) -> Float64:
    """(B,) 1 / place of the first target, 0 where the list has none. Its mean is MRR (of lists of K).

    >>> reciprocal_rank(np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]), np.array([2, 2])).tolist()
    [0.5, 0.0]
    """
    hit_BK = relevance_BK > 0
    rank_B = np.where(hit_BK.any(axis=1), 1.0 / (hit_BK.argmax(axis=1) + 1), 0.0)
    return np.where(num_targets_B > 0, rank_B, np.nan)


def novelty(ranked_BK: Int32, num_users_I: Int64, num_users: int) -> Float64:
    """(B,) mean self-information of each list, in bits: -log2(p(item)), p = share of users who have the item.

    [Zhou et al. 2010]. An item that nobody has counts as one that a single user has. An empty list is NaN.
    Here (log2(8/8) + log2(8/2)) / 2:

    >>> novelty(np.array([[0, 1]], np.int32), num_users_I=np.array([8, 2]), num_users=8).tolist()
    [1.0]
    """
    bits_I = np.log2(num_users) - np.log2(np.maximum(num_users_I, 1))
    there_BK = ranked_BK != PADDING
    bits_BK = np.where(there_BK, bits_I[np.where(there_BK, ranked_BK, 0)], 0.0)
    return ratio(bits_BK.sum(axis=1), there_BK.sum(axis=1))


def coverage(ranked_BK: Int32, num_items: int) -> float:
    """Share of the catalogue that is in at least one list.

    >>> coverage(np.array([[0, 1], [1, -1]], np.int32), num_items=4)
    0.5
    """
    return len(np.unique(ranked_BK[ranked_BK != PADDING])) / num_items


def intra_list_diversity(ranked_BK: Int32, similarity: Callable[[Int32, Int32], Float64]) -> Float64:
    """(B,) how unlike a list's items are: 1 - the mean similarity of its pairs; NaN for lists of fewer than two items.

    [Ziegler et al. 2005]'s intra-list similarity, taken from 1.

    Args:
        ranked_BK: Lists.
        similarity: Gives those (P,) of P pairs of items.

    >>> alike = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 0, 1]])
    >>> lists = np.array([[0, 1, 2], [2, 0, -1]], np.int32)
    >>> intra_list_diversity(lists, lambda one, other: alike[one, other]).round(3).tolist()  # 1 - (.5 + 0 + 0) / 3
    [0.833, 1.0]
    """
    place_P, other_P = np.triu_indices(ranked_BK.shape[1], 1)
    at_once = max(1, _PAIRS_AT_ONCE // max(1, len(place_P)))
    found_B = np.full(len(ranked_BK), np.nan)
    for begin in range(0, len(ranked_BK), at_once):
        block_BK = ranked_BK[begin : begin + at_once]
        one_BP, other_BP = block_BK[:, place_P], block_BK[:, other_P]
        there_BP = (one_BP != PADDING) & (other_BP != PADDING)
        alike_BP = np.zeros(there_BP.shape)
        alike_BP[there_BP] = similarity(one_BP[there_BP], other_BP[there_BP])
        found_B[begin : begin + at_once] = 1.0 - ratio(alike_BP.sum(axis=1), there_BP.sum(axis=1))
    return found_B


def tag_similarity(traits: ItemTraits) -> Callable[[Int32, Int32], Float64]:
    """Similarities (P,) of pairs of items by their tags: shared ones over all that either has [Jaccard 1901], 0 where none has any."""
    tags = traits.tags
    has_IG = sp.csr_matrix(  # of copies: `sum_duplicates` works in place
        (np.ones(len(tags.code_V)), tags.code_V.copy(), tags.offsets_I1.copy()),
        (len(tags), max(1, len(tags.codes))),
    )
    has_IG.sum_duplicates()
    has_IG.data[:] = 1.0
    size_I = np.diff(has_IG.indptr)
    # Bits of few tags are compared in a tenth of the time; of many there would be too many words.
    words = _words(has_IG) if has_IG.shape[1] <= _FEW_TAGS else None

    def similarity(one_P: Int32, other_P: Int32) -> Float64:
        if words is None:
            shared_P = np.asarray(has_IG[one_P].multiply(has_IG[other_P]).sum(axis=1), np.float64).ravel()
        else:
            shared_P = np.zeros(len(one_P))
            for word_I in words:
                shared_P += np.bitwise_count(word_I[one_P] & word_I[other_P])
        either_P = size_I[one_P] + size_I[other_P] - shared_P
        alike_P: Float64 = np.divide(shared_P, either_P, out=np.zeros_like(shared_P), where=either_P > 0)
        return alike_P

    return similarity


def _words(has_IG: sp.csr_matrix) -> list[npt.NDArray[np.uint64]]:
    """Each item's tags as bits (I,), 64 of them in a word."""
    bit_W = np.uint64(1) << np.arange(_WORD, dtype=np.uint64)
    starts = range(0, has_IG.shape[1], _WORD)
    parts = [has_IG[:, begin : begin + _WORD].astype(np.uint64) for begin in starts]
    return [part_IW @ bit_W[: part_IW.shape[1]] for part_IW in parts]


def num_categories(ranked_BK: Int32, category_I: Int32) -> Float64:
    """(B,) how many categories a list has; items without one (below 0) have none.

    >>> num_categories(np.array([[0, 1, 2]], np.int32), np.array([4, 4, -1])).tolist()
    [1.0]
    """
    lists = (category_I[ranked_K[ranked_K != PADDING]] for ranked_K in ranked_BK)
    return np.array([len(np.unique(found[found >= 0])) for found in lists], np.float64)


def gini(ranked_BK: Int32, num_items: int) -> float:
    """Inequality of how often items are listed: 0 if all I items alike, (I - 1) / I if one item takes all.

    Over the ascending counts c of all I items, unlisted ones included:
    sum over i = 1..I of (2i - I - 1) * c_i / (I * sum of c). NaN without any slot.

    >>> gini(np.array([[0], [0], [1]], np.int32), num_items=2)  # (-1 * 1 + 1 * 2) / (2 * 3)
    0.16666666666666666
    """
    count_I = np.sort(np.bincount(ranked_BK[ranked_BK != PADDING], minlength=num_items))
    if not count_I.sum():
        return float("nan")
    place_I = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float((place_I * count_I).sum() / (num_items * count_I.sum()))


def expected_calibration_error(probability_N: Float32, label_N: Float32, num_bins: int = 15) -> float:
    """How far probabilities are from what happened: the mean over bins, by size, of |mean probability - mean label|.

    Expected calibration error [Naeini et al. 2015] over bins of equal mass, of ascending probabilities; equal ones stay in
    one bin, so that a constant's error is its distance from the base rate. NaN without any. Here, in two bins,
    |0.25 - 0.5| / 2 + |0.75 - 1| / 2:

    >>> expected_calibration_error(np.array([0.2, 0.3, 0.7, 0.8]), np.array([0, 1, 1, 1]), num_bins=2)
    0.25
    """
    if not len(probability_N):
        return float("nan")
    sorted_N = np.sort(probability_N)
    bin_N = np.searchsorted(sorted_N, probability_N) * num_bins // len(sorted_N)
    gap_N = probability_N.astype(np.float64) - label_N
    return float(np.abs(np.bincount(bin_N, gap_N)).sum() / len(gap_N))


def _dcg(grade_BK: Float64, k: int) -> Float64:
    top_BK = grade_BK[:, :k]
    dcg_B: Float64 = ((2.0**top_BK - 1) / np.log2(np.arange(2, top_BK.shape[1] + 2))).sum(axis=1)
    return dcg_B


def ratio(numerator_B: Int64 | Float64, denominator_B: Int64 | Float64) -> Float64:
    """(B,) their quotient, NaN where the denominator is 0.

    >>> ratio(np.array([1.0, 0.0]), np.array([4, 0])).tolist()
    [0.25, nan]
    """
    ratio_B = np.full(len(numerator_B), np.nan)
    np.divide(numerator_B, denominator_B, out=ratio_B, where=denominator_B > 0)
    return ratio_B
