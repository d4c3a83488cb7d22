"""Splits: worked examples, and that time never runs backwards across a cut."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, build_dataset
from tastemaker.data.splits import Histories, global_cutoff, leave_last
from tastemaker.errors import DataError

Row = tuple[int, int, int]


def dataset(rows: list[Row], num_items: int = 10, **columns: list[Any]) -> Dataset:
    users, item_rows, times = zip(*rows, strict=True)
    given: dict[str, Any] = {
        "user_id": [f"u{u}" for u in users],
        "item_id": [f"i{i}" for i in item_rows],
        "kind": ["click"] * len(rows),
        "value": pa.nulls(len(rows), pa.float32()),
        "timestamp_ms": times,
        "origin": ["live"] * len(rows),
        "position": [None] * len(rows),
        "device": [None] * len(rows),
    }
    interactions = pa.table(given | columns, schema=INTERACTIONS_SCHEMA)
    items: list[dict[str, Any]] = [
        {"item_id": f"i{i}", "title": "", "category": "", "tags": [], "created_at_ms": None}
        for i in range(num_items)
    ]
    return build_dataset(interactions, pa.Table.from_pylist(items, schema=ITEMS_SCHEMA))


def lists(histories: Histories) -> list[list[int]]:
    return [items.tolist() for items in histories]


def test_leave_last_takes_the_newest_rows_and_breaks_ties_by_file_order() -> None:
    rows = [(0, 3, 50), (0, 1, 50), (0, 2, 50), (0, 4, 10), (1, 5, 1), (1, 6, 2)]
    split = leave_last(dataset(rows), num_test=1, num_validation=1)
    assert lists(split.train) == [[4, 3], [5, 6]]  # user 1 has too few rows and keeps them
    assert lists(split.validation) == [[1], []]
    assert lists(split.test) == [[2], []]
    assert lists(split.train_validation) == [[4, 3, 1], [5, 6]]
    assert split.test.timestamp_ms is not None
    assert split.test.timestamp_ms.tolist() == [50]


def test_slots_and_devices_go_with_their_rows() -> None:
    rows = [(0, 3, 40), (0, 1, 10), (0, 2, 30), (0, 1, 20), (1, 5, 1)]
    devices = ["tv", "mobile", None, "tablet", "desktop"]
    split = leave_last(dataset(rows, position=[8, 0, 4, 1, None], device=devices), 1, 1)
    assert lists(split.train) == [[1], [5]]  # the second use of item 1 is none
    parts = (split.train, split.validation, split.test)
    assert [None if part.slot is None else part.slot.tolist() for part in parts] == [[1, 0], [5], [9]]
    assert [part.device_rows(0).tolist() for part in parts] == [[1], [0], [4]]
    assert split.train.device_rows(1).tolist() == [3]


def test_histories_that_come_from_no_dataset_have_unknown_devices() -> None:
    assert Histories.from_lists([[3], [0, 1]]).device_rows(1).tolist() == [0, 0]


def test_a_user_needs_one_row_more_than_are_held_out() -> None:
    two, three = [(0, n, n) for n in range(2)], [(1, n, n) for n in range(3)]
    split = leave_last(dataset(two + three), num_test=1, num_validation=1)
    assert lists(split.test) == [[], [2]]


def test_a_repeated_item_counts_at_its_first_use_only() -> None:
    rows = [(0, 1, 1), (0, 2, 2), (0, 3, 3), (0, 1, 4)]
    split = leave_last(dataset(rows), num_test=1, num_validation=1)
    assert (lists(split.train), lists(split.validation), lists(split.test)) == ([[1]], [[2]], [[3]])


def test_global_cutoff_counts_warm_users() -> None:
    # The cutoff is the time of row 8 of 10: user 0 goes on after it, user 1 stops before, user 2 begins.
    rows = [(0, n, n) for n in range(4)] + [(1, n, 4 + n) for n in range(4)] + [(0, 5, 8), (2, 1, 9)]
    cutoff = global_cutoff(dataset(rows), share=0.8)
    assert (cutoff.cutoff_ms, cutoff.num_test_users, cutoff.num_warm_users) == (8, 2, 1)
    assert lists(cutoff.split.train) == [[0, 1, 2, 3], [0, 1, 2, 3], []]
    assert lists(cutoff.split.test) == [[5], [], [1]]
    assert lists(cutoff.split.validation) == [[], [], []]
    with pytest.raises(DataError, match="share of the global cutoff, is 1"):
        global_cutoff(dataset(rows), share=1)


def test_half_life_halves_the_weight_with_each_step_into_the_past() -> None:
    histories = Histories.from_lists([[3, 0, 1], [], [2]])
    weights = histories.to_csr(4, half_life=2).toarray()
    expected = np.zeros((3, 4), np.float32)
    expected[0, [1, 0, 3]] = [1.0, 0.5**0.5, 0.5]
    expected[2, 2] = 1.0
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert histories.to_csr(4).toarray().sum() == 4
    assert histories.lengths.tolist() == [3, 0, 1]
    assert histories.user_index.tolist() == [0, 0, 0, 2]


def test_histories_of_nobody_are_empty() -> None:
    assert len(Histories.from_lists([])) == 0
    assert Histories.from_lists([[], []]).to_csr(3).shape == (2, 3)


ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=80)


@given(
    rows=ROWS,
    num_test=st.integers(1, 3),
    num_validation=st.integers(0, 3),
)
def test_parts_are_the_whole_in_order(rows: list[Row], num_test: int, num_validation: int) -> None:
    data = dataset(rows)
    split = leave_last(data, num_test, num_validation)
    for user in range(data.num_users):
        mine = data.item_index[data.user_index == user].tolist()
        first_uses = list(dict.fromkeys(mine))
        parts = [part[user].tolist() for part in (split.train, split.validation, split.test)]
        assert [*parts[0], *parts[1], *parts[2]] == first_uses
        assert split.train_validation[user].tolist() == parts[0] + parts[1]
        enough = len(first_uses) > num_test + num_validation
        assert [len(part) for part in parts[1:]] == ([num_validation, num_test] if enough else [0, 0])


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=80
    ),
    share=st.floats(0.1, 0.9),
)
def test_a_global_cutoff_never_trains_on_the_future(rows: list[Row], share: float) -> None:
    cutoff = global_cutoff(dataset(rows), share)
    train, test = cutoff.split.train.timestamp_ms, cutoff.split.test.timestamp_ms
    assert train is not None
    assert test is not None
    assert (train < cutoff.cutoff_ms).all()
    assert (test >= cutoff.cutoff_ms).all()
    assert len(test) >= 1


def test_a_matrix_of_histories_leaves_their_order_in_time() -> None:
    histories = Histories.from_lists([[5, 1, 3], [2, 0]])
    histories.to_csr(6)
    assert histories.item_index.tolist() == [5, 1, 3, 2, 0]
