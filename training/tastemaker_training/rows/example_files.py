"""The two-tower's examples as files: each item of a history as target, given only what was known before it.

A file of histories is cut into parts of about as many events, and each part becomes one file of examples. Ray Data
spreads the parts where there are many; it takes 4 s to begin with, so a few are done here. What a file holds depends
on its part alone, so the bytes are the same either way.

Not for how examples are read (`stream`) or what a tower makes of them (`features.examples`).

Shape letters: E examples, V events, U users, all of one part; B some of its examples.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.data.splits import Histories
from tastemaker.errors import DataError, TrainingError
from tastemaker.features.ragged import ranges
from tastemaker.features.rejected import rejected_before
from tastemaker.terminal import progress
from tastemaker.types import Int8, Int32, Int64
from tastemaker_training.rows.row_groups import RowGroupReader, RowGroups

HISTORIES_SCHEMA: Final = pa.schema(
    {
        "user": pa.int32(),
        "items": pa.list_(pa.int32()),
        "timestamp_ms": pa.list_(pa.int64()),
        "device": pa.list_(pa.int8()),
        "rejected": pa.list_(pa.int32()),
        "rejected_ms": pa.list_(pa.int64()),
    }
)
"""One row per user: the items that the user took, oldest first, when and from what device (its row, 0 where unknown); and
those that were shown, seen and left, by when this was known. A row group is a part."""

EXAMPLES_SCHEMA: Final = pa.schema(
    {
        "history": pa.list_(pa.int32()),
        "target": pa.int32(),
        "timestamp_ms": pa.int64(),
        "device": pa.int8(),
        "rejected": pa.list_(pa.int32()),
    }
)
"""One row per example: the newest items before the target, oldest first, when and from what device the target was taken,
and the newest items of which it was known before that its user had left them."""

NEWEST_REJECTED = 20
"""Rejected items that an example has at most."""
_EVENTS_PER_PART = 2**20
_PARTS_WITHOUT_RAY = 8
_LAYOUT: Final[dict[str, Any]] = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}


@dataclass(frozen=True)
class _Examples:
    """The (items before, target) pairs of one part, not yet copied out of its histories.

    Example e has the target `item_V[at_E[e]]`, the history `item_V[begin_E[e]:at_E[e]]`, and of `rejected` those of user
    `user_E[e]`.
    """

    item_V: Int32
    timestamp_ms_V: Int64
    device_row_V: Int8
    at_E: Int64
    begin_E: Int64
    user_E: Int64
    rejected: Histories

    def __len__(self) -> int:
        return len(self.at_E)

    @classmethod
    def of(cls, histories: pa.Table, max_history: int) -> Self:
        taken = _histories(histories, "items", "timestamp_ms")
        assert taken.timestamp_ms is not None, "they have times"
        (devices,) = _combined(histories, "device")
        user_V = taken.user_index.astype(np.int64)
        start_V = taken.offsets[user_V]
        later_V = np.arange(len(start_V)) > start_V
        at_E = np.flatnonzero(later_V)
        begin_E = np.maximum(start_V[later_V], at_E - max_history)
        rejected = _histories(histories, "rejected", "rejected_ms")
        return cls(
            taken.item_index, taken.timestamp_ms, devices.flatten().to_numpy(),
            at_E, begin_E, user_V[later_V], rejected,
        )  # fmt: skip

    def rows(self, first: int, last: int) -> pa.Table:
        """The examples from `first` to before `last` as a table."""
        at_B, begin_B, user_B = (array[first:last] for array in (self.at_E, self.begin_E, self.user_E))
        time_B = self.timestamp_ms_V[at_B]
        history = _lists(at_B - begin_B, self.item_V[ranges(begin_B, at_B - begin_B)])
        left = rejected_before(self.rejected, user_B, time_B, NEWEST_REJECTED)
        rejected = _lists(left.lengths_B, left.item_V.astype(np.int32))
        taken = [pa.array(of_V[at_B]) for of_V in (self.item_V, self.timestamp_ms_V, self.device_row_V)]
        columns = [history, *taken, rejected]
        return pa.table(columns, schema=EXAMPLES_SCHEMA)


def examples_of(histories: pa.Table, max_history: int) -> pa.Table:
    """All examples of some histories, user by user and oldest first; a history of one item gives none.

    Args:
        histories: As `HISTORIES_SCHEMA` says.
        max_history: Newest items before its target that an example has at most.
    """
    examples = _Examples.of(histories, max_history)
    return examples.rows(0, len(examples))


def write_histories(
    path: Path,
    histories: Histories,
    rejections: Histories | None = None,
    events_per_part: int = _EVENTS_PER_PART,
) -> None:
    """Writes histories for `write_examples`, in parts of about one size; a user's events stay together.

    Args:
        path: Of the Parquet file.
        histories: With timestamps; unknown devices are row 0.
        rejections: Of the same users, as `features.rejected` finds them; unset: of nothing is known that it was left.
        events_per_part: Events and rejections of a part, near enough.
    """
    if rejections is None:
        rejections = Histories(np.zeros_like(histories.offsets), np.empty(0, np.int32), np.empty(0, np.int64))
    size_U1 = histories.offsets + rejections.offsets
    num_parts = max(-(-int(size_U1[-1]) // events_per_part), 1)
    shares = np.searchsorted(size_U1, np.arange(1, num_parts) * (size_U1[-1] / num_parts))
    cuts = np.unique([0, *shares, len(histories)])
    with pq.ParquetWriter(path, HISTORIES_SCHEMA, **_LAYOUT) as writer:
        for first, last in pairwise(cuts):
            users = pa.array(np.arange(first, last, dtype=np.int32))
            devices = _devices(histories, first, last)
            columns = [users, *_columns(histories, first, last), devices, *_columns(rejections, first, last)]
            writer.write_table(pa.table(columns, schema=HISTORIES_SCHEMA), row_group_size=last - first)


def write_examples(
    histories_file: Path,
    folder: Path,
    max_history: int,
    rows_per_group: int = 4096,
    parts_without_ray: int = _PARTS_WITHOUT_RAY,
) -> list[Path]:
    """Writes the examples of a file of histories, a file for each part that has any, and names the files.

    Args:
        histories_file: What `write_histories` wrote.
        folder: Where the files go; more parts than `parts_without_ray` need a Ray session, whose workers must see it.
        max_history: Newest items before its target that an example has at most.
        rows_per_group: Rows of a row group at most; those of a file differ by one at most.
        parts_without_ray: Parts that are made in this process, where there are no more.

    Raises:
        DataError: The file cannot be used, names file and row; or no history has two items.
    """
    num_parts = len(_groups(histories_file).num_rows_G)
    make = partial(_write_part, histories_file, folder, max_history, rows_per_group)
    made = map(make, range(num_parts)) if num_parts <= parts_without_ray else _by_ray(make, num_parts)
    total = 0
    with progress("writing examples", num_parts) as advance:
        for num_rows in made:
            total += num_rows
            advance(1)
    if total == 0:
        raise DataError(
            "histories of two items or more", value=0, limit="at least 1", mend="import more events"
        )
    return sorted(folder.glob("*.parquet"))


def _by_ray(make: Callable[[int], int], num_parts: int) -> Iterator[int]:
    """What `make` gives for each part, in no order, from the workers of the session that is open."""
    import ray.data

    assert ray.is_initialized()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what fails is raised here
    ray.data.DataContext.get_current().enable_progress_bars = False
    parts = ray.data.range(num_parts, override_num_blocks=num_parts)
    try:
        for row in parts.map(lambda row: _count_or_fault(make, int(row["id"]))).iter_rows():
            if row["fault"]:
                raise DataError(**json.loads(row["fault"]))
            yield int(row["num_rows"])
    except ray.exceptions.RayError as error:
        raise TrainingError("Ray Data could not write the examples", mend="see the home's logs") from error


def _count_or_fault(make: Callable[[int], int], part: int) -> dict[str, Any]:
    """What `make` gives, or the fields of its DataError: Ray Data keeps of an error its text alone."""
    try:
        return {"num_rows": make(part), "fault": ""}
    except DataError as error:
        fields = {name: getattr(error, name) for name in ("what", "value", "limit", "mend")}
        return {"num_rows": 0, "fault": json.dumps(fields)}


def _write_part(histories_file: Path, folder: Path, max_history: int, rows_per_group: int, part: int) -> int:
    """The number of examples of a part, which has a file if there are any."""
    groups = _groups(histories_file)
    histories = RowGroupReader(groups).read(part)
    first_row = groups.first_row(part)
    for items, beside in (("items", "timestamp_ms"), ("items", "device"), ("rejected", "rejected_ms")):
        _check_lengths(histories, items, beside, histories_file, first_row)
    for times in ("timestamp_ms", "rejected_ms"):
        _check_order(histories, times, histories_file, first_row)
    examples = _Examples.of(histories, max_history)
    if len(examples):
        num_groups = -(-len(examples) // rows_per_group)
        bounds = np.arange(num_groups + 1) * len(examples) // num_groups
        with pq.ParquetWriter(folder / f"examples-{part:05}.parquet", EXAMPLES_SCHEMA, **_LAYOUT) as writer:
            for first, last in pairwise(bounds):
                writer.write_table(examples.rows(int(first), int(last)), row_group_size=rows_per_group)
    return len(examples)


def _columns(histories: Histories, first: int, last: int) -> list[Any]:
    """Items and times, as lists, of the users from `first` to before `last`."""
    times = histories.timestamp_ms
    assert times is not None, "these histories do not come from a dataset"
    events = slice(histories.offsets[first], histories.offsets[last])
    lengths = histories.lengths[first:last]
    return [_lists(lengths, histories.item_index[events]), _lists(lengths, times[events])]


def _devices(histories: Histories, first: int, last: int) -> Any:
    """Rows of devices, as lists, of the users from `first` to before `last`."""
    begin, end = histories.offsets[first], histories.offsets[last]
    unknown = np.zeros(end - begin, np.int8)
    return _lists(
        histories.lengths[first:last],
        unknown if histories.device_row is None else histories.device_row[begin:end],
    )


def _lists(lengths: Int64, values: Int8 | Int32 | Int64) -> Any:
    arrays: Any = pa.ListArray  # its stubs take numpy for what is unknown
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return arrays.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def _histories(table: pa.Table, items_column: str, times_column: str) -> Histories:
    items, times = _combined(table, items_column, times_column)
    offsets = np.concatenate([[0], np.cumsum(items.value_lengths().to_numpy())]).astype(np.int64)
    return Histories(offsets, items.flatten().to_numpy(), times.flatten().to_numpy())


def _groups(histories_file: Path) -> RowGroups:
    groups = RowGroups([histories_file], HISTORIES_SCHEMA.names)
    for name, found in groups.types.items():
        wanted = HISTORIES_SCHEMA.field(name).type
        if found != wanted:
            what = f"column {name} of {histories_file}"
            raise DataError(what, value=str(found), limit=str(wanted), mend="make the file again")
    return groups


def _check_lengths(
    histories: pa.Table, items_column: str, beside_column: str, file: Path, first_row: int
) -> None:
    """Raises a DataError that names the row of a user for whom the columns' lists are not of one length."""
    num_items_U, num_beside_U = (
        lists.value_lengths().to_numpy() for lists in _combined(histories, items_column, beside_column)
    )
    for user in np.flatnonzero(num_items_U != num_beside_U):
        what = f"{file}, row {first_row + user}: number of {beside_column}"
        limit = f"{num_items_U[user]}, as of {items_column}"
        raise DataError(what, value=int(num_beside_U[user]), limit=limit, mend="make the file again")


def _check_order(histories: pa.Table, times_column: str, file: Path, first_row: int) -> None:
    """Raises a DataError that names the row of a user whose times are not oldest first."""
    (times,) = _combined(histories, times_column)
    time_V, user_V = times.flatten().to_numpy(), np.repeat(np.arange(len(times)), times.value_lengths())
    for user in user_V[1:][(np.diff(time_V) < 0) & (np.diff(user_V) == 0)]:
        what = f"{file}, row {first_row + user}: {times_column}"
        raise DataError(
            what, value="falling", limit="oldest first", mend="sort the events of each user by time"
        )


def _combined(table: pa.Table, *columns: str) -> list[Any]:
    return [table[column].combine_chunks() for column in columns]
