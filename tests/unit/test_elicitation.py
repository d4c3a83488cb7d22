"""Questions for new users: worth worked out by hand, and that they reach whom the ones before did not."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, build_dataset
from tastemaker.errors import UsageError
from tastemaker.features.elicitation import helf, questions


def dataset(rows: list[tuple[str, str, str, float | None]]) -> Dataset:
    """Of (user, item, kind, value); every item is in the catalogue."""
    columns = {name: [None] * len(rows) for name in INTERACTIONS_SCHEMA.names}
    user, item, kind, value = map(list, zip(*rows, strict=True))
    columns |= {"user_id": user, "item_id": item, "kind": kind, "value": value}
    columns |= {"timestamp_ms": list(range(len(rows))), "origin": ["live"] * len(rows)}
    ids = sorted(set(item))
    items = {"item_id": ids, "title": ids, "category": [""] * len(ids), "tags": [[]] * len(ids)}
    items["created_at_ms"] = [None] * len(ids)
    return build_dataset(pa.table(columns, INTERACTIONS_SCHEMA), pa.table(items, ITEMS_SCHEMA))


def test_worth_is_the_harmonic_mean_of_how_known_and_how_disputed():
    rated = [("u1", "a", 1.0), ("u2", "a", 5.0), ("u3", "b", 5.0), ("u4", "b", 5.0), ("u1", "c", 1.0)]
    found = helf(dataset([(user, item, "rating", value) for user, item, value in rated]))
    known = math.log(2) / math.log(4)  # two of four users
    assert found == pytest.approx([2 * known * 1.0 / (known + 1.0), 0.0, 0.0])  # b: agreed on; c: one user


def test_without_ratings_half_knowing_is_most_disputed():
    clicks = [(f"u{n}", "half", "click", None) for n in range(2)] + [
        (f"u{n}", "all", "click", None) for n in range(4)
    ]
    found = dict(zip(("all", "half"), helf(dataset(clicks)), strict=True))
    assert found["all"] == 0
    assert found["half"] == pytest.approx(2 * 0.5 * 1.0 / 1.5)


def test_the_second_question_is_for_those_who_cannot_answer_the_first():
    takers = {"a": "123456", "b": "1234", "c": "789"}
    rows = [
        (user, item, "rating", float(n % 2)) for item, users in takers.items() for n, user in enumerate(users)
    ]
    first, second, third = questions(dataset(rows), 3)
    assert [first.item_id, second.item_id, third.item_id] == ["a", "c", "b"]
    assert (first.known, first.reached, second.reached) == (pytest.approx(6 / 9), pytest.approx(6 / 9), 1.0)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 5)), min_size=1),
    st.integers(1, 8),
)
def test_items_are_asked_once_and_reach_more_with_each(rows, k):
    data = dataset([(f"u{user}", f"i{item}", "rating", float(value)) for user, item, value in rows])
    found = questions(data, k)
    assert len({question.item_id for question in found}) == len(found) <= k
    assert all(0 < question.worth <= 1 for question in found)
    assert np.all(np.diff([question.reached for question in found]) >= 0)


def test_no_question_is_a_misuse():
    with pytest.raises(UsageError, match="at least 1"):
        questions(dataset([("u", "i", "click", None)]), 0)
