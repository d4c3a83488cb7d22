import itertools

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import DataError, UsageError
from tastemaker_training.rows.row_groups import RowGroupReader
from tastemaker_training.rows.stream import RowStream, StreamConfig, _take

COLUMNS = ["row", "bag"]


def table(rows):
    """Row r has the bag [r, r, …] of r % 4 values: a bag tells whose it is."""
    return pa.table(
        {
            "bag": pa.array([[row] * (row % 4) for row in rows], pa.list_(pa.int32())),
            "row": pa.array(rows, pa.int64()),
            "unread": pa.array([""] * len(rows)),
        }
    )


def write(path, rows, rows_per_group=5, **options):
    pq.write_table(table(rows), path, row_group_size=rows_per_group, **options)
    return path


def write_files(folder, sizes, rows_per_group=5):
    """Files of these sizes, rows numbered through."""
    starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    return [
        write(folder / f"{at}.parquet", list(range(*span)), rows_per_group)
        for at, span in enumerate(itertools.pairwise(starts))
    ]


def stream(files, columns=COLUMNS, **changes):
    names = ("lanes", "shuffle_groups")
    config = StreamConfig(**{name: changes.pop(name) for name in names if name in changes})
    return RowStream(files, columns, config, **({"seed": 7, "batch_size": 12} | changes))


def rows_of(batches):
    return [batch["row"].to_pylist() for batch in batches]


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stream")


shapes = st.fixed_dictionaries(
    {
        "lanes": st.sampled_from([1, 2, 6, 12]),
        "shuffle_groups": st.integers(1, 3),
    }
)
sizes = st.lists(st.integers(0, 40), min_size=1, max_size=4).filter(lambda sizes: sum(sizes) >= 12)


@given(sizes, shapes, st.integers(12, 30), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_an_epoch_has_every_row_once_but_for_less_than_a_batch(folder, sizes, shape, batch_size, per_group):
    rows = stream(write_files(folder, sizes, per_group), batch_size=batch_size, **shape)
    batches = list(rows.batches(epoch=1))
    seen = flat(rows_of(batches))
    assert len(batches) == rows.num_steps == sum(sizes) // rows.batch_size
    assert {len(batch) for batch in batches} == {rows.batch_size}
    assert rows.batch_size == min(batch_size, sum(sizes)) // shape["lanes"] * shape["lanes"]
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(sum(sizes)))
    assert sum(sizes) - len(seen) < rows.batch_size
    for batch in batches:
        assert batch.column_names == COLUMNS
        assert batch["bag"].to_pylist() == [[row] * (row % 4) for row in batch["row"].to_pylist()]


@given(sizes, st.integers(1, 3), st.integers(12, 30))
@settings(max_examples=30, deadline=None)
def test_ranks_laid_end_to_end_are_the_batch_of_one_rank(folder, sizes, shuffle_groups, batch_size):
    files = write_files(folder, sizes)
    changes = {"batch_size": batch_size, "shuffle_groups": shuffle_groups}
    whole = rows_of(stream(files, **changes).batches(epoch=2))
    for num_ranks in (2, 3, 4, 6, 12):
        ranks = [stream(files, rank=rank, num_ranks=num_ranks, **changes) for rank in range(num_ranks)]
        assert {rank.num_steps for rank in ranks} == {len(whole)}
        parts = [rows_of(rank.batches(epoch=2)) for rank in ranks]
        assert [flat(step) for step in zip(*parts, strict=True)] == whole


