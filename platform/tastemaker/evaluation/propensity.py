"""Metrics where what was taken is not a fair sample of what is liked: each target weighs by how unlikely it was to be seen.

Shape letters: B users, K slots (best first), M targets, I catalogue.
"""

from collections.abc import Sequence

import numpy as np

from tastemaker.errors import DataError
from tastemaker.evaluation.metrics import relevance
from tastemaker.types import Float64, Int32, Int64


def popularity_propensity(count_I: Int64, power: float) -> Float64:
    """(I,) the chance of an item to be seen, up to a factor: (its count / the largest) ** ((power + 1) / 2), above 0.

    [Yang et al. 2018, Eq. 7]; power 0 is half as steep as the counts, 1 as steep. An item that nobody took counts as one that one did.

    >>> popularity_propensity(np.array([100, 25, 0]), power=0.0).tolist()
    [1.0, 0.5, 0.1]

    Raises:
        DataError: A power below 0.
    """
    if power < 0:
        raise DataError("power of popularity", value=power, limit="0 or more", mend="correct it")
    share_I = np.maximum(count_I, 1) / max(int(count_I.max(initial=1)), 1)
    chance_I: Float64 = share_I ** ((power + 1) / 2)
    return chance_I


def unbiased_recall(ranked_BK: Int32, targets: Sequence[Int32], propensity_I: Float64, k: int) -> Float64:
    """(B,) targets among the first k over all targets, each counting 1 / its propensity, self-normalised.

    [Yang et al. 2018, Eq. 6 with c(rank) = 1 up to k; Swaminathan & Joachims 2015 for the norm]. NaN without targets. With
    propensities .5 and .1 and the first found, 2 / (2 + 10):

    >>> lists, wanted = np.array([[7, 3]], np.int32), [np.array([7, 9], np.int32)]
    >>> propensity = np.full(10, 0.1)
    >>> propensity[7] = 0.5
    >>> unbiased_recall(lists, wanted, propensity, k=2).round(4).tolist()
    [0.1667]
    """
    return _weighted(ranked_BK[:, :k], targets, propensity_I, np.ones(min(k, ranked_BK.shape[1])))


def unbiased_dcg(ranked_BK: Int32, targets: Sequence[Int32], propensity_I: Float64, k: int) -> Float64:
    """(B,) the mean of 1 / log2(place + 1) over targets, 0 beyond k, each counting 1 / its propensity, self-normalised.

    As `unbiased_recall`, with the discount of DCG for c; 1 where a single target comes first.
    """
    width = min(k, ranked_BK.shape[1])
    return _weighted(ranked_BK[:, :k], targets, propensity_I, 1 / np.log2(np.arange(2, width + 2)))


def _weighted(ranked_BK: Int32, targets: Sequence[Int32], propensity_I: Float64, worth_K: Float64) -> Float64:
    if not (propensity_I > 0).all():
        raise DataError("a propensity", value=float(propensity_I.min()), limit="above 0", mend="clip it")
    weights = [1 / propensity_I[items] for items in targets]
    found_BK = relevance(ranked_BK, targets, weights)
    total_B = np.array([weight_M.sum() for weight_M in weights])
    ratio_B = np.full(len(targets), np.nan)
    np.divide(found_BK @ worth_K, total_B, out=ratio_B, where=total_B > 0)
    return ratio_B
