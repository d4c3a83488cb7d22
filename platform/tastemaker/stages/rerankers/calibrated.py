"""Lists whose mix of categories or tags is that of the user's history, where relevance alone would show the main one only.

Shape letters: N candidates, M head that is reordered, G categories or tags, V those of all items of the head, L history.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from tastemaker.features.columns import share_of_history
from tastemaker.stages.rerankers.mmr import behind
from tastemaker.stages.rerankers.seen import RerankingItems, Seen, with_rest
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float32, Float64, Int32, Int64, Query


class CalibratedConfig(Strict):
    """Calibrated recommendations [Steck 2018, Eqs. 2 to 7]."""

    by: Literal["category", "tags"] = Field("category", description="what the mix is of")
    weight: float = Field(0.3, ge=0, le=1, description="of the mix (lambda); the rest goes to relevance")
    smoothing: float = Field(
        0.01,
        gt=0,
        lt=1,
        description="of the list's mix towards the history's (alpha), so that it is nowhere 0",
    )
    half_life: float = Field(20.0, gt=0, description="items back in the history where weight is half")
    head: int = Field(50, ge=1, le=500, description="best-ranked candidates that are reordered")
    places: int = Field(
        50, ge=1, le=500, description="first places that are filled; behind them the order stays"
    )


def calibrated(query: Query, seen: Seen, items: RerankingItems, config: CalibratedConfig) -> Int64:
    """The order (N,) of the list with the mix of its head calibrated; as it is for a history without categories."""
    num = min(config.head, len(seen))
    rows = np.concatenate([query.history_L, seen.rows_N[:num]])
    share_XG = shares(rows, items, config.by)
    weight_L = share_of_history(len(query.history_L), config.half_life).astype(np.float64)
    past_LG, share_MG = np.split(share_XG, [len(query.history_L)])
    target_G = weight_L @ past_LG
    if not target_G.sum():
        return np.arange(len(seen))
    head_M = calibrated_order(
        seen.relevance_N[:num],
        share_MG,
        target_G / target_G.sum(),
        config.weight,
        keep_top=seen.keep_top,
        places=config.places,
        smoothing=config.smoothing,
    )
    return with_rest(head_M, len(seen))


def shares(rows: Int32, items: RerankingItems, by: Literal["category", "tags"]) -> Float64:
    """How each item is spread over the categories or tags that any of them has (rows, G); zeros where it has none."""
    if by == "tags" and items.traits is not None:
        code_V, lengths = items.traits.tags.at(rows)
    else:
        code = items.category_I[rows] if by == "category" else np.full(len(rows), -1, np.int32)
        code_V, lengths = code[code >= 0], (code >= 0).astype(np.int64)
    known, column_V = np.unique(code_V, return_inverse=True)
    share_XG = np.zeros((len(rows), len(known)))
    np.add.at(share_XG, (np.repeat(np.arange(len(rows)), lengths), column_V), 1.0)
    share_XG /= np.maximum(share_XG.sum(axis=1, keepdims=True), 1)
    return share_XG


def calibrated_order(
    relevance_M: Float32,
    share_MG: Float64,
    target_G: Float64,
    weight: float,
    *,
    keep_top: int,
    places: int,
    smoothing: float,
) -> Int64:
    """The greedy order (M,): next comes the i with the largest (1 - weight) * relevance_i - weight * KL(p, q~ with i).

    p is `target_G`, q the mean share of the chosen that have any, q~ = (1 - smoothing) * q + smoothing * p, and KL the sum
    of p_g * log(p_g / q~_g) [Steck 2018, Eqs. 5 to 7]. Departure: places weigh alike in q. The first `keep_top` stay and are
    chosen; ties go to the lower position.

    >>> order = dict(weight=0.5, keep_top=1, places=3, smoothing=0.01)
    >>> share = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # half of the history is of the second kind
    >>> calibrated_order(np.array([1.0, 0.9, 0.1], np.float32), share, np.array([0.5, 0.5]), **order).tolist()
    [0, 2, 1]
    """
    wanted = target_G > 0
    mix = _Mix(target_G[wanted], share_MG[:, wanted], smoothing, weight)
    num, last = len(relevance_M), min(places, len(relevance_M))
    gain_M = (1.0 - weight) * relevance_M.astype(np.float64)
    chosen: list[int] = []
    for place in range(last):
        best = place if place < keep_top else int((gain_M + mix.worth_of_each()).argmax())
        chosen.append(best)
        gain_M[best] = -np.inf
        mix.take(best)
    return behind(chosen, num)


class _Mix:
    """The mix of the items chosen so far, and how near each of the others would bring it to the target.

    An item changes the shares of its own few groups alone, so only those (V) are looked at.
    """

    def __init__(self, p_G: Float64, share_MG: Float64, smoothing: float, weight: float) -> None:
        self._p_G, self._share_MG, self._rest = weight * p_G, share_MG, 1.0 - smoothing
        self._least_G = smoothing * p_G
        self._item_V, self._group_V = np.nonzero(share_MG)
        self._share_V, self._p_V = share_MG[self._item_V, self._group_V], self._p_G[self._group_V]
        has_M: Bool = np.bincount(self._item_V, minlength=len(share_MG)) > 0
        self._lacks, self._has_M = np.flatnonzero(~has_M), has_M.tolist()
        self._is_one_each = len(self._item_V) == len(has_M) and not len(self._lacks)
        self._sum_G, self._num = np.zeros(len(p_G)), 0

    def worth_of_each(self) -> Float64:
        """Of each item (M,) the weighted sum of p_g * log q~_g with it, less what is the same for all."""
        part = self._rest / (self._num + 1)
        near_G = part * self._sum_G + self._least_G
        worth_V: Float64 = self._p_V * np.log1p(part * self._share_V / near_G[self._group_V])
        if self._is_one_each:
            return worth_V
        worth_M = np.bincount(self._item_V, worth_V, len(self._has_M)).astype(np.float64, copy=False)
        if len(self._lacks):  # the mix stays what it is
            as_is_G = self._rest / max(self._num, 1) * self._sum_G + self._least_G
            worth_M[self._lacks] = self._p_G @ np.log(as_is_G / near_G)
        return worth_M

    def take(self, item: int) -> None:
        """Adds an item to the chosen."""
        self._sum_G += self._share_MG[item]
        self._num += self._has_M[item]


def divergence(target_G: Float64, share_G: Float64, smoothing: float = 0.01) -> float:
    """KL(p, q~) of a list's mix from a history's, in nats [Steck 2018, Eqs. 5 and 6]; 0 where both are alike.

    >>> round(divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])), 3)  # (ln(.5 / .995) + ln(.5 / .005)) / 2
    1.959
    """
    near_G = (1.0 - smoothing) * share_G + smoothing * target_G
    wanted = target_G > 0
    return float((target_G[wanted] * np.log(target_G[wanted] / near_G[wanted])).sum())
