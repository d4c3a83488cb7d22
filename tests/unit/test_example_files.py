import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.data.splits import Histories
from tastemaker.errors import DataError
from tastemaker_training.rows.example_files import (
    EXAMPLES_SCHEMA,
    HISTORIES_SCHEMA,
    examples_of,
    write_examples,
    write_histories,
)
from tastemaker_training.rows.stream import RowStream, StreamConfig


def histories_of(lists):
    """Histories whose event n happened at 10 n."""
    histories = Histories.from_lists(lists)
    return Histories(histories.offsets, histories.item_index, np.arange(len(histories.item_index)) * 10)


def table_of(lists):
    times = np.split(np.arange(sum(map(len, lists))) * 10, np.cumsum([len(items) for items in lists]))[:-1]
    none = [[] for _ in lists]
    devices = [[0] * len(items) for items in lists]
    columns = [range(len(lists)), lists, [part.tolist() for part in times], devices, none, none]
    return pa.table(
        [pa.array(column, kind) for column, kind in zip(columns, HISTORIES_SCHEMA.types, strict=True)],
        schema=HISTORIES_SCHEMA,
    )


def pairs(lists, max_history):
    return [
        (items[max(at - max_history, 0) : at], items[at]) for items in lists for at in range(1, len(items))
    ]


def as_pairs(table):
    return list(zip(table["history"].to_pylist(), table["target"].to_pylist(), strict=True))


lists_of_items = st.lists(st.lists(st.integers(0, 99), max_size=7), min_size=1, max_size=12)


def test_examples_by_hand():
    table = examples_of(table_of([[4, 5, 6, 4], [9], [], [7, 8]]), max_history=2)
    assert table.schema == EXAMPLES_SCHEMA
    assert table.to_pydict() == {
        "history": [[4], [4, 5], [5, 6], [7]],
        "target": [5, 6, 4, 8],
        "timestamp_ms": [10, 20, 30, 60],  # 9, the lone item between, was at 40
        "device": [0, 0, 0, 0],
        "rejected": [[], [], [], []],
    }


def test_an_example_has_the_device_of_its_target(tmp_path):
    histories = replace(
        histories_of([[4, 5, 6], [9], [7, 8]]), device_row=np.array([1, 0, 4, 3, 2, 5], np.int8)
    )
    write_histories(tmp_path / "histories", histories, events_per_part=3)
    assert pq.ParquetFile(tmp_path / "histories").num_row_groups == 2
    tables = [pq.read_table(file) for file in write_examples(tmp_path / "histories", tmp_path, max_history=2)]
    assert [table["device"].to_pylist() for table in tables] == [[0, 4], [5]]


