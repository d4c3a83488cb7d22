"""How often new items stand in lists beside known ones, and the factor of their scores at which they do so as often as is wanted.

A new item's score is what is expected of its like, and expectations vary less than what came true of known items (law of total
variance): the best of all are known ones, even where new items are taken as often.

Shape letters: B askers, K slots, H new items.
"""

from typing import Final

import numpy as np

from tastemaker.types import Float32

SLOTS: Final = 20
"""Length of the lists that are looked at."""
_BOUNDS: Final = (0.25, 8.0)
_HALVINGS: Final = 20


def exposure(known_BK: Float32, new_BH: Float32, num_known: int, scale: float = 1.0) -> float:
    """How often a new item stands in a list, as a multiple of how often a known one does.

    Args:
        known_BK: Scores of the best known items, K being the length of the lists; -inf where there are no more.
        new_BH: Scores of all new ones; -inf where one may not be shown.
        num_known: How many known items there are.
        scale: Factor of the new ones' scores.

    One list of two with one of the two new items in it, and one of four known ones: 1/2 to 1/4.

    >>> exposure(np.array([[0.9, 0.5]], np.float32), np.array([[0.7, 0.1]], np.float32), 4)
    2.0
    """
    score_BM = np.concatenate([known_BK, scale * new_BH], axis=1)
    num_slots = known_BK.shape[1]
    shown_BK = np.argsort(-score_BM, axis=1, kind="stable")[:, :num_slots]
    there_BK = np.isfinite(np.take_along_axis(score_BM, shown_BK, axis=1))
    num_new = int((there_BK & (shown_BK >= num_slots)).sum())
    num_other = int(there_BK.sum()) - num_new
    return float((num_new / new_BH.shape[1]) / max(num_other / num_known, 1e-12))


def scale_for(wanted: float, known_BK: Float32, new_BH: Float32, num_known: int) -> float:
    """The factor, from 1/4 to 8, at which `exposure` is `wanted`, or as near as it comes."""
    low, high = _BOUNDS
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        if exposure(known_BK, new_BH, num_known, middle) < wanted:
            low = middle
        else:
            high = middle
    return float(np.sqrt(low * high))
