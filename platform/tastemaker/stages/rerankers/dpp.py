"""Variety by a determinantal point process: the list that is relevant and whose vectors span the largest volume.

Shape letters: M head that is reordered, D dimension, P places.
"""

import numpy as np
from pydantic import Field

from tastemaker.stages.rerankers.mmr import behind
from tastemaker.stages.rerankers.seen import RerankingItems, Seen, with_rest
from tastemaker.strict import Strict
from tastemaker.types import Float32, Int64, Query

_LEAST_VOLUME = 1e-6


class DppConfig(Strict):
    """Greedy MAP of a determinantal point process [Chen et al. 2018, Alg. 1]."""

    weight: float = Field(
        0.7, ge=0, le=1, description="of relevance; the rest goes to the volume of the list"
    )
    head: int = Field(
        50, ge=1, le=500, description="best-ranked candidates that are reordered; later ones stay"
    )
    places: int = Field(
        50, ge=1, le=500, description="first places that are filled; behind them the order stays"
    )


def dpp(query: Query, seen: Seen, items: RerankingItems, config: DppConfig) -> Int64:
    """The order (N,) of the list with its head diversified."""
    del query
    num = min(config.head, len(seen))
    vectors_MD = items.vectors_ID[seen.rows_N[:num]]
    head_M = dpp_order(seen.relevance_N[:num], vectors_MD, config.weight, seen.keep_top, config.places)
    return with_rest(head_M, len(seen))


def dpp_order(
    relevance_M: Float32, vectors_MD: Float32, weight: float, keep_top: int, places: int | None = None
) -> Int64:
    """The greedy order (M,): each next i maximises weight * sum of relevance + (1 - weight) * log det S of the chosen.

    S_ij = (1 + <f_i, f_j>) / 2 over unit vectors [Chen et al. 2018, Section 4, which gives the kernel of this objective].
    The determinant's growth d_i**2 is kept by one more row of the Cholesky factor for each place [Alg. 1]; relevance stays
    outside of it, which chooses the same items and keeps the factor well scaled. The first `keep_top` stay and are chosen;
    an item that adds no volume (below 1e-6) is chosen by relevance behind all others. Ties go to the lower position.

    >>> vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)  # the second is the first once more: no volume
    >>> dpp_order(np.array([1.0, 0.9, 0.1], np.float32), vectors, weight=0.7, keep_top=1).tolist()
    [0, 2, 1]
    """
    num = len(relevance_M)
    last = num if places is None else min(places, num)
    keep_top = min(keep_top, last)
    factor_PM = np.zeros((last, num), np.float64)
    volume_M = np.ones(num, np.float64)
    gain_M = weight * relevance_M.astype(np.float64)
    chosen: list[int] = []
    for place in range(last):
        best = place if place < keep_top else _best(gain_M, volume_M, weight)
        if best < 0:
            break
        chosen.append(best)
        gain_M[best] = -np.inf
        if volume_M[best] > _LEAST_VOLUME:
            kernel_M = (1.0 + vectors_MD @ vectors_MD[best]) / 2.0
            row_M = kernel_M - factor_PM[:place, best] @ factor_PM[:place]
            row_M /= np.sqrt(volume_M[best])
            factor_PM[place] = row_M
            volume_M -= row_M * row_M
    return behind(chosen, num)


def _best(gain_M: np.ndarray, volume_M: np.ndarray, weight: float) -> int:
    """The next; -1 where no item that is left adds volume."""
    if weight == 1.0:
        return int(gain_M.argmax())
    value_M = gain_M + (1.0 - weight) * np.log(np.maximum(volume_M, 1e-30))
    value_M[volume_M <= _LEAST_VOLUME] = -np.inf
    best = int(value_M.argmax())
    return best if np.isfinite(value_M[best]) else -1
