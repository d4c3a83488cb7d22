"""The log's long memory: Parquet files by UTC day of the record's own time. An erasure alone changes one.

A crash between writing a file and trimming the stream writes the same records again, so that readers drop
repeats by the record's id: at least once on disk, once when read. Files are written without a lock, and `compaction`
may merge them at any moment: `manifest` says which of them count, and a reader whose file has gone looks again.
"""

import functools
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.errors import DataError
from tastemaker.events.log import Entry
from tastemaker.events.manifest import Manifest, read_manifest, undisturbed, write_manifest
from tastemaker.home import write_bytes

_DAY_MS = 86_400_000
_ROW_GROUP = 131_072
_MOST_LOOKS = 10
_ERASE_SECONDS: Final = 600.0
T = TypeVar("T")
_COLUMNS: dict[str, Any] = {
    "event_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(), "kind": pa.string(),
    "timestamp_ms": pa.int64(), "received_ms": pa.int64(), "value": pa.float64(), "request_id": pa.string(),
    "position": pa.int32(), "context": pa.map_(pa.string(), pa.string()), "origin": pa.string(),
    "sequence": pa.int64(),
}  # fmt: skip
EVENT_SCHEMA = pa.schema(list(_COLUMNS.items()), metadata={"schema": "1"})
"""Columns of events; `received_ms` is when the log took the record, by the log's clock.

`sequence` tells apart what a partition's stream took in one ms. Together they order a user's events as the stream did.
"""


def event_table(entries: Sequence[Entry]) -> pa.Table:
    """Stream entries as a table of `EVENT_SCHEMA`."""
    events = [json.loads(entry.json) for entry in entries]
    columns: dict[str, list[Any]] = {
        name: [event.get(name) for event in events] for name in EVENT_SCHEMA.names
    }
    columns["received_ms"] = [entry.received_ms for entry in entries]
    columns["sequence"] = [int(entry.id.partition("-")[2]) for entry in entries]
    columns["context"] = [
        None if context is None else list(context.items()) for context in columns["context"]
    ]
    return pa.table({name: columns[name] for name in EVENT_SCHEMA.names}, schema=EVENT_SCHEMA)


def write_days(folder: Path, table: pa.Table) -> int:
    """Adds a table's rows under `folder/day=YYYY-MM-DD/`, one file a day, each there whole or not at all.

    On return they are on disk. Gives the number of files.

    Raises:
        DataError: They cannot be written.
    """
    try:
        return _write_days(folder, table)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error}", mend="make room, or mend its rights") from error


def _write_days(folder: Path, table: pa.Table) -> int:
    days = table["timestamp_ms"].to_numpy() // _DAY_MS
    name = new_name()
    for day in np.unique(days):
        date = datetime.fromtimestamp(int(day) * 86_400, UTC).date().isoformat()
        write_part(folder / f"day={date}" / name, encode_part(table.filter(pa.array(days == day))))
    return len(np.unique(days))


def new_name() -> str:
    """A name for a day's file that no other has had."""
    return f"part-{time.time_ns()}-{secrets.token_hex(4)}.parquet"


def encode_part(table: pa.Table) -> bytes:
    """A day's file."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, row_group_size=_ROW_GROUP)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def write_part(path: Path, content: bytes) -> None:
    """Puts a day's file in its place, there whole or not at all, and on disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    sync(path.parent)


def read_days(
    folder: Path, schema: pa.Schema, id_column: str, where: pc.Expression | None = None
) -> pa.Table:
    """All rows of the days under `folder`, which may be absent; see `read_parts`."""
    return reread(folder, lambda parts: read_parts(parts, schema, id_column, where))


def parts_of(folder: Path) -> list[Path]:
    """The files that hold the rows of the days under `folder` so far; a file that is there never changes.

    Raises:
        DataError: The manifest cannot be read.
    """
    # The directory first: a compaction that ends in between is then seen whole in the manifest.
    found = {str(path.relative_to(folder)) for path in folder.glob("day=*/part-*.parquet")}
    manifest = read_manifest(folder)
    return [folder / name for name in sorted((found | set(manifest.files)) - set(manifest.merged))]


def reread(folder: Path, read: Callable[[list[Path]], T]) -> T:
    """What `read` makes of the present files; anew where a compaction took one away while it read.

    Raises:
        DataError: As `parts_of` and `read`.
    """
    for _ in range(_MOST_LOOKS):
        parts = parts_of(folder)
        try:
            return read(parts)
        except DataError:
            if all(part.exists() for part in parts):
                raise
    return read(parts)


