"""How likely an item is in a slot: beside every order spelled out, beside the luck that draws lists, and by laws."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.offpolicy.marginals import conditional, marginal, marginal_plackett_luce, possible
from tastemaker.stages.rerankers.luck import Draw, SamplingConfig, ShuffleConfig, drawn
from tastemaker.types import Query

SCORES = np.array([0.9, 0.6, 0.5, 0.3, 0.1], np.float32)
ROWS = np.array([40, 10, 30, 0, 20], np.int32)


def spelled_out(weight_N: np.ndarray) -> np.ndarray:
    """P(item in slot), over every order."""
    num = len(weight_N)
    found = np.zeros((num, num))
    for order in permutations(range(num)):
        left, chance = float(weight_N.sum()), 1.0
        for item in order:
            chance *= weight_N[item] / left
            left -= weight_N[item]
        for slot, item in enumerate(order):
            found[item, slot] += chance
    return found


def every(logit_N: np.ndarray) -> np.ndarray:
    num = len(logit_N)
    of_slot = [marginal_plackett_luce(logit_N, np.arange(num), np.full(num, slot)) for slot in range(num)]
    return np.stack(of_slot, axis=1)


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([0.1, 1.0, 4.0]))
@settings(max_examples=30, deadline=None)
def test_sampled_lists_beside_every_order(seed: int, num: int, spread: float) -> None:
    logit_N = np.random.default_rng(seed).normal(0, spread, num)
    assert every(logit_N) == pytest.approx(spelled_out(np.exp(logit_N)), rel=1e-6, abs=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_every_slot_has_one_item_and_every_item_one_slot(seed: int) -> None:
    found = every(np.random.default_rng(seed).normal(0, 2, 25))
    assert found.sum(axis=0) == pytest.approx(1.0, abs=1e-9)
    assert found.sum(axis=1) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("keep_top", [0, 1])
@pytest.mark.parametrize("shuffle", [None, ShuffleConfig(window=2, head=4)])
@pytest.mark.parametrize("sampling", [None, SamplingConfig(share=0.5, temperature=2.0)])
def test_drawn_lists_have_items_in_slots_so_often(
    keep_top: int, shuffle: ShuffleConfig | None, sampling: SamplingConfig | None
) -> None:
    draw = Draw(ROWS, SCORES, keep_top, shuffle, sampling)
    counts, num = np.zeros((5, 5)), 1500
    for seed in range(num):
        order_N, chance_N = drawn(
            Query(np.empty(0, np.int32), seed=seed), SCORES, keep_top, shuffle, sampling
        )
        assert conditional(draw, ROWS[order_N[:3]]) == pytest.approx(chance_N[:3])
        counts[order_N, np.arange(5)] += 1
    for slot in range(5):
        chance_M = marginal(draw, ROWS, np.full(5, slot))
        assert chance_M.sum() == pytest.approx(1.0)
        error_M = np.sqrt(chance_M * (1 - chance_M) / num)
        assert (np.abs(counts[:, slot] / num - chance_M) <= 4.5 * error_M + 1e-12).all()
    for place in range(5):
        assert possible(draw, np.roll(ROWS, place)).tolist() == [
            bool(marginal(draw, np.roll(ROWS, place)[[k]], np.array([k]))[0] > 0) for k in range(5)
        ]


def test_what_is_no_candidate_has_no_chance() -> None:
    draw = Draw(ROWS, SCORES, 0, None, SamplingConfig(share=1.0))
    asked = np.array([10, 7], np.int32)
    assert marginal(draw, asked, np.array([0, 1]))[1] == 0
    assert possible(draw, asked).tolist() == [True, False]
    assert conditional(draw, np.array([10, 7, 30], np.int32))[1:].tolist() == [0, 0]
    assert marginal(draw, np.array([10], np.int32), np.array([5])).tolist() == [0]  # there are five slots
    nothing = Draw(ROWS[:0], SCORES[:0], 0, None, None)
    assert possible(nothing, asked).tolist() == [False, False]
