"""How often new items stand in lists beside known ones, and the factor of their scores at which they do so as often as is wanted.

A new item's score is what is expected of its like, and expectations vary less than what came true of known items (law of total
variance): the best of all are known ones, even where new items are taken as often.

Shape letters: B askers, K slots, H new items.
"""

import logging
from math import exp2
from typing import Final

import numpy as np

from tastemaker.types import Float32

log = logging.getLogger(__name__)

SLOTS: Final = 20
"""Length of the lists that are looked at."""
_OCTAVES: Final = (-4.0, 3.0)
_STEPS: Final = 42
_LOOKS: Final = 3
_NEAR: Final = float(np.log(1.25))
_NONE: Final = 1e-3


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
    """The factor between 1/16 and 8 at which the ratio of `exposure` to `wanted` comes nearest to 1; of several, the one nearest to 1.

    All of the range is looked at: exposure rises with the factor where scores are positive, falls where they are negative, and may
    do both. A factor that does not take off half of what is amiss at 1 (of the logarithm of that ratio) is left, and 1 taken. The
    log tells what is reached where that is more than a quarter off.

    One list of three; -4 stands above -3, and so in the list, at factors below 3/4: 1/2 to 2/3.

    >>> scale = scale_for(0.75, np.array([[-1, -2, -3]], np.float32), np.array([[-4, -90]], np.float32), 3)
    >>> bool(0.74 < scale < 0.75)
    True
    """
    num_slots = known_BK.shape[1]
    best_BK = -np.sort(-new_BH, axis=1)[:, :num_slots]  # no list holds more of them, at whatever factor
    share = float(best_BK.shape[1] / new_BH.shape[1])

    def reached(octave: float) -> float:
        return share * exposure(known_BK, best_BK, num_known, exp2(octave))

    def miss(octave: float) -> float:
        return float(abs(np.log(max(reached(octave), _NONE) / wanted)))

    low, high = _OCTAVES
    for _ in range(_LOOKS):  # each closer to the nearest of the one before
        octave_S = np.linspace(low, high, _STEPS + 1)
        miss_S = np.array([miss(octave) for octave in octave_S])
        at = int(np.lexsort((np.abs(octave_S), miss_S))[0])
        low, high = octave_S[max(at - 1, 0)], octave_S[min(at + 1, _STEPS)]
    octave = float(octave_S[at]) if miss_S[at] <= miss(0.0) / 2 else 0.0
    if miss(octave) > _NEAR:
        log.warning(
            "new items are shown %.3g times as often as known ones at a factor of %.3g, where %g times is wanted",
            reached(octave), exp2(octave), wanted,
        )  # fmt: skip
    return exp2(octave)
