"""Lists whose mix of categories or tags is that of the user's history, where relevance alone would show the main one only.

Shape letters: N candidates, M head that is reordered, G categories or tags, L history.
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
    p_G, share_MG = target_G[wanted], share_MG[:, wanted]
    has_M: Bool = share_MG.sum(axis=1) > 0
    num, last = len(relevance_M), min(places, len(relevance_M))
    gain_M = (1.0 - weight) * relevance_M.astype(np.float64)
    chosen: list[int] = []
    sum_G, num_has = np.zeros(len(p_G)), 0
    for place in range(last):
        best = place
        if place >= keep_top:
            mean_MG = (sum_G + share_MG) / np.maximum(num_has + has_M, 1)[:, None]
            near_MG = (1.0 - smoothing) * mean_MG + smoothing * p_G
            best = int((gain_M + weight * (np.log(near_MG) @ p_G)).argmax())  # p log p is the same for all
        chosen.append(best)
        gain_M[best] = -np.inf
        sum_G, num_has = sum_G + share_MG[best], num_has + int(has_M[best])
    return behind(chosen, num)


def divergence(target_G: Float64, share_G: Float64, smoothing: float = 0.01) -> float:
    """KL(p, q~) of a list's mix from a history's, in nats [Steck 2018, Eqs. 5 and 6]; 0 where both are alike.

    >>> round(divergence(np.array([0.5, 0.5]), np.array([1.0, 0.0])), 3)  # (ln(.5 / .995) + ln(.5 / .005)) / 2
    1.959
    """
    near_G = (1.0 - smoothing) * share_G + smoothing * target_G
    wanted = target_G > 0
    return float((target_G[wanted] * np.log(target_G[wanted] / near_G[wanted])).sum())
