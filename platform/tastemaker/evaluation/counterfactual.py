"""Metrics of what would have been found relevant, had all been seen: from targets that were seen with known, uneven probabilities.

What users took is missing not at random: popular items and upper slots are seen more. A target that was seen with probability p
stands for 1 / p of its kind [Schnabel et al. 2016; Yang et al. 2018]. Propensities are given: of slots by
`tastemaker position-bias`, of items by whoever knows how they were shown, or guessed from what is popular (`models.item_propensities`). All metrics are per user, as in `metrics`.

Plain inverse propensity scores (`ips_…`) are unbiased where the propensities are right, nothing is clipped and the number of
relevant items is known. Where it is not, it is the sum of the weights on average, and `snips_…` divide by that: consistent over many
targets, within the metric's range, and biased for a user with few. `pooled` divides over all users together instead.

Shape letters: B users, K slots (best first), M targets, N predictions, I catalogue.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tastemaker.errors import DataError
from tastemaker.evaluation.metrics import ratio, relevance
from tastemaker.types import Float64, Int32

LEAST: Final = 0.01
"""Propensities below this count as this: no target stands for more than 100. Clipping makes sums too small, and steadier."""


def inverse_propensities(propensity: Float64, least: float = LEAST) -> Float64:
    """1 / max(propensity, least), of any shape.

    >>> inverse_propensities(np.array([0.5, 0.001]), least=0.1).tolist()
    [2.0, 10.0]

    Raises:
        DataError: A propensity is none, or `least` is.
    """
    if not 0 < least <= 1:
        raise DataError("least propensity", value=least, limit="above 0, at most 1")
    if propensity.size and not (propensity.min() > 0 and propensity.max() <= 1):  # NaN fails both
        wrong = propensity[~((propensity > 0) & (propensity <= 1))]
        raise DataError("a propensity", value=float(wrong[0]), limit="above 0, at most 1")
    weight: Float64 = 1.0 / np.maximum(propensity, least)
    return weight


def weighted_hits(
    ranked_BK: Int32, targets: Sequence[Int32], propensities: Sequence[Float64], least: float = LEAST
) -> tuple[Float64, Float64]:
    """Weights of the targets in the slots of each list (B, K), 0 elsewhere, and of all targets of each user (B,).

    Args:
        ranked_BK: Lists, see `metrics`.
        targets: What each user was seen to take.
        propensities: With which probability each of them would be seen, given that it is relevant.
        least: See `LEAST`.

    >>> hits_BK, all_B = weighted_hits(np.array([[7, 3]], np.int32), [np.array([3, 9], np.int32)], [np.array([0.5, 0.25])])
    >>> hits_BK.tolist(), all_B.tolist()
    ([[0.0, 2.0]], [6.0])

    Raises:
        DataError: A propensity is none.
    """
    weights = [inverse_propensities(one, least) for one in propensities]
    return relevance(ranked_BK, targets, weights), np.array([one.sum() for one in weights])


def ips_precision(hits_BK: Float64, k: int) -> Float64:
    """(B,) Weights of the hits among the first k, over k.

    >>> ips_precision(np.array([[0.0, 2.0]]), k=2).tolist()
    [1.0]
    """
    found_B: Float64 = hits_BK[:, :k].sum(axis=1) / k
    return found_B


def ips_recall(hits_BK: Float64, num_relevant_B: Float64, k: int) -> Float64:
    """(B,) Weights of the hits among the first k, over the number of relevant items, seen or not; NaN where there are none.

    >>> ips_recall(np.array([[0.0, 2.0]]), np.array([8.0]), k=2).tolist()
    [0.25]
    """
    return ratio(hits_BK[:, :k].sum(axis=1), num_relevant_B)


def snips_recall(hits_BK: Float64, weight_B: Float64, k: int) -> Float64:
    """(B,) Weights of the hits among the first k, over those of all targets [Yang et al. 2018].

    >>> snips_recall(np.array([[0.0, 2.0]]), np.array([6.0]), k=2).round(4).tolist()
    [0.3333]
    """
    return ratio(hits_BK[:, :k].sum(axis=1), weight_B)


def ips_dcg(hits_BK: Float64, k: int) -> Float64:
    """(B,) Sum over the first k places p of the hit's weight / log2(p + 1).

    >>> ips_dcg(np.array([[0.0, 2.0]]), k=2).round(4).tolist()  # 2 / log2(3)
    [1.2619]
    """
    head_BK = hits_BK[:, :k]
    found_B: Float64 = head_BK @ _discount(head_BK.shape[1])
    return found_B


def snips_dcg(hits_BK: Float64, weight_B: Float64, k: int) -> Float64:
    """(B,) `ips_dcg` over the weights of all targets [Yang et al. 2018, Eq. 6]; 1 where a single target comes first.

    >>> snips_dcg(np.array([[0.0, 2.0]]), np.array([6.0]), k=2).round(4).tolist()  # 1.2619 / 6
    [0.2103]
    """
    return ratio(ips_dcg(hits_BK, k), weight_B)


def ips_ndcg(hits_BK: Float64, num_relevant_B: Float64, k: int) -> Float64:
    """(B,) `ips_dcg` over that of the best list, which has min(k, relevant items) hits; NaN where there are none.

    >>> ips_ndcg(np.array([[0.0, 2.0]]), np.array([2.0]), k=2).round(4).tolist()  # 1.2619 / (1 + .6309)
    [0.7737]
    """
    return ratio(ips_dcg(hits_BK, k), ideal_dcg(num_relevant_B, k))


def snips_ndcg(hits_BK: Float64, weight_B: Float64, k: int) -> Float64:
    """(B,) The same with the targets' weights for the number of relevant items, at most 1.

    A user's few hits may weigh more than the best list that their weights allow for: such a list counts as the best.

    >>> snips_ndcg(np.array([[0.0, 2.0]]), np.array([2.0]), k=2).round(4).tolist()
    [0.7737]
    """
    return np.minimum(ratio(ips_dcg(hits_BK, k), ideal_dcg(weight_B, k)), 1.0)


def ideal_dcg(num_relevant_B: Float64, k: int) -> Float64:
    """(B,) DCG@k of a list that begins with all relevant items; of part of an item, that part of what the item adds.

    >>> ideal_dcg(np.array([1.0, 1.5, 9.0]), k=2).round(4).tolist()
    [1.0, 1.3155, 1.6309]
    """
    filled_BK = np.clip(num_relevant_B[:, None] - np.arange(k), 0.0, 1.0)
    found_B: Float64 = filled_BK @ _discount(k)
    return found_B


def pooled(numerator_B: Float64, denominator_B: Float64) -> float:
    """Sum over users of one over that of the other, NaN without any: every target counts alike, not every user.

    With `ips_recall`'s numerator and the users' weights it is self-normalised over all targets together.

    >>> pooled(np.array([2.0, 0.0]), np.array([6.0, 2.0]))
    0.25
    """
    total = float(denominator_B.sum())
    return float(numerator_B.sum()) / total if total else float("nan")


def ips_error(error_N: Float64, propensity_N: Float64, num_pairs: int, least: float = LEAST) -> float:
    """Mean error over all pairs of user and item, from those whose rating was seen [Schnabel et al. 2016].

    Args:
        error_N: Of each seen rating: squared or absolute.
        propensity_N: With which probability each was seen.
        num_pairs: Pairs, seen or not.
        least: See `LEAST`.

    >>> ips_error(np.array([1.0, 4.0]), np.array([0.5, 0.25]), num_pairs=6)  # (2 + 16) / 6
    3.0

    Raises:
        DataError: A propensity is none.
    """
    return float(error_N @ inverse_propensities(propensity_N, least)) / num_pairs


def snips_error(error_N: Float64, propensity_N: Float64, least: float = LEAST) -> float:
    """The same over the sum of weights, which needs no number of pairs [Schnabel et al. 2016]; NaN without any.

    >>> snips_error(np.array([1.0, 4.0]), np.array([0.5, 0.25]))  # (2 + 16) / (2 + 4)
    3.0

    Raises:
        DataError: A propensity is none.
    """
    weight_N = inverse_propensities(propensity_N, least)
    return pooled(error_N * weight_N, weight_N)


def _discount(k: int) -> Float64:
    found_K: Float64 = 1.0 / np.log2(np.arange(2, k + 2))
    return found_K
