"""Names, for each item of a slate, the item of the user's past that speaks most for it: "because you took X".

What counts is how alike the two are by the item tower's vectors, of which the user's own vector is made. For the few items
of a slate alone: it costs one small product.

Shape letters: K items of a slate, L history, I catalogue, D dimension.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from tastemaker.types import Candidates, Int32, Query, VectorRows

NOTHING: Final = -1
"""In `Candidates.because`: no item of the history speaks for the candidate."""
MOST_HISTORY: Final = 50
"""Newest items of the history that may be named."""


def because(query: Query, slate: Candidates, vectors_ID: VectorRows) -> Candidates:
    """The slate with `because`: the row of the most similar item of the history, the newest of equals.

    `NOTHING` stands where there is no history, or where all of it points away: the similarity is not above 0.

    Args:
        query: Whose history is named, the visit included.
        slate: What is shown.
        vectors_ID: Unit vectors of the items; rows behind them have none.
    """
    return replace(slate, because=_nearest(query, slate.item_index, vectors_ID))


def _nearest(query: Query, item_index_K: Int32, vectors_ID: VectorRows) -> Int32:
    past_L = query.history_L[-MOST_HISTORY:][::-1]
    past_L = past_L[past_L < len(vectors_ID)]
    found_K = np.full(len(item_index_K), NOTHING, np.int32)
    known_K = item_index_K < len(vectors_ID)
    if not len(past_L) or not known_K.any():
        return found_K
    similarity_KL = vectors_ID[item_index_K[known_K]] @ vectors_ID[past_L].T
    best_K = similarity_KL.argmax(axis=1)
    is_for_K = similarity_KL[np.arange(len(best_K)), best_K] > 0
    found_K[known_K] = np.where(is_for_K, past_L[best_K], NOTHING)
    return found_K
