"""Items that users rejected, as examples hold them: the newest, and none of a later moment."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.schema import INTERACTIONS_SCHEMA, ITEMS_SCHEMA, build_dataset
from tastemaker.data.splits import Histories, leave_last
from tastemaker.features.rejected import rejections
from tastemaker_training.rows.example_files import (
    NEWEST_REJECTED,
    write_examples,
    write_histories,
)


def histories_of(lists):
    """Histories whose event n happened at 10 n."""
    histories = Histories.from_lists(lists)
    return Histories(histories.offsets, histories.item_index, np.arange(len(histories.item_index)) * 10)


def test_rejected_items_of_examples_by_hand(tmp_path):
    left = Histories(
        np.array([0, 3, 4, 5]), np.array([7, 8, 9, 3, 2], np.int32), np.array([19, 20, 21, 0, 60])
    )
    write_histories(tmp_path / "histories", histories_of([[4, 5, 6, 4], [9], [7, 8]]), left)
    (file,) = write_examples(tmp_path / "histories", tmp_path, max_history=2)
    table = pq.read_table(file)
    assert table["timestamp_ms"].to_pylist() == [10, 20, 30, 60]
    assert table["rejected"].to_pylist() == [
        [],
        [7],
        [7, 8, 9],
        [],
    ]  # what is known at the same moment is not before


def test_an_example_has_the_newest_rejected_items(tmp_path):
    times = np.arange(NEWEST_REJECTED + 3)
    left = Histories(np.array([0, len(times)]), times.astype(np.int32), times)
    taken = Histories(np.array([0, 2]), np.array([1, 2], np.int32), np.array([0, NEWEST_REJECTED + 1]))
    write_histories(tmp_path / "histories", taken, left)
    (file,) = write_examples(tmp_path / "histories", tmp_path, max_history=2)
    assert pq.read_table(file)["rejected"].to_pylist() == [list(range(1, NEWEST_REJECTED + 1))]


def test_rejections_count_in_the_size_of_a_part(tmp_path):
    left = Histories(np.array([0, 10, 10]), np.zeros(10, np.int32), np.zeros(10, np.int64))
    write_histories(tmp_path / "histories", histories_of([[1, 2], [3, 4]]), left, events_per_part=7)  # of 14
    assert pq.ParquetFile(tmp_path / "histories").num_row_groups == 2


shown_or_taken = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9), st.booleans(), st.integers(0, 40)),
    min_size=1,
    max_size=60,
)


@given(shown_or_taken, st.integers(0, 12), st.integers(1, 20))
@settings(max_examples=80, deadline=None)
def test_no_example_knows_a_rejection_before_its_window_has_ended(
    tmp_path_factory, events, window_ms, events_per_part
):
    """A world's own rows, through rejections, the split and both files, against what each user's rows say."""
    rows = [
        (f"u{user}", f"i{item}", "click" if taken else "impression", at) for user, item, taken, at in events
    ]
    rows += [(f"u{user}", f"i{item}", "click", 50 + item) for user in range(4) for item in (0, 1)]
    names, items, kinds, times = (list(column) for column in zip(*rows, strict=True))
    live = {"value": [None] * len(rows), "origin": ["live"] * len(rows)}
    live |= dict.fromkeys(("position", "device"), [None] * len(rows))
    columns = {"user_id": names, "item_id": items, "kind": kinds, "timestamp_ms": times} | live
    table = pa.table({name: columns[name] for name in INTERACTIONS_SCHEMA.names}, schema=INTERACTIONS_SCHEMA)
    bare = {"title": "", "category": "", "tags": [], "created_at_ms": None}
    catalogue = [{"item_id": f"i{item}"} | bare for item in range(10)]
    dataset = build_dataset(table, pa.Table.from_pylist(catalogue, ITEMS_SCHEMA))
    train = leave_last(dataset).train
    folder = tmp_path_factory.mktemp("world")
    write_histories(folder / "histories", train, rejections(table, dataset, window_ms), events_per_part)
    examples = pa.concat_tables(
        pq.read_table(file) for file in write_examples(folder / "histories", folder, 5)
    ).to_pylist()
    users = train.user_index[np.arange(len(train.item_index)) > train.offsets[train.user_index]]
    assert len(examples) == len(users)
    for user, example in zip(users, examples, strict=True):
        mine = [(int(i[1:]), kind, at) for u, i, kind, at in rows if u == dataset.user_ids[user]]
        known = sorted(
            (at + window_ms, item)
            for item, kind, at in mine
            if kind == "impression" and at + window_ms < example["timestamp_ms"]
            and not any(i == item and k == "click" and at <= t <= at + window_ms for i, k, t in mine)
        )  # fmt: skip
        newest = known[-NEWEST_REJECTED:]
        assert len(example["rejected"]) == len(newest)
        # Those of one moment may come in any order, so that the oldest moment may be cut anywhere.
        assert set(example["rejected"]) <= {item for at, item in known if at >= newest[0][0]}
