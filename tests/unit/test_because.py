"""The item of the past that is named for each item of a list."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.stages.because import MOST_HISTORY, NOTHING, because
from tastemaker.types import Candidates, Query

# Rows 0 and 1 point one way, 2 and 3 another, 4 against 0.
VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1], [-0.6, 0.8], [-1, 0]], np.float32)


def named(history: list[int], slate: list[int]) -> list[int]:
    rows = np.array(slate, np.int32)
    none = np.zeros(len(rows), np.float32)
    candidates = Candidates(rows, none, none.astype(np.uint32), none[:, None])
    found = because(Query(np.array(history, np.int32)), candidates, VECTORS).because
    assert found is not None
    return found.tolist()


@pytest.mark.parametrize(
    ("history", "slate", "expected"),
    [
        ([0, 2], [1], [0]),  # 0.8 against 0.6
        ([0, 2], [3], [2]),  # -0.6 against 0.8
        ([0], [4], [NOTHING]),  # -1: it speaks against
        ([], [1, 2], [NOTHING, NOTHING]),
        ([0, 2], [], []),
        ([9, 0], [1, 7], [0, NOTHING]),  # 7 and 9 have no vector here
        ([9], [1], [NOTHING]),
    ],
)
def test_the_most_similar_item_of_the_past_is_named(
    history: list[int], slate: list[int], expected: list[int]
) -> None:
    assert named(history, slate) == expected


def test_the_newest_of_equals_is_named() -> None:
    twice = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    rows = np.array([2], np.int32)
    none = np.zeros(1, np.float32)
    candidates = Candidates(rows, none, none.astype(np.uint32), none[:, None])
    found = because(Query(np.array([0, 1], np.int32)), candidates, twice).because
    assert found is not None
    assert found.tolist() == [1]


def test_old_history_is_not_named() -> None:
    assert named([0] + [2] * MOST_HISTORY, [1]) == [2]


@given(st.lists(st.integers(0, 4), max_size=6), st.lists(st.integers(0, 4), max_size=5))
def test_who_is_named_is_of_the_past_and_nearest(history: list[int], slate: list[int]) -> None:
    for row, who in zip(slate, named(history, slate), strict=True):
        best = max((float(VECTORS[row] @ VECTORS[past]) for past in history), default=-1.0)
        if who == NOTHING:
            assert best <= 0
        else:
            assert who in history
            assert float(VECTORS[row] @ VECTORS[who]) == pytest.approx(best)
