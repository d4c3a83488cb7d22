"""What a report holds of a log: the narrowest numbers lose nothing, and visits are what one finds by looking at every sign of life."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.experiments.reporting.lists import Lists
from tastemaker.experiments.reporting.narrow import narrow
from tastemaker.experiments.reporting.visits import Visits
from tastemaker.features.user_state import SESSION_GAP_MS

numbers = st.one_of(
    st.lists(st.integers(-(2**40), 2**40), max_size=20).map(lambda values: np.array(values, np.int64)),
    st.lists(st.integers(0, 70_000), max_size=20).map(lambda values: np.array(values, np.int64)),
    st.lists(st.floats(width=64), max_size=20).map(np.array),
    st.lists(st.booleans(), max_size=20).map(lambda values: np.array(values, np.bool_)),
)


@given(numbers, numbers)
def test_narrow_numbers_are_the_same_alone_and_joined(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_array_equal(narrow(one), one)
    assert narrow(one).nbytes <= max(one.nbytes, len(one))
    if one.dtype == other.dtype:
        joined = np.concatenate([narrow(one), narrow(other)])
        np.testing.assert_array_equal(joined, np.concatenate([one, other]))


@pytest.mark.parametrize(
    ("values", "kind"),
    [([0, 255], "uint8"), ([0, 256], "uint16"), ([-1, 127], "int8"), ([-129], "int16"), ([2**31], "int64"), ([0.25], "float64")],
)  # fmt: skip
def test_widths_by_hand(values: list[float], kind: str) -> None:
    assert narrow(np.array(values)).dtype.name == kind


signs = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 12).map(lambda n: n * SESSION_GAP_MS // 2)), min_size=1
)


def looked_at(signs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Unit, first and last moment of each visit."""
    found: list[tuple[int, int, int]] = []
    for unit, ms in sorted(signs):
        if found and found[-1][0] == unit and ms - found[-1][2] <= SESSION_GAP_MS:
            found[-1] = (unit, found[-1][1], ms)
        else:
            found.append((unit, ms, ms))
    return found


def visits_of(signs: list[tuple[int, int]]) -> Visits:
    return Visits.of(*np.array(signs, np.int64).reshape(-1, 2).T)


@given(signs, st.integers(0, 5))
def test_visits_are_those_that_one_sees_in_parts_as_whole(signs: list[tuple[int, int]], cut: int) -> None:
    parts = [visits_of(one) for one in (signs[:cut], signs[cut:])]
    for found in (visits_of(signs), Visits.together(parts, [np.arange(4)] * 2)):
        told = zip(found.unit_N.tolist(), found.start_ms_N.tolist(), found.end_ms().tolist(), strict=True)
        assert list(told) == looked_at(signs)
        unit_R, ms_R = np.array(signs, np.int64).T
        of = found.visit_of(unit_R, ms_R)
        assert (found.unit_N[of] == unit_R).all()
        assert ((found.start_ms_N[of] <= ms_R) & (ms_R <= found.end_ms()[of])).all()


@given(signs, st.integers(0, 3), st.integers(-3, 14), st.integers(2, 9))
def test_who_was_there_gave_a_sign(signs: list[tuple[int, int]], unit: int, first: int, halves: int) -> None:
    from_ms, half = first * SESSION_GAP_MS // 2, SESSION_GAP_MS // 2
    to_ms = from_ms + halves * half
    found = visits_of(signs).was_there(np.array([unit]), np.array([from_ms]), np.array([to_ms]))
    assert found.tolist() == [any(one == unit and from_ms <= ms <= to_ms for one, ms in signs)]


def test_lists_by_number() -> None:
    lists = Lists(None, np.array([0, 2, 2, 5], np.uint8), np.array([7, 8, 1, 2, 3], np.uint8))
    items, lengths = lists.items_of(np.array([2, 1, 0]))
    assert (items.tolist(), lengths.tolist()) == ([1, 2, 3, 7, 8], [3, 0, 2])
