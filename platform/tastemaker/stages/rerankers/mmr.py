"""Variety by maximal marginal relevance: the next item is relevant and unlike those before it.

Shape letters: M head that is reordered, D dimension.
"""

import numpy as np
from pydantic import Field

from tastemaker.stages.rerankers.seen import RerankingItems, Seen, with_rest
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int64, Query


class MmrConfig(Strict):
    """Maximal marginal relevance [Carbonell and Goldstein 1998, Eq. 1]."""

    weight: float = Field(
        0.7, ge=0, le=1, description="of relevance; the rest goes to being unlike what stands before"
    )
    head: int = Field(
        50, ge=1, le=500, description="best-ranked candidates that are reordered; later ones stay"
    )
    places: int = Field(
        50, ge=1, le=500, description="first places that are filled; behind them the order stays"
    )


def mmr(query: Query, seen: Seen, items: RerankingItems, config: MmrConfig) -> Int64:
    """The order (N,) of the list with its head diversified."""
    del query
    num = min(config.head, len(seen))
    vectors_MD = items.vectors_ID[seen.rows_N[:num]]
    head_M = mmr_order(seen.relevance_N[:num], vectors_MD, config.weight, seen.keep_top, config.places)
    return with_rest(head_M, len(seen))


def mmr_order(
    relevance_M: Float32, vectors_MD: Float32, weight: float, keep_top: int, places: int | None = None
) -> Int64:
    """The greedy order (M,) of maximal marginal relevance.

    Next comes the i with the largest weight * relevance_i - (1 - weight) * max_{j before} similarity_ij
    [Carbonell and Goldstein 1998, Eq. 1]; ties go to the lower position. The first `keep_top` stay, and count as before;
    behind `places` the rest follows as it was. Similarity is the product of unit vectors, worked out for the chosen alone.

    >>> vectors = np.array([[1, 0], [0.9, 0.436], [0, 1]], np.float32)
    >>> mmr_order(np.array([1.0, 0.9, 0.6], np.float32), vectors, weight=0.5, keep_top=1).tolist()
    [0, 2, 1]
    """
    num = len(relevance_M)
    last = num if places is None else min(places, num)
    keep_top = min(max(keep_top, 1), num)
    chosen = list(range(min(keep_top, last)))
    gain_M = np.float32(weight) * relevance_M
    gain_M[:keep_top] = -np.inf
    penalty_MD = np.float32(1.0 - weight) * vectors_MD
    worst_M = (penalty_MD @ vectors_MD[:keep_top].T).max(axis=1)
    value_M, penalty_M = np.empty(num, np.float32), np.empty(num, np.float32)
    for _ in range(last - keep_top):
        np.subtract(gain_M, worst_M, out=value_M)
        best = int(value_M.argmax())
        chosen.append(best)
        gain_M[best] = -np.inf
        np.dot(penalty_MD, vectors_MD[best], out=penalty_M)
        np.maximum(worst_M, penalty_M, out=worst_M)
    return behind(chosen, num)


def behind(chosen: list[int], num: int) -> Int64:
    """The chosen places, the others of `num` behind them as they were."""
    rest_N = np.ones(num, bool)
    rest_N[chosen] = False
    return np.concatenate([np.array(chosen, np.int64), np.flatnonzero(rest_N)])
