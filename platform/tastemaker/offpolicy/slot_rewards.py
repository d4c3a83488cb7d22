"""A model of what an item earns in a slot, which doubly robust estimates of lists read.

Expected of item i in slot k: the slot's mean reward, times how much more or less than its slots' means the item earned, drawn
towards 1 as if it had a Gamma prior (a Gamma-Poisson model, [Robbins 1956, empirical Bayes] by fixed strength). It needs no
features and no fit. What it foretells of a list comes from other users' lists alone (cross-fitting, [Chernozhukov et al. 2018]).

Shape letters: S lists, K slots, I items, F folds.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tastemaker.offpolicy.slates import Belief, SlotModel
from tastemaker.offpolicy.terms import ratios
from tastemaker.types import Bool, Float64, Int64

NUM_FOLDS: Final = 3
STRENGTH: Final = 2.0
"""Rewards that the belief in an average item is worth."""
NOTHING: Final = -1
"""Stands for an item behind a list's end, or one that no logged list shows."""


def slot_model(
    logged: Sequence[Sequence[str]],
    judged: Sequence[Sequence[str]],
    reward_SK: Float64,
    filled_SK: Bool,
    cluster_S: Int64,
    belief: Belief,
    *,
    seed: int = 0,
) -> SlotModel:
    """Expectations of the logged lists' slots and of those of the lists that a policy shows for sure.

    By interaction they are of a slot and those below it, which is what varies least; there a list counts only as far down as it
    agrees with the judged one, so that its own expectation is the judged one's.

    Args:
        logged: What was shown.
        judged: The policy's list for each of the same requests.
        reward_SK: Of each logged slot.
        filled_SK: Which slots a logged list has.
        cluster_S: Whose list it is; lists of one user are in one fold.
        belief: Of the estimate.
        seed: Deals users to folds.
    """
    number = {item: n for n, item in enumerate(dict.fromkeys(item for items in logged for item in items))}
    shown_SK, wanted_SK = (_numbers(lists, number, filled_SK) for lists in (logged, judged))
    found = [np.empty(filled_SK.shape), np.empty(filled_SK.shape)]
    clusters, code_S = np.unique(cluster_S, return_inverse=True)
    fold_S = (np.random.default_rng([seed, 3]).permutation(len(clusters)) % NUM_FOLDS)[code_S]
    for fold in range(NUM_FOLDS):
        held_S = fold_S == fold
        slot_K, factor_I = fit_slots(shown_SK[~held_S], reward_SK[~held_S], filled_SK[~held_S], len(number))
        for one_SK, item_SK in zip(found, (shown_SK, wanted_SK), strict=True):
            one_SK[held_S] = slot_K * np.append(factor_I, 1.0)[item_SK[held_S]]
    chosen_SK, expected_SK = (np.where(filled_SK, one_SK, 0.0) for one_SK in found)
    if belief == "reward-interaction":
        below_SK = expected_SK[:, ::-1].cumsum(axis=1)[:, ::-1]
        return SlotModel(below_SK, below_SK)
    return SlotModel(chosen_SK, expected_SK)


def fit_slots(
    item_SK: Int64, reward_SK: Float64, filled_SK: Bool, num_items: int, strength: float = STRENGTH
) -> tuple[Float64, Float64]:
    """Mean reward of each slot (K,), and each item's factor (I,): (strength + earned) / (strength + what its slots earn on average).

    By hand: item 0 earned 2 where its slots earn 1, item 1 nothing: (2 + 2) / (2 + 1) and (2 + 0) / (2 + 1).

    >>> one = np.ones((2, 1), bool)
    >>> slot_K, factor_I = fit_slots(np.array([[0], [1]]), np.array([[2.0], [0.0]]), one, 2)
    >>> slot_K.tolist(), factor_I.round(3).tolist()
    ([1.0], [1.333, 0.667])

    Args:
        item_SK: Numbers of items, from 0.
        reward_SK: Of each slot.
        filled_SK: Which slots a list has.
        num_items: How many there are; one that was not shown has 1.
        strength: See `STRENGTH`.
    """
    slot_K = ratios(np.where(filled_SK, reward_SK, 0.0).sum(axis=0), filled_SK.sum(axis=0).astype(np.float64))
    item_P = item_SK[filled_SK]
    earned_I = np.bincount(item_P, reward_SK[filled_SK], num_items)
    usual_I = np.bincount(item_P, np.broadcast_to(slot_K, filled_SK.shape)[filled_SK], num_items)
    factor_I: Float64 = (strength + earned_I) / (strength + np.maximum(usual_I, 0.0))
    return slot_K, factor_I


def _numbers(lists: Sequence[Sequence[str]], number: dict[str, int], filled_SK: Bool) -> Int64:
    """Each slot's item as a number, (S, K)."""
    found_SK = np.full(filled_SK.shape, NOTHING, np.int64)
    for s, items in enumerate(lists):
        mine = [number.get(item, NOTHING) for item in items[: filled_SK.shape[1]]]
        found_SK[s, : len(mine)] = mine
    return found_SK
