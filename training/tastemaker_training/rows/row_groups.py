"""The row groups of Parquet files: counted from the footers alone, read one at a time. Not their order (`stream`).

Shape letters: G row groups of all files that have rows, V values of all lists.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from tastemaker.errors import DataError
from tastemaker.types import Int32, Int64
from tastemaker_training.artifacts import digest

pc: Any = pyarrow.compute  # its stubs know neither list arrays nor chunked ones
_UNREADABLE = (OSError, pa.ArrowException)
_MEND = "make the file again"


class RowGroups:
    """What the footers of some files say. Only the footers stay in memory, no file stays open.

    Args:
        files: Taken in order of their names, whatever order they are given in.
        columns: Those that are read, in this order.

    Attributes:
        num_rows_G: Rows of each row group.
        types: Arrow type of each column.
        fingerprint: SHA-256 of each file's name below the folder of them all, its size and its row groups' rows.

    Raises:
        DataError: A file cannot be read, lacks a column, or has it with another type than the first file.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str]) -> None:
        if not files:
            raise DataError("files to train on", value=0, limit="at least 1", mend="import more events")
        self.files, self.columns = sorted(files), list(columns)
        self.footers = []
        self.types: dict[str, Any] = {}
        for file in self.files:
            footer, schema = _footer(file)
            for name in self.columns:
                _check_type(file, schema, name, self.types)
            self.footers.append(footer)
        counts = [_counts(footer) for footer in self.footers]
        num_rows = np.array([rows for count in counts for rows in count], np.int64)
        self._file_G: Int32 = np.repeat(np.arange(len(counts), dtype=np.int32), [len(c) for c in counts])
        self._index_G = np.array([i for count in counts for i in range(len(count))], np.int32)
        filled = num_rows > 0
        self.num_rows_G: Int64 = num_rows[filled]
        self._file_G, self._index_G = self._file_G[filled], self._index_G[filled]
        self.fingerprint = _fingerprint(self.files, counts)

    def place(self, group: int) -> tuple[int, int]:
        """The number of a row group's file in `files`, and its own number in the file."""
        return int(self._file_G[group]), int(self._index_G[group])

    def first_row(self, group: int) -> int:
        """The row of its file that a row group begins with, counted from 1."""
        file, index = self.place(group)
        return 1 + sum(_counts(self.footers[file])[:index])


class RowGroupReader:
    """Reads row groups, and keeps each file that it has read from open. One thread's."""

    def __init__(self, groups: RowGroups) -> None:
        self._groups = groups
        self._open: dict[int, pq.ParquetFile] = {}

    def read(self, group: int) -> pa.Table:
        """One row group; pages that were written with a checksum are checked.

        Raises:
            DataError: It cannot be read, or holds a null; names file and row, counted from 1.
        """
        file, index = self._groups.place(group)
        path, footer = self._groups.files[file], self._groups.footers[file]
        try:
            if file not in self._open:
                self._open[file] = pq.ParquetFile(path, metadata=footer, page_checksum_verification=True)
            table = self._open[file].read_row_group(index, columns=self._groups.columns, use_threads=False)
        except _UNREADABLE as error:
            first = self._groups.first_row(group)
            last = first + footer.row_group(index).num_rows - 1
            what = f"{path}, rows {first} to {last}, cannot be read"
            raise DataError(what, value=str(error), mend=_MEND) from error
        for name in self._groups.columns:
            row = _first_null(table[name])
            if row is not None:
                what = f"{path}, row {self._groups.first_row(group) + row}: {name}"
                raise DataError(what, value="null", limit="set", mend=_MEND)
        return table


def _footer(file: Path) -> tuple[Any, Any]:
    try:
        with pq.ParquetFile(file) as opened:
            return opened.metadata, opened.schema_arrow
    except _UNREADABLE as error:
        raise DataError(f"{file} cannot be read", value=str(error), mend=_MEND) from error


def _check_type(file: Path, schema: Any, name: str, types: dict[str, Any]) -> None:
    if name not in schema.names:
        raise DataError(
            f"{file} lacks column {name}", value=f"a table of {', '.join(schema.names)}", mend=_MEND
        )
    found = schema.field(name).type
    if found != types.setdefault(name, found):
        limit = f"{types[name]} as in the first file"
        raise DataError(f"column {name} of {file}", value=str(found), limit=limit, mend=_MEND)


def _counts(footer: Any) -> list[int]:
    return [footer.row_group(index).num_rows for index in range(footer.num_row_groups)]


def _fingerprint(files: Sequence[Path], counts: Sequence[Sequence[int]]) -> str:
    folder = os.path.commonpath([file.absolute().parent for file in files])
    names = [os.path.relpath(file.absolute(), folder) for file in files]
    sizes = [file.stat().st_size for file in files]
    return digest(list(zip(names, sizes, counts, strict=True)))


def _first_null(column: Any) -> int | None:
    """The first row that is null, or is a list with a null in it."""
    nulls = [chunk.null_count for chunk in column.chunks]
    if pa.types.is_list(column.type):
        nulls += [chunk.values.null_count for chunk in column.chunks]
    if not any(nulls):
        return None
    array = column.combine_chunks()
    bad = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
    if pa.types.is_list(column.type):
        inside_V = array.flatten().is_null().to_numpy(zero_copy_only=False)
        bad = np.concatenate([bad, pc.list_parent_indices(array).to_numpy()[inside_V]])
    return int(bad.min()) if len(bad) else None
