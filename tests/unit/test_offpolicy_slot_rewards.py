"""What an item earns in a slot: by hand, by laws, and foretold of a user's lists from others' alone."""

import numpy as np
import pytest

from tastemaker.offpolicy.slates import Belief
from tastemaker.offpolicy.slot_rewards import NUM_FOLDS, fit_slots, slot_model

NUM_LISTS, LOOK = 6000, np.array([1.0, 0.5])
APPEAL = {"x": 0.8, "y": 0.4, "z": 0.1}


def world(seed: int = 0) -> tuple[list[list[str]], np.ndarray]:
    """Lists of two of three items, clicked by appeal where they are looked at."""
    luck = np.random.default_rng(seed)
    lists = [luck.permutation(list(APPEAL))[:2].tolist() for _ in range(NUM_LISTS)]
    chance_SK = np.array([[APPEAL[item] for item in items] for items in lists]) * LOOK
    return lists, (luck.random(chance_SK.shape) < chance_SK).astype(float)


def test_expectations_are_those_of_the_world() -> None:
    lists, reward_SK = world()
    filled, users = np.ones(reward_SK.shape, bool), np.arange(NUM_LISTS)
    judged = [["x", "z"]] * NUM_LISTS
    found = slot_model(lists, judged, reward_SK, filled, users, "item-position")
    assert found.expected_SK.mean(axis=0) == pytest.approx([0.8, 0.05], abs=0.03)
    wanted = np.array([[APPEAL[item] for item in items] for items in lists]) * LOOK
    assert np.abs(found.chosen_SK - wanted).max() < 0.05
    below = slot_model(lists, judged, reward_SK, filled, users, "reward-interaction")
    assert below.expected_SK == pytest.approx(found.expected_SK[:, ::-1].cumsum(axis=1)[:, ::-1])


@pytest.mark.parametrize("belief", ["item-position", "reward-interaction", "whole-list"])
def test_a_users_rewards_foretell_none_of_its_own(belief: Belief) -> None:
    lists, reward_SK = world()
    lists, reward_SK = lists[:300], reward_SK[:300]
    filled, users = np.ones(reward_SK.shape, bool), np.arange(300) // 3
    judged = [["y", "x"]] * 300
    before = slot_model(lists, judged, reward_SK, filled, users, belief)
    changed = reward_SK.copy()
    changed[users == 7] = 1000.0
    after = slot_model(lists, judged, changed, filled, users, belief)
    mine = users == 7
    assert after.expected_SK[mine] == pytest.approx(before.expected_SK[mine])
    assert after.chosen_SK[mine] == pytest.approx(before.chosen_SK[mine])
    moved = (np.abs(after.expected_SK - before.expected_SK) > 1).any(axis=1).mean()
    assert moved == pytest.approx(1 - 1 / NUM_FOLDS, abs=0.1)  # of the other folds


def test_what_was_never_shown_is_average_and_ends_count_nothing() -> None:
    filled = np.array([[True, True], [True, False], [True, True]])
    reward_SK = np.array([[1.0, 0.0], [0.0, np.nan], [1.0, 1.0]])
    lists = [["x", "y"], ["y"], ["x", "y"]]
    found = slot_model(
        lists, [["new", "x", "more"]] * 3, reward_SK, filled, np.zeros(3, int), "item-position"
    )
    assert np.isfinite(found.chosen_SK).all()
    assert found.expected_SK[1, 1] == 0
    slot_K, factor_I = fit_slots(np.array([[0, 1], [1, -1], [0, 1]]), reward_SK, filled, 3)
    # Slots earn 2/3 and 1/2. Item 0 earned 2 where 4/3 is usual, item 1 earned 1 of 2/3 + 1.
    assert slot_K == pytest.approx([2 / 3, 1 / 2])
    assert factor_I == pytest.approx([(2 + 2) / (2 + 4 / 3), (2 + 1) / (2 + 5 / 3), 1.0])