@given(sizes, shapes, st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_an_epoch_goes_on_at_any_step_as_if_never_left(folder, sizes, shape, first_step):
    rows = stream(write_files(folder, sizes), **shape)
    whole = rows_of(rows.batches(epoch=0))
    assert rows_of(rows.batches(epoch=0, first_step=first_step)) == whole[first_step:]


def test_lanes_read_their_parts_of_the_order_by_hand(tmp_path):
    rows = stream([write(tmp_path / "f", list(range(8)), 2)], lanes=2, shuffle_groups=1, batch_size=4)
    first, second = rows_of(rows.batches(epoch=3))
    order = np.random.default_rng((7, 3)).permutation(4)  # group g holds rows 2g and 2g + 1
    both = {group: {2 * group, 2 * group + 1} for group in order.tolist()}
    assert (set(first[:2]), set(first[2:])) == (both[order[0]], both[order[2]])
    assert (set(second[:2]), set(second[2:])) == (both[order[1]], both[order[3]])


def test_a_window_mixes_as_many_row_groups_as_it_is_told(tmp_path):
    files = [write(tmp_path / "f", list(range(400)), 10)]
    for shuffle_groups in (1, 4):
        rows = stream(files, lanes=1, shuffle_groups=shuffle_groups, batch_size=10 * shuffle_groups)
        steps = rows_of(rows.batches(epoch=0))
        assert {len({row // 10 for row in step}) for step in steps} == {shuffle_groups}
        assert len({tuple(row % 10 for row in step) for step in steps}) == len(steps)  # each its own order


def test_epochs_and_seeds_have_orders_of_their_own(tmp_path):
    files = [write(tmp_path / "f", list(range(60)))]
    orders = [
        flat(rows_of(stream(files, seed=seed).batches(epoch))) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(order) == list(range(60)) for order in orders)
    assert all(one != other for one, other in itertools.combinations(orders, 2))


def test_the_order_in_which_files_are_named_does_not_count(tmp_path):
    files = write_files(tmp_path, [20, 30, 10])
    forward, backward = stream(files), stream(files[::-1])
    assert forward.describe() == backward.describe()
    assert rows_of(forward.batches(0)) == rows_of(backward.batches(0))


def test_rows_of_lists_are_taken_wherever_their_values_lie():
    values = pa.array([9, 9, 1, 2, 3], pa.int16()).slice(2)
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 1, 3], pa.int32()), values)
    texts = pa.array([["a"], [], ["b", "c"]])
    whole = pa.table({"lists": lists, "texts": texts, "empty": pa.array([[]] * 3, pa.list_(pa.int32()))})
    for part, rows in ((whole, [2, 0, 1, 2]), (whole.slice(1), [1, 0]), (whole, [])):
        taken = _take(part, np.array(rows, np.int64))
        taken.validate(full=True)
        assert taken.to_pylist() == [part.to_pylist()[row] for row in rows]


def allocated(files):
    """Arrow bytes that an epoch holds at most, between its steps."""
    before = pa.total_allocated_bytes()
    held = [
        pa.total_allocated_bytes() - before
        for _ in stream(files, lanes=4, shuffle_groups=2, batch_size=40).batches(epoch=0)
    ]
    return max(held)


def test_memory_is_that_of_the_lanes_windows_however_long_the_data_is(tmp_path):
    short = [write(tmp_path / "short", list(range(4_000)), 100)]
    long = [write(tmp_path / "long", list(range(40_000)), 100)]
    window = table(list(range(200))).select(COLUMNS).nbytes
    assert allocated(long) <= allocated(short) * 1.05  # which windows coincide differs
    assert allocated(long) <= 6 * window  # four lanes, a batch, what other threads of the process hold


def count_reads(monkeypatch):
    reads, read = [], RowGroupReader.read
    monkeypatch.setattr(RowGroupReader, "read", lambda self, group: reads.append(group) or read(self, group))
    return reads


def test_an_epoch_reads_each_row_group_once_but_for_those_that_two_lanes_share(tmp_path, monkeypatch):
    reads = count_reads(monkeypatch)
    rows = stream([write(tmp_path / "f", list(range(1_000)), 7)], lanes=4)
    list(rows.batches(epoch=0))
    assert set(reads) == set(range(143))  # 1,000 / 7, rounded up
    assert len(reads) <= 143 + 3


def test_seeking_reads_no_more_than_the_windows_of_its_step(tmp_path, monkeypatch):
    rows = stream([write(tmp_path / "f", list(range(10_000)), 10)], lanes=4, shuffle_groups=2)
    reads = count_reads(monkeypatch)
    next(rows.batches(epoch=0, first_step=rows.num_steps // 2))
    assert 4 <= len(reads) <= 4 * 2 * 2  # a step may end in the next window


def test_a_description_tells_streams_with_other_rows_apart(tmp_path):
    files = write_files(tmp_path, [30, 30])
    base = stream(files)
    assert base.describe() == {
        "fingerprint": base.fingerprint, "seed": 7, "batch_size": 12, "lanes": 12, "shuffle_groups": 4,
    }  # fmt: skip
    assert stream(files, rank=1, num_ranks=2).describe() == base.describe()
    moved = tmp_path / "moved"
    moved.mkdir()
    assert stream(write_files(moved, [30, 30])).fingerprint == base.fingerprint
    assert stream(write_files(moved, [30, 30], rows_per_group=6)).fingerprint != base.fingerprint
    assert stream(write_files(moved, [31, 29])).fingerprint != base.fingerprint
    files[0].rename(tmp_path / "other.parquet")
    assert stream([tmp_path / "other.parquet", files[1]]).fingerprint != base.fingerprint


def test_ranks_that_cannot_share_the_lanes_are_refused(tmp_path):
    files = [write(tmp_path / "f", list(range(60)))]
    with pytest.raises(UsageError, match=r"--workers, is 5, must be one of 1, 2, 3, 4, 6, 12, .* 12 lanes"):
        stream(files, num_ranks=5)
    with pytest.raises(UsageError, match="one of 1, 2, 4, since they share 4 lanes"):
        StreamConfig(lanes=4).check_ranks(8)


def test_fewer_rows_than_lanes_are_refused(tmp_path):
    with pytest.raises(DataError, match="rows of a step, is 11, must be at least one for each of 12 lanes"):
        stream([write(tmp_path / "f", list(range(11)))])
    with pytest.raises(DataError, match="rows of a step, is 8, must be at least one for each of 12 lanes"):
        stream([write(tmp_path / "f", list(range(50)))], batch_size=8)
    with pytest.raises(DataError, match="files to train on, is 0, must be at least 1"):
        stream([])


def test_a_file_that_is_gone_cut_short_or_no_parquet_is_named_at_once(tmp_path):
    good = write(tmp_path / "a", list(range(60)))
    cut = write(tmp_path / "cut", list(range(60)))
    cut.write_bytes(cut.read_bytes()[:-20])
    (tmp_path / "text").write_text("row,bag\n" * 9)
    for name in ("cut", "text", "gone"):
        with pytest.raises(DataError, match=f"{name} cannot be read, is .*: make the file again"):
            stream([good, tmp_path / name])


def test_columns_must_be_there_and_of_one_type(tmp_path):
    files = [write(tmp_path / "a", list(range(60)))]
    with pytest.raises(DataError, match="a lacks column missing, is 'a table of bag, row, unread'"):
        stream(files, ["row", "missing"])
    pq.write_table(table([1]).set_column(1, "row", pa.array([1.0])), tmp_path / "b")
    with pytest.raises(
        DataError, match=r"column row of .*b, is 'double', must be int64 as in the first file: make"
    ):
        stream([*files, tmp_path / "b"])


@pytest.mark.parametrize(("column", "value"), [("row", None), ("bag", None), ("bag", [1, None, 2])])
def test_a_null_is_named_by_file_and_row(tmp_path, column, value):
    good = table(list(range(60)))
    values = good[column].to_pylist()
    values[43] = value
    at = good.column_names.index(column)
    bad = good.set_column(at, column, pa.array(values, good.schema.field(column).type))
    pq.write_table(bad, tmp_path / "bad.parquet", row_group_size=10)
    with pytest.raises(DataError, match=f"bad.parquet, row 44: {column}, is 'null', must be set"):
        list(stream([tmp_path / "bad.parquet"]).batches(epoch=0))


def test_a_damaged_page_is_named_by_file_and_rows(tmp_path):
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    file = write(tmp_path / "f", list(range(60)), 20, **options)
    column = pq.ParquetFile(file).metadata.row_group(1).column(1)
    assert column.path_in_schema == "row"
    content = bytearray(file.read_bytes())
    content[column.data_page_offset + column.total_compressed_size - 4] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"f, rows 21 to 40, cannot be read, is .*: make the file again"):
        list(stream([file]).batches(epoch=0))
