"""How likely an item is to stand in a slot, whatever stands above it: what the item-position estimate divides by.

The log has each slot's probability given those above it. The marginal one needs what the list was drawn from: the candidates
in the order of the stages, with their scores. A sampled list is a race of exponential clocks, item i's of rate w_i: it comes
as number k where k - 1 of the others are faster [Luce 1959; Plackett 1975],

    P(i is k-th) = integral of w_i exp(-w_i t) P(k - 1 of the others before t) dt,

and how many others came before t is Poisson-binomial. The integral is a trapezoid sum in log t, which converges geometrically.

Shape letters: N candidates, K slots, M items of which each is asked for in one slot, T moments, C clocks that have rung.
"""

from typing import Final

import numpy as np

from tastemaker.stages.rerankers.luck import (
    Draw,
    logits,
    mixed,
    plackett_luce,
    shuffle_propensity,
    windows,
)
from tastemaker.types import Bool, Float64, Int32, Int64

_STEP: Final = 0.9
"""Of log t, over sqrt(slots + 5): as narrow as what comes later in a list."""
_EARLY, _LATE = 1e-11, 40.0
"""First and last moments, in mean times of all clocks together and of the slowest one."""
_LEAST: Final = 1e-300
NOWHERE: Final = -1
"""The place of an item that is not among the candidates."""


def places(draw: Draw, rows_M: Int32) -> Int64:
    """The place of each item in the order of the stages (M,), `NOWHERE` for one that is not among the candidates."""
    if not len(draw.rows_N):
        return np.full(len(rows_M), NOWHERE, np.int64)
    order_N = np.argsort(draw.rows_N, kind="stable")
    at_M = np.minimum(np.searchsorted(draw.rows_N[order_N], rows_M), len(order_N) - 1)
    place_M = order_N[at_M]
    found_M: Int64 = np.where(draw.rows_N[place_M] == rows_M, place_M, NOWHERE)
    return found_M


def conditional(draw: Draw, rows_K: Int32) -> Float64:
    """The probability (K,) of each slot's item given those above it, of a list that begins with these items.

    0 from the first item on that is not among the candidates.
    """
    place_K = places(draw, rows_K)
    lacking = np.flatnonzero(place_K == NOWHERE)
    known = int(lacking[0]) if len(lacking) else len(place_K)
    rest = np.setdiff1d(np.arange(len(draw.rows_N)), place_K[:known])
    order_N = np.concatenate([place_K[:known], rest])
    chance_N = shuffle_propensity(order_N, draw.keep_top, draw.shuffle)
    if draw.sampling is not None:
        logit_N = logits(draw.score_N[order_N]) / draw.sampling.temperature
        chance_N = mixed(chance_N, plackett_luce(logit_N), draw.sampling.share)
    return np.append(chance_N[:known], np.zeros(len(place_K) - known))


def possible(draw: Draw, rows_K: Int32) -> Bool:
    """Whether each of these items can stand in its own slot (K,): the first in slot 0, and so on."""
    slot_K = np.arange(len(rows_K))
    usual_K, place_K = _usual(draw, rows_K, slot_K)
    candidate_K: Bool = (place_K != NOWHERE) & (slot_K < len(draw.rows_N))
    return (usual_K > 0) | candidate_K if draw.sampling is not None else usual_K > 0


def marginal(draw: Draw, rows_M: Int32, slot_M: Int64) -> Float64:
    """The probability (M,) that each of some different items stands in a slot of its own, whatever stands above it.

    Args:
        draw: What the list is drawn from.
        rows_M: The items.
        slot_M: The slot of each, from 0.
    """
    usual_M, place_M = _usual(draw, rows_M, slot_M)
    asked = np.flatnonzero((place_M != NOWHERE) & (slot_M < len(draw.rows_N)))
    if draw.sampling is None or not len(asked):
        return usual_M
    logit_N = logits(draw.score_N) / draw.sampling.temperature
    sampled_M = np.zeros(len(rows_M))
    sampled_M[asked] = marginal_plackett_luce(logit_N, place_M[asked], slot_M[asked])
    return (1 - draw.sampling.share) * usual_M + draw.sampling.share * sampled_M


def _usual(draw: Draw, rows_M: Int32, slot_M: Int64) -> tuple[Float64, Int64]:
    """The same where nothing is sampled, and the items' places: windows are shuffled evenly."""
    place_M = places(draw, rows_M)
    window_N = windows(len(draw.rows_N), draw.keep_top, draw.shuffle)
    if not len(window_N):
        return np.zeros(len(rows_M)), place_M
    of_slot_M = window_N[np.minimum(slot_M, len(window_N) - 1)]
    there_M = (place_M != NOWHERE) & (slot_M < len(window_N)) & (of_slot_M == window_N[place_M])
    named, size = np.unique(window_N, return_counts=True)
    size_M = size[np.searchsorted(named, of_slot_M)]
    return there_M / size_M, place_M


def marginal_plackett_luce(logit_N: Float64, place_K: Int64, slot_K: Int64) -> Float64:
    """The probability (K,) that each item comes in its slot, of lists that are sampled by Plackett-Luce.

    By hand: of weights 2, 1, 1 the second item comes second after the first with 2/4 * 1/2, and after the third with 1/4 * 1/3.

    >>> marginal_plackett_luce(np.log([2.0, 1.0, 1.0]), np.array([1]), np.array([1])).round(9).tolist()  # 1/4 + 1/12
    [0.333333333]

    Args:
        logit_N: Of all candidates: their weights are its exponentials.
        place_K: Which candidates are asked for.
        slot_K: The slot of each, from 0.
    """
    weight_N = np.exp(logit_N - logit_N.max())
    weight_N /= weight_N.sum()
    others = np.setdiff1d(np.arange(len(weight_N)), place_K)
    # Once the slots are filled nothing comes in them any more: so many have come when the next heaviest has.
    slowest = np.sort(weight_N)[::-1][min(int(slot_K.max()) + 1, len(weight_N) - 1)]
    step = _STEP / np.sqrt(int(slot_K.max()) + 6)
    t_T = np.exp(np.arange(np.log(_EARLY), np.log(_LATE / max(slowest, _LEAST)) + step, step))
    # Of the common others how many came before t; then, for each item, of those asked for as well.
    common_TC = _counts(t_T, weight_N[others], int(slot_K.max()) + 1)
    asked = np.unique(place_K)
    found_K = np.empty(len(place_K))
    for n, (place, slot) in enumerate(zip(place_K.tolist(), slot_K.tolist(), strict=True)):
        before_TC = _with(common_TC[:, : slot + 1], t_T, weight_N[asked[asked != place]])
        own_T = weight_N[place] * t_T * np.exp(-weight_N[place] * t_T)
        found_K[n] = step * (own_T @ before_TC[:, slot])
    return np.minimum(found_K, 1.0)


def _counts(t_T: Float64, weight_M: Float64, num: int) -> Float64:
    """P(c of these clocks ring before t) for each moment and c < num, (T, num)."""
    none_TC = np.zeros((len(t_T), num))
    none_TC[:, 0] = 1.0
    return _with(none_TC, t_T, weight_M)


def _with(count_TC: Float64, t_T: Float64, weight_M: Float64) -> Float64:
    """Counts with more clocks beside those that are counted."""
    count_TC = count_TC.copy()
    rung_MT = -np.expm1(-weight_M[:, None] * t_T)
    for rung_T in rung_MT:
        moved_TC = count_TC[:, :-1] * rung_T[:, None]
        count_TC *= (1.0 - rung_T)[:, None]
        count_TC[:, 1:] += moved_TC
    return count_TC
