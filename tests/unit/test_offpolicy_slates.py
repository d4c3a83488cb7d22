"""Estimators of lists: by exact expectation over every list of a tiny world, under each belief about clicks."""

from collections.abc import Callable, Iterator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.slates import (
    BELIEFS,
    Belief,
    Slates,
    SlotModel,
    doubly_robust_slate_value,
    self_normalised_slate_value,
    slate_value,
)

NUM_ITEMS, K = 4, 2
LOGGED = np.array([0.4, 0.3, 0.2, 0.1])
POLICY = np.array([0.1, 0.2, 0.3, 0.4])
APPEAL = np.array([0.2, 0.4, 0.6, 0.8])


def lists() -> Iterator[tuple[int, ...]]:
    return permutations(range(NUM_ITEMS), K)


def conditional(weight: np.ndarray, items: tuple[int, ...]) -> np.ndarray:
    """Plackett-Luce: of each item given those above it."""
    left, found = weight.sum(), []
    for item in items:
        found.append(weight[item] / left)
        left -= weight[item]
    return np.array(found)


def marginal(weight: np.ndarray, items: tuple[int, ...]) -> np.ndarray:
    """Of each item in its slot, whatever is above it."""
    return np.array(
        [
            sum(conditional(weight, other).prod() for other in lists() if other[k] == item)
            for k, item in enumerate(items)
        ]
    )


def by_item(items: tuple[int, ...]) -> np.ndarray:
    return APPEAL[list(items)] * np.array([1.0, 0.5])


def by_cascade(items: tuple[int, ...]) -> np.ndarray:
    """Whoever clicks the first looks no further."""
    first, second = APPEAL[list(items)]
    return np.array([first, (1 - first) * second])


def by_list(items: tuple[int, ...]) -> np.ndarray:
    """The first slot gains by what stands below it."""
    first, second = APPEAL[list(items)]
    return np.array([first * second, second])


def slates_of(items: tuple[int, ...], reward: np.ndarray, belief: Belief) -> Slates:
    probability = marginal if belief == "item-position" else conditional
    filled = np.ones((1, K), bool)
    return Slates(reward[None], probability(LOGGED, items)[None], probability(POLICY, items)[None], filled)


World = Callable[[tuple[int, ...]], np.ndarray]


def expectation(belief: Belief, world: World) -> float:
    """Of the estimate, expected rewards standing for drawn ones: it is linear in them."""
    return sum(
        conditional(LOGGED, items).prod() * slate_value(slates_of(items, world(items), belief), belief).value
        for items in lists()
    )


def truth(world: World) -> float:
    return sum(float(conditional(POLICY, items).prod() * world(items).sum()) for items in lists())


@pytest.mark.parametrize(
    ("belief", "world"),
    [
        ("whole-list", by_item), ("whole-list", by_cascade), ("whole-list", by_list),
        ("reward-interaction", by_item), ("reward-interaction", by_cascade),
        ("item-position", by_item),
    ],
)  # fmt: skip
def test_unbiased_where_the_belief_holds(belief: Belief, world: World) -> None:
    assert expectation(belief, world) == pytest.approx(truth(world), abs=1e-12)


@pytest.mark.parametrize(
    ("belief", "world"),
    [("reward-interaction", by_list), ("item-position", by_cascade), ("item-position", by_list)],
)
def test_biased_where_it_does_not(belief: Belief, world: World) -> None:
    assert abs(expectation(belief, world) - truth(world)) > 0.005


def model_of(items: tuple[int, ...], belief: Belief, guess: Callable[[tuple[int, ...]], float]) -> SlotModel:
    """Any function of an item and what is above it for a model, and its mean under the policy given what was shown above."""
    chosen, expected = np.zeros(K), np.zeros(K)
    for k in range(K):
        given = items[:k] if belief == "reward-interaction" else ()
        chosen[k] = guess((*given, items[k]) if belief != "whole-list" else (*items, k))
        for other in lists():
            if belief == "whole-list":
                expected[k] += conditional(POLICY, other).prod() * guess((*other, k))
            elif belief == "item-position":
                expected[k] += conditional(POLICY, other).prod() * guess((other[k],))
            elif other[:k] == given:
                share = conditional(POLICY, other)[k] if k else 0
                share = share if k else conditional(POLICY, other).prod()
                expected[k] += share * guess((*given, other[k]))
    return SlotModel(chosen[None], expected[None])