def read_parts(
    paths: Sequence[Path], schema: pa.Schema, id_column: str, where: pc.Expression | None = None
) -> pa.Table:
    """All rows of some files that `write_days` wrote, each once, by time and then by id.

    Never more than a row group is held of what `where` drops.

    Args:
        paths: Of the files.
        schema: Columns; one that an older file lacks is null.
        id_column: Names a record; the repeats that were received later are dropped.
        where: Keeps only rows for which this holds.

    Raises:
        DataError: A file is not Parquet, or its columns have other types.
    """
    parts = [schema.empty_table()]
    for path in paths:
        parts += read_batches(path, schema, where)
    return without_repeats(pa.concat_tables(parts, promote_options="default").select(schema.names), id_column)


def read_batches(
    path: Path, schema: pa.Schema, where: pc.Expression | None = None, num_rows: int = _ROW_GROUP
) -> Iterator[pa.Table]:
    """A file's rows, at most `num_rows` at a time; those of the columns that it has.

    Raises:
        DataError: See `read_parts`.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = [name for name in file.schema_arrow.names if name in schema.names]
            for batch in file.iter_batches(num_rows, columns=columns):
                table = pa.Table.from_batches([batch])
                yield table if where is None else table.filter(where)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}", mend="move it away") from error


def without_repeats(table: pa.Table, id_column: str) -> pa.Table:
    """The rows by time and then by id, each id once: as it was received first, where that is known."""
    order = ["timestamp_ms", id_column, *({"received_ms"} & set(table.column_names))]
    table = table.sort_by([(name, "ascending") for name in order])
    ids = table[id_column].combine_chunks().dictionary_encode().indices.to_numpy()
    _, first = np.unique(ids, return_index=True)
    return table.take(np.sort(first)) if len(first) < len(table) else table


class Erased(NamedTuple):
    """Rows that left the archive, and the time of the earliest record among them; 0 where there were none."""

    rows: int = 0
    first_ms: int = 0


def erase_user(folder: Path, user_id: str, id_column: str = "event_id") -> Erased:
    """Takes a user's rows out of all files of the days under `folder`, those that frozen logs keep included.

    Files are replaced one by one, each as a whole, and the manifest no longer vouches for them: the next compaction
    makes that day's file anew. What is cut off is run again. It does not keep later files from naming the user: the
    consumer drops what is older than an erasure.

    Args:
        folder: Of events or decisions; may be absent.
        user_id: Stands in the column `user_id` or `unit`.
        id_column: Names a record; one that lies in several files counts once.

    Raises:
        UsageError: A compaction takes longer than ten minutes.
        DataError: A file cannot be read or written.
    """
    if not folder.is_dir():
        return Erased()
    found: dict[str, int] = {}
    with undisturbed(folder, _ERASE_SECONDS):
        for path in sorted(folder.glob("day=*/part-*.parquet")):
            rows = _erase(folder, path, user_id)
            if rows is not None:
                ids: list[Any] = rows[id_column].to_pylist()
                found |= dict(zip(ids, rows["timestamp_ms"].to_numpy().tolist(), strict=True))
    return Erased(len(found), min(found.values(), default=0))


def _erase(folder: Path, path: Path, user_id: str) -> pa.Table | None:
    """The rows that were taken out of a file; None where it has none of the user."""
    try:
        table = pq.ParquetFile(path).read()
        columns = [name for name in ("user_id", "unit") if name in table.column_names]
        same: list[Any] = [pc.equal(table[name], pa.scalar(user_id)) for name in columns]
        masks = [pc.fill_null(mask, False) for mask in same]
        mine: Any = functools.reduce(pc.or_, masks)
        if not pc.any(mine).as_py():
            return None
        manifest = read_manifest(folder)
        if (name := str(path.relative_to(folder))) in manifest.files:
            others = {known: file for known, file in manifest.files.items() if known != name}
            write_manifest(folder, Manifest(files=others, merged=manifest.merged))
            sync(folder)
        write_part(path, encode_part(table.filter(pc.invert(mine))))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"cannot take rows from {path}: {error}", mend="make room, or move it away"
        ) from error
    return table.filter(mine)


def sync(directory: Path) -> None:
    """Has the names in a directory on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
