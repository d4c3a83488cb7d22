"""Rows of Parquet files as the batches of training: in an order of its own each epoch, and never the whole data in memory.

An epoch is one sequence: the row groups of all files in an order that (seed, epoch) decides. Lane l of `lanes` reads
the l-th of equal parts of it, shuffles its rows in windows of a few row groups, and gives its share of each step. The
lanes are dealt to the ranks in order. So the global batch of (epoch, step) is the same rows in the same order whatever
the number of ranks is, a place in the data is (epoch, step) and nothing else, and to seek there costs no reads.

Not for what a row means (`features.examples`) or for reading files (`row_groups`).

Shape letters: G row groups, in the epoch's order.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from tastemaker.errors import DataError, UsageError
from tastemaker.strict import Strict
from tastemaker.types import Int64
from tastemaker_training.rows.row_groups import RowGroupReader, RowGroups


class StreamConfig(Strict):
    """In which order training reads its rows."""

    lanes: int = Field(
        12, ge=1, description="places of the data that a batch is mixed from; ranks share them"
    )
    shuffle_groups: int = Field(4, ge=1, description="row groups that a lane holds and mixes at once")

    def check_ranks(self, num_ranks: int) -> None:
        """Lets pass a number of ranks that can share the lanes.

        Raises:
            UsageError: It does not divide them.
        """
        allowed = [count for count in range(1, self.lanes + 1) if self.lanes % count == 0]
        if num_ranks not in allowed:
            raise UsageError(
                "--workers", value=num_ranks,
                limit=f"one of {', '.join(map(str, allowed))}, since they share {self.lanes} lanes",
                mend="ask for another number, or set `lanes` of the recipe's stream",
            )  # fmt: skip


class RowStream:
    """One rank's part of the rows of some files. All ranks know the number of steps without a word between them.

    Iterators of `batches` do not disturb each other.

    Args:
        files: Parquet; small row groups of about one size mix best and keep memory low.
        columns: Those that are read.
        config: Of the order.
        seed: Of the order.
        batch_size: Rows of a step, all ranks together, before it is fitted to rows and lanes.
        rank: This rank.
        num_ranks: All ranks.

    Attributes:
        num_rows: Of all files.
        batch_size: Rows of a step, all ranks together: at most `num_rows`, and a multiple of the lanes.
        num_steps: Steps of an epoch: whole batches only. The rows left over, fewer than a batch, differ by epoch.
        fingerprint: SHA-256 of the files' names, sizes and row groups.

    Raises:
        DataError: A file cannot be used, or there are fewer rows than lanes.
        UsageError: The ranks cannot share the lanes.
    """

    def __init__(
        self,
        files: Sequence[Path],
        columns: Sequence[str],
        config: StreamConfig,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        config.check_ranks(num_ranks)
        self._groups, self._config, self._seed = RowGroups(files, columns), config, seed
        each = config.lanes // num_ranks
        self._lanes = range(rank * each, (rank + 1) * each)
        self.num_rows = int(self._groups.num_rows_G.sum())
        self.batch_size = min(batch_size, self.num_rows) // config.lanes * config.lanes
        if self.batch_size == 0:
            raise DataError(
                "rows of a step", value=min(batch_size, self.num_rows), limit=f"at least one for each of {config.lanes} lanes",
                mend="import more events, set a larger `batch_size`, or fewer `lanes` of the recipe's stream",
            )  # fmt: skip
        self.num_steps = self.num_rows // self.batch_size
        self.fingerprint = self._groups.fingerprint

    def describe(self) -> dict[str, Any]:
        """All that decides which rows the batch of (epoch, step) has; JSON."""
        return {
            "fingerprint": self.fingerprint,
            "seed": self._seed,
            "batch_size": self.batch_size,
            "lanes": self._config.lanes,
            "shuffle_groups": self._config.shuffle_groups,
        }

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[pa.Table]:
        """This rank's rows of an epoch's steps from `first_step` on: an equal share of each, one chunk a column.

        Laid end to end in order of rank they are the global batch.

        Raises:
            DataError: Rows cannot be read, or hold a null; names file and row.
        """
        reader = RowGroupReader(self._groups)
        order_G = np.random.default_rng((self._seed, epoch)).permutation(len(self._groups.num_rows_G))
        share = self.batch_size // self._config.lanes
        lanes = [
            _cut(self._windows(reader, order_G, epoch, lane, first_step * share), share)
            for lane in self._lanes
        ]
        for _ in range(first_step, self.num_steps):
            yield pa.concat_tables([part for lane in lanes for part in next(lane)]).combine_chunks()

    def _windows(
        self, reader: RowGroupReader, order_G: Int64, epoch: int, lane: int, skip: int
    ) -> Iterator[pa.Table]:
        """A lane's shuffled windows, less its first `skip` rows; windows that lie within these are not read."""
        # The first window is shorter in some lanes than in others, so that not all of them read in the same step.
        windows = groupby(
            enumerate(self._pieces(order_G, lane), lane), lambda at: at[0] // self._config.shuffle_groups
        )
        for window, members in windows:
            pieces = [piece for _, piece in members]
            num_rows = sum(piece.end - piece.begin for piece in pieces)
            if num_rows > skip:
                # The epoch's order has (seed, epoch): trailing zeros do not count in a seed, hence lane + 1.
                random = np.random.default_rng((self._seed, epoch, lane + 1, window))
                yield _take(_read(reader, pieces), random.permutation(num_rows)[skip:])
            skip = max(skip - num_rows, 0)

    def _pieces(self, order_G: Int64, lane: int) -> list["_Piece"]:
        """A lane's part of the epoch's sequence."""
        num_rows_G = self._groups.num_rows_G[order_G]
        end_G = np.cumsum(num_rows_G)
        length = self.num_rows // self._config.lanes
        begin, end = lane * length, (lane + 1) * length
        inside = slice(np.searchsorted(end_G, begin, "right"), np.searchsorted(end_G, end, "left") + 1)
        start_G = end_G[inside] - num_rows_G[inside]
        first_G, last_G = np.maximum(begin - start_G, 0), np.minimum(end - start_G, num_rows_G[inside])
        return [
            _Piece(*piece)
            for piece in zip(order_G[inside].tolist(), first_G.tolist(), last_G.tolist(), strict=True)
        ]


