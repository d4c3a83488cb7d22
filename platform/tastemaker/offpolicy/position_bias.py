"""Examination of slots, estimated from lists whose order was drawn by luck, or by EM where it was not.

By luck: of two neighbours, which came first was drawn with a known probability. Weighted by its inverse, both slots see the
same two items, and the ratio of their clicks is that of their examination: swaps as in FairPairs [Radlinski & Joachims 2006],
of any drawn list. No belief about interest is needed. By EM [Wang et al. 2018, regression-EM]: interest is foretold from
features, which must not give the slot away.

Shape letters: S lists, K slots, N shown items, F features, C clusters.
"""

from typing import Final

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.examination import Examination
from tastemaker.offpolicy.reward_model import logistic
from tastemaker.types import Bool, Float64, Int64

_Z95: Final = 1.959964
_LEAST_ORDER: Final = 1e-3
"""An order that is drawn more seldom is left out together with its reverse: its weight would decide alone."""
LEAST_CLICKS: Final = 20
NUM_ITERATIONS: Final = 40
_MOST_ROWS: Final = 200_000
_ENDS: Final = 1e-6


def order_probability(propensity_SK: Float64) -> Float64:
    """For each two neighbours, the probability that they came in the logged order, given which two and what is above, (S, K - 1).

    With weights a and b of the two among those left, of sum 1: p of the first is a, p of the second b / (1 - a). The logged
    order has a b / (1 - a), the reverse b a / (1 - b). It holds for Plackett-Luce and for shuffled windows alike. Where
    the first was certain there was no luck: 1.

    >>> order_probability(np.array([[0.5, 0.5, 1.0]])).round(6).tolist()  # .5 and .25: 2 / (2 + 4/3), then the last two: even
    [[0.6, 0.5]]
    >>> order_probability(np.array([[1 / 3, 1 / 2, 1.0]])).round(6).tolist()
    [[0.5, 0.5]]
    """
    first, second = propensity_SK[:, :-1], propensity_SK[:, 1:] * (1 - propensity_SK[:, :-1])
    with np.errstate(divide="ignore", invalid="ignore"):
        logged, reverse = 1 / (1 - first), 1 / (1 - second)
        found = logged / (logged + reverse)
    return np.where(first >= 1 - _ENDS, 1.0, found)


def without_usual(propensity_SK: Float64, share: float) -> Float64:
    """Conditional propensities under sampling alone, of lists that were logged under a mixture with a usual, certain order.

    P(first n) = (1 - share) [usual so far] + share L(first n): who knows the share knows L. Behind the slot that left the usual
    order the two are the same. They hold for the lists that sampling drew (`luck.is_sampled`), not for those that came out alike.

    Args:
        propensity_SK: As `stages.rerankers.luck` logs it where nothing is shuffled.
        share: Of requests that are sampled: below 1/2, where a likely list can only be the usual one; or 1, all.

    Raises:
        ExperimentError: Another share.

    >>> without_usual(np.array([[0.9, 0.05 / 0.9]]), share=0.2).round(6).tolist()  # see `luck.mixed`: .5, then .25 / .5
    [[0.5, 0.5]]
    """
    if share == 1:
        return propensity_SK
    if not 0 < share < 0.5:
        raise ExperimentError("share of sampled requests", value=share, limit="below 0.5, or 1")
    joint_SK = propensity_SK.cumprod(axis=1)
    usual_SK = joint_SK >= 0.5  # at least 1 - share, or at most share
    sampled_SK = np.clip((joint_SK - (1 - share) * usual_SK) / share, 1e-300, 1.0)
    before_SK = np.hstack([np.ones((len(joint_SK), 1)), sampled_SK[:, :-1]])
    found_SK: Float64 = np.clip(sampled_SK / before_SK, 1e-300, 1.0)
    return found_SK


def examination_by_luck(
    propensity_SK: Float64, click_SK: Float64, filled_SK: Bool, cluster_S: Int64
) -> Examination:
    """Examination down to the last slot that luck and clicks tell of.

    Of slots k and k + 1 the ratio of clicks, each weighted by 1 / P(this order of the two); products of ratios lead down from the
    first slot. The interval is of the logarithm, by the delta method, between clusters.

    Args:
        propensity_SK: Conditional probability of each slot's item, see `LoggedLists`; drawn by Plackett-Luce or shuffled
            windows, see `without_usual` for what is mixed.
        click_SK: 1 where the slot was clicked.
        filled_SK: Which slots a list has.
        cluster_S: Users, numbered from 0.

    Raises:
        ExperimentError: Not even the second slot can be compared with the first.
    """
    order_SP = order_probability(np.where(filled_SK, propensity_SK, 1.0))
    usable_SP = filled_SK[:, 1:] & (order_SP >= _LEAST_ORDER) & (order_SP <= 1 - _LEAST_ORDER)
    weight_SP = np.where(usable_SP, 1 / order_SP, 0.0)
    upper_SP, lower_SP = weight_SP * click_SK[:, :-1], weight_SP * click_SK[:, 1:]
    enough_P = np.minimum(
        (usable_SP * click_SK[:, :-1]).sum(axis=0), (usable_SP * click_SK[:, 1:]).sum(axis=0)
    ) >= LEAST_CLICKS  # fmt: skip
    depth = len(enough_P) if enough_P.all() else int(enough_P.argmin())
    if not depth:
        raise ExperimentError(
            "clicks of the first two slots where luck decided their order", value=int((usable_SP[:, :1] * click_SK[:, :2].sum(axis=1, keepdims=True)).sum()),
            limit=f"at least {LEAST_CLICKS} in each", mend="let more traffic explore (`reranking.shuffle` with keep_top 0, or `reranking.sampling`)",
        )  # fmt: skip
    upper_P, lower_P = upper_SP[:, :depth].sum(axis=0), lower_SP[:, :depth].sum(axis=0)
    log_K = np.concatenate([[0.0], np.log(lower_P / upper_P).cumsum()])
    influence_SP = (lower_SP[:, :depth] / lower_P - upper_SP[:, :depth] / upper_P).cumsum(axis=1)
    of_cluster = np.stack([np.bincount(cluster_S, column) for column in influence_SP.T], axis=1)
    error_K = np.concatenate([[0.0], np.sqrt((of_cluster**2).sum(axis=0))])
    probability_K = np.exp(log_K)
    return Examination(
        probability_K,
        probability_K * np.exp(-_Z95 * error_K),
        probability_K * np.exp(_Z95 * error_K),
        "randomised",
    )


