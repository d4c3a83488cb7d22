"""Metrics of guesses: of ratings, of probabilities, and of scores that order what was clicked and what was not.

Shape letters: N guesses.
"""

import numpy as np

from tastemaker.errors import DataError
from tastemaker.types import Float32, Float64, Int32, Int64

_LEAST = 1e-15


def rmse(guess_N: Float32 | Float64, value_N: Float32 | Float64) -> float:
    """Root of the mean squared error; NaN without any.

    >>> rmse(np.array([3.0, 5.0]), np.array([4.0, 5.0]))  # sqrt(1 / 2)
    0.7071067811865476
    """
    return float(np.sqrt(_mean((guess_N.astype(np.float64) - value_N) ** 2)))


def mae(guess_N: Float32 | Float64, value_N: Float32 | Float64) -> float:
    """Mean absolute error; NaN without any.

    >>> mae(np.array([3.0, 5.0]), np.array([4.0, 5.0]))
    0.5
    """
    return _mean(np.abs(guess_N.astype(np.float64) - value_N))


def auc(score_N: Float32 | Float64, label_N: Int32 | Float64) -> float:
    """The chance that a positive scores above a negative, equals counting half; NaN without both.

    By the sum of the positives' mean ranks [Mann & Whitney 1947]. Here 1 of 2 pairs is in order, and one is a tie:

    >>> auc(np.array([0.9, 0.5, 0.5]), np.array([1, 1, 0]))  # (1 + .5) / 2
    0.75
    """
    positive_N = np.asarray(label_N, np.float64) > 0
    num_positive, num = int(positive_N.sum()), len(positive_N)
    if num_positive in (0, num):
        return float("nan")
    _, place_N, count = np.unique(score_N, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    above = rank[place_N[positive_N]].sum() - num_positive * (num_positive + 1) / 2
    return float(above / (num_positive * (num - num_positive)))


def gauc(group_N: Int32 | Int64, score_N: Float32 | Float64, label_N: Int32 | Float64) -> float:
    """Mean AUC within groups, such as users, by how many rows each has; groups of one label do not count [Zhou et al. 2018, Eq. 7].

    Here group 0 has AUC 1 in 2 rows and group 1 has 0 in 3:

    >>> gauc(np.array([0, 0, 1, 1, 1]), np.array([2, 1, 1, 2, 3]), np.array([1, 0, 1, 0, 0]))
    0.4
    """
    order_N = np.argsort(group_N, kind="stable")
    cuts = np.flatnonzero(np.diff(group_N[order_N])) + 1
    parts = np.split(order_N, cuts)
    each = np.array([auc(score_N[part], label_N[part]) for part in parts])
    weight = np.array([len(part) for part in parts], np.float64)
    counts = ~np.isnan(each)
    return float(np.average(each[counts], weights=weight[counts])) if counts.any() else float("nan")


def logloss(probability_N: Float32 | Float64, label_N: Int32 | Float64) -> float:
    """Mean of -log of the probability that was given to what happened; probabilities are kept 1e-15 off 0 and 1.

    >>> round(logloss(np.array([0.5, 0.25]), np.array([1, 0])), 6)  # (log 2 + log(4 / 3)) / 2
    0.490415

    Raises:
        DataError: A probability outside 0 to 1.
    """
    p_N = _probabilities(probability_N)
    return _mean(-np.where(np.asarray(label_N, np.float64) > 0, np.log(p_N), np.log1p(-p_N)))


def normalised_entropy(probability_N: Float32 | Float64, label_N: Int32 | Float64) -> float:
    """Log loss over that of who always says the base rate: below 1 something was learned [He et al. 2014, Eq. 1].

    NaN where all labels are alike.

    >>> normalised_entropy(np.array([0.5, 0.5]), np.array([1, 0]))
    1.0

    Raises:
        DataError: A probability outside 0 to 1.
    """
    rate = _mean(np.asarray(label_N, np.float64) > 0)
    if not 0 < rate < 1:
        return float("nan")
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return float(logloss(probability_N, label_N) / entropy)


def _probabilities(probability_N: Float32 | Float64) -> Float64:
    p_N = np.asarray(probability_N, np.float64)
    if len(p_N) and not ((p_N >= 0) & (p_N <= 1)).all():
        raise DataError(
            "a probability", value=f"{p_N.min():g} to {p_N.max():g}", limit="0 to 1", mend="calibrate it"
        )
    return np.clip(p_N, _LEAST, 1 - _LEAST)


def _mean(value_N: np.ndarray) -> float:
    return float(value_N.mean()) if len(value_N) else float("nan")