@pytest.mark.parametrize(
    ("belief", "world"),
    [
        ("whole-list", by_item), ("whole-list", by_cascade), ("whole-list", by_list),
        ("reward-interaction", by_item), ("reward-interaction", by_cascade),
        ("item-position", by_item),
    ],
)  # fmt: skip
@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_doubly_robust_is_unbiased_whatever_the_model(belief: Belief, world: World, seed: int) -> None:
    def guess(given: tuple[int, ...]) -> float:
        return float(np.random.default_rng([seed, *given]).normal())

    found = sum(
        conditional(LOGGED, items).prod()
        * doubly_robust_slate_value(
            slates_of(items, world(items), belief), belief, model_of(items, belief, guess)
        ).value
        for items in lists()
    )
    assert found == pytest.approx(truth(world), abs=1e-9)


def test_the_right_model_leaves_no_noise_in_a_cascade() -> None:
    # Whoever is shown whatever: with the value of a slot and all below it under the policy each list gives the truth.
    def value(given: tuple[int, ...]) -> float:
        reward = by_cascade((given[0], (given[0] + 1) % NUM_ITEMS))[0]
        if len(given) == 2:
            return float(by_cascade(given)[1])
        below = [
            conditional(POLICY, other)[1] * by_cascade(other)[1] for other in lists() if other[0] == given[0]
        ]
        return float(reward + sum(below))

    for items in lists():
        slates = slates_of(items, by_cascade(items), "reward-interaction")
        model = model_of(items, "reward-interaction", value)
        found = doubly_robust_slate_value(slates, "reward-interaction", model).value
        assert found == pytest.approx(truth(by_cascade), abs=1e-12)


def test_a_model_of_another_shape_is_refused() -> None:
    slates = slates_of((0, 1), np.zeros(K), "whole-list")
    with pytest.raises(ExperimentError, match=r"the model of slots, is \(1, 3\)"):
        doubly_robust_slate_value(slates, "whole-list", SlotModel(np.zeros((1, 3)), np.zeros((1, 2))))
    with pytest.raises(ExperimentError, match="must be finite"):
        doubly_robust_slate_value(slates, "whole-list", SlotModel(np.full((1, 2), np.nan), np.zeros((1, 2))))


@pytest.mark.parametrize("belief", BELIEFS)
def test_weights_have_mean_one_in_every_slot(belief: Belief) -> None:
    mean_K = sum(
        conditional(LOGGED, items).prod() * slates_of(items, np.zeros(K), belief).weights(belief)[0]
        for items in lists()
    )
    assert mean_K == pytest.approx(np.ones(K), abs=1e-12)


@given(st.integers(0, 1000), st.integers(1, 30))
def test_stronger_beliefs_take_fewer_slots_and_agree_on_the_first_and_last(seed: int, num: int) -> None:
    luck = np.random.default_rng(seed)
    logged, policy = luck.uniform(0.1, 1, (num, 3)), luck.uniform(0, 1, (num, 3))
    slates = Slates(luck.random((num, 3)), logged, policy, np.ones((num, 3), bool))
    whole, cascade, item = (slates.weights(belief) for belief in BELIEFS)
    assert np.allclose(cascade[:, 0], item[:, 0])
    assert np.allclose(cascade[:, 2], whole[:, 2])
    for belief in BELIEFS:
        assert self_normalised_slate_value(slates, belief).value <= 3


def test_what_lies_behind_a_list_counts_nothing() -> None:
    # The second list has one slot: 2 * 1, and 2 * 1 + 4 * 1 of the first; the mean is 4.
    slates = Slates(
        np.array([[1.0, 1.0], [1.0, np.nan]]), np.array([[0.5, 0.5], [0.5, 0.0]]), np.ones((2, 2)),
        np.array([[True, True], [True, False]]),
    )  # fmt: skip
    assert slate_value(slates, "reward-interaction").value == pytest.approx(4.0)
    # By slot: (2 + 2) / (2 + 2) of all lists, and 4 / 4 in half of them.
    assert self_normalised_slate_value(slates, "reward-interaction").value == pytest.approx(1.5)


def test_no_probability_is_refused() -> None:
    filled = np.ones((1, 1), bool)
    with pytest.raises(ExperimentError, match=r"a slot's propensity, is 0.0, must be above 0"):
        Slates(np.ones((1, 1)), np.zeros((1, 1)), np.ones((1, 1)), filled)
    with pytest.raises(ExperimentError, match=r"a probability of the policy, is 2.0, must be 0 to 1"):
        Slates(np.ones((1, 1)), np.ones((1, 1)), 2 * np.ones((1, 1)), filled)
    with pytest.raises(ExperimentError, match="lists and slots"):
        Slates(np.ones((1, 1)), np.ones((1, 2)), np.ones((1, 1)), filled)