@given(lists_of_items, st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_examples_are_every_item_with_the_newest_before_it(lists, max_history, first):
    assert as_pairs(examples_of(table_of(lists), max_history)) == pairs(lists, max_history)
    part = table_of(lists).slice(first)
    assert as_pairs(examples_of(part, max_history)) == pairs(lists[first:], max_history)


@given(lists_of_items, st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_histories_come_back_from_their_file_in_parts_of_whole_users(tmp_path_factory, lists, per_part):
    path = tmp_path_factory.getbasetemp() / "histories"
    write_histories(path, histories_of(lists), events_per_part=per_part)
    file = pq.ParquetFile(path)
    assert file.read().equals(table_of(lists))
    num_events = [
        sum(map(len, file.read_row_group(part)["items"].to_pylist())) for part in range(file.num_row_groups)
    ]
    assert max(num_events) <= per_part + max(map(len, lists))


def test_files_hold_all_examples_in_balanced_row_groups(tmp_path):
    lists = [[user, *range(user % 5)] for user in range(40)]  # 80 examples
    write_histories(tmp_path / "histories", histories_of(lists), events_per_part=60)  # of 120
    folder = tmp_path / "examples"
    folder.mkdir()
    files = write_examples(tmp_path / "histories", folder, max_history=3, rows_per_group=15)
    assert [file.name for file in files] == ["examples-00000.parquet", "examples-00001.parquet"]
    tables = [pq.read_table(file) for file in files]
    assert as_pairs(pa.concat_tables(tables)) == pairs(lists, 3)
    for file in files:
        footer = pq.ParquetFile(file).metadata
        sizes = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        assert max(sizes) <= 15
        assert max(sizes) - min(sizes) <= 1
        assert len(sizes) == -(-footer.num_rows // 15)


def test_the_same_histories_give_the_same_bytes_in_each_part(tmp_path):
    lists = [[user, *range(user % 5)] for user in range(40)]
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        write_histories(folder / "histories", histories_of(lists), events_per_part=30)
        files = write_examples(folder / "histories", folder, max_history=3)
        contents.append([(file.name, file.read_bytes()) for file in files])
    assert contents[0] == contents[1]


def test_a_part_without_examples_has_no_file(tmp_path):
    write_histories(tmp_path / "histories", histories_of([[1], [2], [3, 4], [5, 6]]), events_per_part=2)
    files = write_examples(tmp_path / "histories", tmp_path, max_history=3)
    assert [file.name for file in files] == ["examples-00001.parquet", "examples-00002.parquet"]


def test_histories_without_a_pair_are_refused(tmp_path):
    for lists in ([[1], [], [2]], [[]]):
        write_histories(tmp_path / "histories", histories_of(lists))
        with pytest.raises(DataError, match="histories of two items or more, is 0, must be at least 1"):
            write_examples(tmp_path / "histories", tmp_path, max_history=3)


def write_bad(path, rows_per_group=1, **changes):
    """A file of two good users and a third that the changes spoil."""
    columns = {"user": [0, 1, 2], "items": [[1, 2]] * 3, "timestamp_ms": [[5, 6]] * 3, "device": [[0, 1]] * 3}
    columns |= {"rejected": [[3, 4]] * 3, "rejected_ms": [[1, 2]] * 3}
    for name, value in changes.items():
        columns[name] = [*columns[name][:2], value]
    pq.write_table(pa.table(columns, schema=HISTORIES_SCHEMA), path, row_group_size=rows_per_group)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": [1, None]}, "row 3: items, is 'null', must be set"),
        ({"items": None}, "row 3: items, is 'null', must be set"),
        ({"timestamp_ms": [5]}, "row 3: number of timestamp_ms, is 1, must be 2, as of items"),
        (
            {"timestamp_ms": [6, 5]},
            "row 3: timestamp_ms, is 'falling', must be oldest first: sort the events",
        ),
        ({"device": [1]}, "row 3: number of device, is 1, must be 2, as of items"),
        ({"rejected": [3]}, "row 3: number of rejected_ms, is 2, must be 1, as of rejected"),
        ({"rejected_ms": [2, 1]}, "row 3: rejected_ms, is 'falling', must be oldest first: sort the events"),
    ],
)
def test_bad_histories_are_named_by_file_and_row(tmp_path, changes, message):
    write_bad(tmp_path / "bad", **changes)
    with pytest.raises(DataError, match=f"bad, {message}"):
        write_examples(tmp_path / "bad", tmp_path, max_history=3)


def test_times_may_be_equal_and_fall_between_users(tmp_path):
    write_bad(tmp_path / "fine", rows_per_group=3, timestamp_ms=[4, 4])
    (file,) = write_examples(tmp_path / "fine", tmp_path, max_history=3)
    assert pq.read_table(file)["timestamp_ms"].to_pylist() == [6, 6, 4]


def test_columns_of_other_types_are_refused(tmp_path):
    table = table_of([[1, 2]])
    pq.write_table(table.set_column(1, "items", pa.array([[1.0, 2.0]])), tmp_path / "bad")
    with pytest.raises(
        DataError, match=r"column items of .*bad, is 'list<.*double>', must be list<.*int32>: make"
    ):
        write_examples(tmp_path / "bad", tmp_path, max_history=3)


def test_examples_stream(tmp_path):
    lists = [[user, *range(user % 5)] for user in range(40)]
    write_histories(tmp_path / "histories", histories_of(lists), events_per_part=30)
    files = write_examples(tmp_path / "histories", tmp_path, max_history=3, rows_per_group=8)
    stream = RowStream(files, EXAMPLES_SCHEMA.names, StreamConfig(lanes=4), seed=0, batch_size=20)
    seen = [pair for batch in stream.batches(epoch=0) for pair in as_pairs(batch)]
    assert stream.num_steps == 4
    assert sorted(seen) == sorted(pairs(lists, 3))


RAY = """
import sys
from pathlib import Path
from tastemaker.config import Settings
from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker_training.rows.example_files import write_examples
from tastemaker_training.distributed.workers import start_ray

folder = Path(sys.argv[1])
start_ray(Settings(), Home.make(folder / "home"))
files = write_examples(folder / "histories", folder / "ray", 3, 15, parts_without_ray=0)
print([file.name for file in files])
try:
    write_examples(folder / "bad", folder / "bad-examples", 3, parts_without_ray=0)
except DataError as error:
    print(error)
"""


@pytest.mark.slow
def test_ray_data_writes_the_same_bytes_and_raises_the_same_errors(tmp_path):
    lists = [[user, *range(user % 5)] for user in range(400)]
    write_histories(tmp_path / "histories", histories_of(lists), events_per_part=300)
    write_bad(tmp_path / "bad", timestamp_ms=[6, 5])
    for name in ("here", "ray", "bad-examples"):
        (tmp_path / name).mkdir()
    files = write_examples(tmp_path / "histories", tmp_path / "here", 3, 15)
    assert len(files) == 4
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TASTEMAKER_"))}
    command = [sys.executable, "-c", RAY, str(tmp_path)]
    run = subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=180)
    assert run.returncode == 0, run.stderr[-2000:]
    names, error = run.stdout.splitlines()[-2:]
    assert names == str([file.name for file in files])
    assert error.endswith(
        "bad, row 3: timestamp_ms, is 'falling', must be oldest first: sort the events of each user by time"
    )
    for file in files:
        assert (tmp_path / "ray" / file.name).read_bytes() == file.read_bytes()
