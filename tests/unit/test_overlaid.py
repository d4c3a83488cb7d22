"""Large collections with changes over them are what a copy with the changes would be."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.item_store import ItemFacts
from tastemaker.features.overlaid import OverlaidMapping, OverlaidSequence

KEYS = st.text("abcde", min_size=1, max_size=1)
STEPS = st.lists(st.dictionaries(KEYS, st.integers()), max_size=4)


@given(st.dictionaries(KEYS, st.integers()), STEPS)
def test_a_mapping_is_what_a_copy_with_the_changes_would_be(
    below: dict[str, int], steps: list[dict[str, int]]
) -> None:
    found: Mapping[str, int] = below
    model, seen = dict(below), []
    for changes in steps:
        found = OverlaidMapping.over(found, changes)
        model |= changes
        seen.append((found, dict(model)))
    for mapping, expected in [*seen, (below, dict(below))]:  # earlier ones stay as they were
        assert mapping == expected
        assert len(mapping) == len(expected)
        assert set(mapping) == set(expected)
        for key in "abcdef":
            assert mapping.get(key) == expected.get(key)
            assert mapping.get(key, 7) == expected.get(key, 7)
            assert (key in mapping) == (key in expected)


@given(
    st.lists(st.integers(0, 9), max_size=5),
    st.lists(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)))),
)
def test_a_sequence_is_what_a_copy_with_the_changes_would_be(
    below: list[int], steps: list[list[tuple[int, int]]]
) -> None:
    found: Sequence[int] = below
    model = list(below)
    for step in steps:
        changes = dict[int, int]()
        for wanted, value in step:
            place = min(wanted, len(model))
            model[place : place + 1] = [value]
            changes[place] = value
        found = OverlaidSequence.over(found, changes)
    assert list(found) == model
    assert found[1:4] == model[1:4]
    assert [found[-at] for at in range(1, len(model) + 1)] == model[::-1]
    with pytest.raises(IndexError, match=rf"place {len(model)} of {len(model)}" if steps else "out of range"):
        found[len(model)]


def test_a_mapping_without_a_key_says_so_as_a_dict_does() -> None:
    with pytest.raises(KeyError, match="z"):
        OverlaidMapping.over({"a": 1}, {"b": 2})["z"]


class Watched(dict[str, int]):
    """Cannot be gone through."""

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("all of it was looked at")

    keys = items = values = __iter__  # type: ignore[assignment]


def test_facts_of_a_catalogue_take_an_item_without_looking_at_all_others() -> None:
    def items(*ids: str) -> pa.Table:
        return pa.Table.from_pylist(
            [{"item_id": one, "title": one, "category": one} for one in ids], ITEMS_SCHEMA
        )

    facts = ItemFacts.from_items(items("a", "b"), Watched(a=0, b=1))
    later = facts.with_items(np.array([2], np.int32), items("c")).with_items(
        np.array([0], np.int32), items("a")
    )
    assert [later.index.get(one) for one in "abcd"] == [0, 1, 2, None]
    assert [later.category(one) for one in "abcd"] == ["a", "b", "c", ""]
    assert "c" not in facts.index