def examination_by_em(
    slot_N: Int64,
    click_N: Float64,
    feature_NF: Float64,
    *,
    num_iterations: int = NUM_ITERATIONS,
    penalty: float = 1.0,
    seed: int = 0,
) -> Examination:
    """Examination by regression-EM [Wang et al. 2018, Sec. 4].

    Expectation: of what was not clicked, P(looked at) = e (1 - g) / (1 - e g) and P(of interest) = g (1 - e) / (1 - e g);
    both are 1 of what was. Maximisation: e of a slot is its mean P(looked at), g a logistic regression of P(of interest). It
    departs from the paper in that the regression has these probabilities for labels instead of drawing labels by them.
    It has no interval. Where features give the slot away (such as a score that lists were sorted by), it cannot tell the two apart.

    Args:
        slot_N: Of each shown item, from 1.
        click_N: 1 where it was clicked.
        feature_NF: What interest is foretold from, on any scale.
        num_iterations: Of the two steps.
        penalty: See `reward_model.logistic`.
        seed: Draws which rows are looked at where there are very many.

    Raises:
        ExperimentError: No slots are known, there is one slot only, or there are no clicks.
    """
    rows = np.flatnonzero(slot_N > 0)
    if len(rows) > _MOST_ROWS:
        rows = np.random.default_rng([seed, 2]).choice(rows, _MOST_ROWS, replace=False)
    slot_N, click_N, feature_NF = slot_N[rows] - 1, click_N[rows], feature_NF[rows]
    counts_K = np.bincount(slot_N) if len(slot_N) else np.zeros(0, np.int64)
    if (counts_K > 0).sum() < 2 or not click_N.any():
        raise ExperimentError(
            "shown items with slots and clicks", value=f"{len(rows)} in {(counts_K > 0).sum()} slots, {int(click_N.sum())} clicked",
            limit="two slots and a click at least", mend="import impressions with positions",
        )  # fmt: skip
    scaled_NF = _standardised(feature_NF)
    rate_K = _by_slot(click_N, slot_N, counts_K)
    examined_K = np.clip(rate_K / rate_K.max(), 0.01, 1 - 1e-3)
    interest_N = np.full(len(slot_N), np.clip(rate_K.max(), 0.01, 0.5))
    for _ in range(num_iterations):
        examined_N = examined_K[slot_N]
        neither_N = 1 - examined_N * interest_N
        looked_N = np.where(click_N > 0, 1.0, examined_N * (1 - interest_N) / neither_N)
        wanted_N = np.where(click_N > 0, 1.0, interest_N * (1 - examined_N) / neither_N)
        examined_K = np.clip(_by_slot(looked_N, slot_N, counts_K), 1e-4, 1 - 1e-4)
        interest_N = np.clip(logistic(scaled_NF, wanted_N, penalty)(scaled_NF), 1e-6, 1 - 1e-6)
    unknown_K = np.full(len(examined_K), np.nan)
    return Examination(examined_K / examined_K[0], unknown_K, unknown_K, "em")


def _by_slot(value_N: Float64, slot_N: Int64, counts_K: Int64) -> Float64:
    """Mean of each slot; a slot that nothing was shown in has that of the one above."""
    mean_K: Float64 = np.bincount(slot_N, value_N) / np.maximum(counts_K, 1)
    known = np.flatnonzero(counts_K > 0)
    above_K = known[np.maximum(np.searchsorted(known, np.arange(len(counts_K)), side="right") - 1, 0)]
    return mean_K[above_K]


def _standardised(feature_NF: Float64) -> Float64:
    """Mean 0 and deviation 1; NaN is 0 then."""
    with np.errstate(invalid="ignore"):
        mean_F, deviation_F = np.nanmean(feature_NF, axis=0), np.nanstd(feature_NF, axis=0)
    scaled_NF: Float64 = np.nan_to_num((feature_NF - mean_F) / np.where(deviation_F > 0, deviation_F, 1.0))
    return scaled_NF
