import numpy as np
import pyarrow as pa

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, Dataset, build_dataset
from tastemaker.data.splits import leave_last
from tastemaker.features.outcomes import Outcomes


def dataset(*rows: tuple[str, str, str, float | None]) -> Dataset:
    """Events (user, item, kind, value), one a second."""
    events = [
        {
            "user_id": user,
            "item_id": item,
            "kind": kind,
            "value": value,
            "timestamp_ms": 1000 * second,
            "origin": "live",
        }
        for second, (user, item, kind, value) in enumerate(rows, 1)
    ]
    names = sorted({item for _, item, _, _ in rows})
    items = [{"item_id": n, "title": n, "category": "", "tags": [], "created_at_ms": None} for n in names]
    return build_dataset(
        pa.Table.from_pylist(events, INTERACTIONS_SCHEMA), pa.Table.from_pylist(items, ITEMS_SCHEMA)
    )


def test_ratings_of_four_or_more_are_likes() -> None:
    data = dataset(
        ("u", "a", "rating", 5.0),
        ("u", "b", "rating", 3.5),
        ("u", "c", "rating", 4.0),
        ("u", "d", "rating", 1.0),
    )
    taken = leave_last(data, num_test=1, num_validation=2).validation  # b, c
    assert {target: label.tolist() for target, label in Outcomes.of(data, taken)[0].items()} == {
        "like": [0, 1]
    }


def test_what_followed_the_first_use_counts() -> None:
    data = dataset(
        ("u", "a", "view", None), ("u", "b", "click", None), ("u", "c", "watch", 30.0), ("u", "d", "view", None),
        ("u", "b", "purchase", 9.5), ("u", "c", "watch", 12.0), ("u", "c", "like", None), ("v", "b", "like", None),
    )  # fmt: skip
    taken = leave_last(data, num_test=1, num_validation=2).validation
    found = Outcomes.of(data, taken)[0]
    assert [data.item_ids[item] for item in taken[0]] == ["b", "c"]
    assert found["purchase"].tolist() == [1, 0]
    assert found["like"].tolist() == [0, 1]  # the other user's like of b is not this user's
    np.testing.assert_array_equal(found["watch"], [np.nan, 42.0])


def test_a_target_that_no_event_tells_of_is_not_there() -> None:
    data = dataset(*(("u", item, "view", None) for item in "abcd"))
    assert Outcomes.of(data, leave_last(data, 1, 1).validation).labels == {}


def test_each_user_has_the_rows_of_their_own_items() -> None:
    data = dataset(
        *(
            (user, item, "rating", value)
            for user in "uv"
            for item, value in (("a", 1.0), ("b", 2.0), ("c", 5.0))
        )
    )
    split = leave_last(data, 1, 1)
    assert [Outcomes.of(data, split.test)[user]["like"].tolist() for user in (0, 1)] == [[1], [1]]
    assert split.validation.first_time_ms(1) == 5000  # the fifth event is v's second
