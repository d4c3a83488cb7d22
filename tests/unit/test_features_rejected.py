import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, build_dataset
from tastemaker.data.splits import Histories
from tastemaker.features.rejected import rejected_before, rejections


def interactions(rows: list[tuple[str, str, str, int]]) -> pa.Table:
    users, items, kinds, times = zip(*rows, strict=True)
    columns = {
        "user_id": users, "item_id": items, "kind": kinds, "value": [None] * len(rows),
        "timestamp_ms": times, "origin": ["live"] * len(rows), "position": [None] * len(rows),
        "device": [None] * len(rows),
    }  # fmt: skip
    return pa.table({name: list(column) for name, column in columns.items()}, schema=INTERACTIONS_SCHEMA)


def items(*ids: str) -> pa.Table:
    columns = {"item_id": ids, "title": ids, "category": ids, "tags": [[]] * len(ids)}
    columns["created_at_ms"] = [None] * len(ids)
    return pa.table({name: list(column) for name, column in columns.items()}, schema=ITEMS_SCHEMA)


def test_an_impression_is_a_rejection_unless_a_positive_event_follows_in_its_window():
    table = interactions(
        [
            ("ann", "x", "impression", 100),
            ("ann", "x", "click", 150),  # in the window: taken
            ("ann", "y", "click", 90),  # before the impression, which is left
            ("ann", "y", "impression", 100),
            ("ann", "z", "impression", 120),
            ("ann", "z", "click", 171),  # a moment too late
            ("ben", "z", "impression", 60),
            ("ben", "x", "impression", 40),
            ("ben", "y", "dislike", 41),  # no positive event
            ("ben", "y", "impression", 41),
            ("ben", "w", "like", 500),
            ("eve", "x", "impression", 10),  # has no examples
            ("ben", "gone", "impression", 10),  # is no item of the catalogue any more
        ]
    )
    dataset = build_dataset(table, items("w", "x", "y", "z"))
    found = rejections(table, dataset, window_ms=50)
    assert dataset.user_ids == ["ann", "ben"]
    assert found.offsets.tolist() == [0, 2, 5]
    assert found.item_index.tolist() == [2, 3, 1, 2, 3]
    assert found.timestamp_ms.tolist() == [150, 170, 90, 91, 110]


def test_the_newest_that_were_known_by_hand():
    known = Histories(np.array([0, 3, 3, 5]), np.array([7, 8, 9, 4, 5], np.int32), np.array([1, 2, 3, 2, 2]))
    found = rejected_before(known, np.array([0, 1, 2, 0, 2]), np.array([3, 9, 2, 9, 3]), newest=2)
    assert found.lengths_B.tolist() == [2, 0, 0, 2, 2]
    assert found.item_V.tolist() == [7, 8, 8, 9, 4, 5]


events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans(), st.integers(0, 30)),
    min_size=1,
    max_size=40,
)


@given(events, st.integers(0, 10), st.integers(0, 40), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_no_example_knows_what_came_later(drawn, window_ms, now_ms, newest):
    rows = [
        (f"u{user}", f"i{item}", "click" if positive else "impression", at)
        for user, item, positive, at in drawn
    ]
    rows += [(f"u{user}", "i0", "click", 100 + window_ms) for user in range(4)]  # everybody is a user
    table = interactions(rows)
    dataset = build_dataset(table, items(*(f"i{item}" for item in range(5))))
    users = np.arange(dataset.num_users)
    found = rejected_before(
        rejections(table, dataset, window_ms), users, np.full(len(users), now_ms), newest=newest
    )
    for user, found_items in zip(users, np.split(found.item_V, np.cumsum(found.lengths_B)), strict=False):
        mine = [row[1:] for row in rows if row[0] == dataset.user_ids[user]]
        expected = [
            item
            for item, kind, at in mine
            if kind == "impression"
            and at + window_ms < now_ms
            and not any(i == item and k == "click" and at <= t <= at + window_ms for i, k, t in mine)
        ]
        assert len(found_items) == min(len(expected), newest)
        assert {dataset.item_ids[item] for item in found_items} <= set(expected)
