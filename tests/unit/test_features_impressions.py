"""Impressions by rows of the dataset, and the slots of the candidates of a request."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, build_dataset
from tastemaker.data.splits import leave_last
from tastemaker.features.impressions import Impressions, Slots

Row = tuple[str, str, str, int, int | None]
ITEMS = ("a", "b", "c", "d", "e", "f")
ALL = np.arange(len(ITEMS), dtype=np.int32)


def table(*rows: Row) -> pa.Table:
    names = ("user_id", "item_id", "kind", "timestamp_ms", "position")
    return pa.Table.from_pylist(
        [dict(zip(names, row, strict=True)) | {"origin": "live"} for row in rows], INTERACTIONS_SCHEMA
    )


def dataset(interactions: pa.Table) -> Dataset:
    items: list[dict[str, Any]] = [
        {"item_id": name, "title": name, "category": "", "tags": [], "created_at_ms": None} for name in ITEMS
    ]
    return build_dataset(interactions, pa.Table.from_pylist(items, ITEMS_SCHEMA))


def slots(*rows: Row) -> Slots:
    """Of each user's newest event, given those before."""
    interactions = table(*rows)
    data = dataset(interactions)
    split = leave_last(data, num_test=0, num_validation=1)
    return Slots.of(interactions, data, split.train, split.validation)


def test_impressions_are_rows_of_known_users_and_items() -> None:
    interactions = table(
        ("ann", "b", "click", 5, 1),
        ("ann", "c", "impression", 4, 2),
        ("eve", "c", "impression", 4, 2),  # has no event: no user of the dataset
        ("ann", "a", "impression", 3, None),
        ("ann", "z", "impression", 3, 0),
    )
    found = Impressions.of(
        interactions, dataset(interactions.filter(pa.array([True, False, False, True, False])))
    )
    assert [column.tolist() for column in found] == [[0, 0], [2, 0], [4, 3], [3, 0]]


def test_candidates_have_the_slots_of_what_was_shown_since_the_last_item_before() -> None:
    found = slots(
        ("ann", "a", "click", 10, 0),
        ("ann", "b", "impression", 10, 8),  # not after the last item before
        ("ann", "c", "impression", 11, 2),
        ("ann", "c", "impression", 12, 5),  # again: the first counts
        ("ann", "d", "impression", 12, 6),
        ("ann", "d", "click", 20, 3),  # its own goes before the impression's
        ("ann", "e", "impression", 20, None),
        ("ann", "f", "impression", 21, 1),  # after the last that was taken
        ("bob", "b", "click", 1, 4),  # has nothing but this
        ("bob", "c", "impression", 1, 4),
    )
    assert found(0, ALL).tolist() == [0, 0, 3, 4, 0, 0]
    assert found(0, ALL[[3, 2]]).tolist() == [4, 3]
    assert found(1, ALL).tolist() == [0] * 6
    assert found.num_left == 1


def test_what_was_taken_without_a_position_has_that_of_its_impression() -> None:
    found = slots(
        ("ann", "a", "click", 1, None), ("ann", "b", "impression", 2, 1), ("ann", "c", "impression", 2, 2),
        ("ann", "c", "click", 3, None),
    )  # fmt: skip
    assert found(0, ALL).tolist() == [0, 2, 3, 0, 0, 0]


def test_slots_of_clicks_alone_are_hidden_since_they_would_tell_what_was_taken() -> None:
    found = slots(
        ("ann", "a", "click", 1, 0), ("ann", "b", "click", 2, 1), ("ann", "b", "impression", 2, 1),
        ("bob", "a", "click", 1, 0), ("bob", "b", "click", 3, 1), ("bob", "c", "impression", 2, 4),
    )  # fmt: skip
    assert found(0, ALL).tolist() == [0] * 6
    assert found(1, ALL).tolist() == [0, 2, 5, 0, 0, 0]
    assert found(1, ALL[:2]).tolist() == [0, 0]  # nothing that was left is among the candidates
    assert found.num_left == 1


@pytest.mark.parametrize("shown", [(), (("ann", "b", "impression", 2, None),)])
def test_without_positions_there_is_nothing(shown: tuple[Row, ...]) -> None:
    found = slots(("ann", "a", "click", 1, None), ("ann", "c", "click", 3, None), *shown)
    assert found.num_left == 0
    assert found(0, ALL).tolist() == [0] * 6