class _Piece(NamedTuple):
    """The rows from `begin` to before `end` of a row group."""

    group: int
    begin: int
    end: int


def _read(reader: RowGroupReader, pieces: Sequence[_Piece]) -> pa.Table:
    parts = [reader.read(piece.group).slice(piece.begin, piece.end - piece.begin) for piece in pieces]
    return pa.concat_tables(parts).combine_chunks()


def _take(table: pa.Table, rows: Int64) -> pa.Table:
    """The given rows of a table whose columns are one chunk each and hold no nulls."""
    arrays = [
        _take_lists(column.chunk(0), rows) if _is_list(column.type) else column.chunk(0).take(rows)
        for column in table.columns
    ]
    return pa.table(arrays, schema=table.schema)


def _is_list(kind: Any) -> bool:
    """Whether an Arrow type is of lists of numbers of whole bytes."""
    return pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type) and kind.value_type.bit_width > 1


def _take_lists(array: Any, rows: Int64) -> Any:
    """What `take` gives, 8 times as fast: of lists Arrow copies value by value, of bytes row by row."""
    values, width = array.values, array.type.value_type.bit_width // 8
    byte_offsets = (array.offsets.to_numpy().astype(np.int64) + values.offset) * width
    buffers = [None, pa.py_buffer(byte_offsets), values.buffers()[1]]
    taken: Any = pa.Array.from_buffers(pa.large_binary(), len(array), buffers).take(rows)
    offsets = np.frombuffer(taken.buffers()[1], np.int64)[: len(rows) + 1] // width
    inner = pa.Array.from_buffers(array.type.value_type, int(offsets[-1]), [None, taken.buffers()[2]])
    return pa.Array.from_buffers(
        array.type, len(rows), [None, pa.py_buffer(offsets.astype(np.int32))], children=[inner]
    )


def _cut(windows: Iterator[pa.Table], num_rows: int) -> Iterator[list[pa.Table]]:
    """The rows of all windows as parts of `num_rows` together; what is left at the end is dropped."""
    parts: list[pa.Table] = []
    missing = num_rows
    for window in windows:
        begin = 0
        while window.num_rows - begin >= missing:
            yield [*parts, window.slice(begin, missing)]
            parts, begin, missing = [], begin + missing, num_rows
        parts.append(window.slice(begin))
        missing -= window.num_rows - begin
