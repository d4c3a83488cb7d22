"""Least and greatest shares of the places for groups of items."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.stages.rerankers.exposure import ExposureConfig, Group, shared_out


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30), st.integers(0, 4))
def test_floors_hold_behind_the_top_while_there_are_items(marks: list[tuple[bool, bool]], keep: int) -> None:
    shares, masks = [0.25, 0.5], [np.array(column) for column in zip(*marks, strict=True)]
    num = len(marks)
    order = shared_out(num, [Group(*group) for group in zip(shares, masks, strict=True)], [], keep)
    assert sorted(order.tolist()) == list(range(num))
    assert order[:keep].tolist() == list(range(min(keep, num)))
    for share, mask in zip(shares[:1], masks[:1], strict=True):  # one group: two may want the same place
        alone = shared_out(num, [Group(share, mask)], [], 0)
        for n in range(1, num + 1):
            assert mask[alone[:n]].sum() >= min(int(share * n), mask.sum())


@given(
    st.lists(st.booleans(), min_size=1, max_size=30),
    st.floats(0, 0.95),
    st.integers(0, 4),
)
def test_a_ceiling_holds_while_others_are_left(marks: list[bool], share: float, keep: int) -> None:
    mask, num = np.array(marks), len(marks)
    order = shared_out(num, [], [Group(share, mask)], keep)
    assert sorted(order.tolist()) == list(range(num))
    assert order[:keep].tolist() == list(range(min(keep, num)))
    free = shared_out(num, [], [Group(share, mask)], 0)
    for n in range(1, num + 1):
        without = n - int((~mask).sum())  # places for which nothing else is left
        assert mask[free[:n]].sum() <= max(math.ceil(share * n - 1e-9), without)
    for members in (mask, ~mask):  # within a group the order stays
        assert (np.diff(order[members[order]]) > 0).all()


def test_where_a_floor_and_a_ceiling_contradict_each_other_the_floor_holds() -> None:
    of_both = np.array([False, False, True, True])
    order = shared_out(4, [Group(0.5, of_both)], [Group(0.0, of_both)], 0)
    assert order.tolist() == [0, 2, 1, 3]


def test_exposure_without_a_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one floor or ceiling"):
        ExposureConfig()
