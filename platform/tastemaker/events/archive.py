"""The log's long memory: Parquet files by UTC day of the record's own time.

A crash between writing a file and trimming the stream writes the same records again, so that readers drop
repeats by the record's id: at least once on disk, once when read.
"""

import json
import os
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.errors import DataError
from tastemaker.events.log import Entry
from tastemaker.home import write_bytes

_DAY_MS = 86_400_000
_COLUMNS: dict[str, Any] = {
    "event_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(), "kind": pa.string(),
    "timestamp_ms": pa.int64(), "received_ms": pa.int64(), "value": pa.float64(), "request_id": pa.string(),
    "position": pa.int32(), "context": pa.map_(pa.string(), pa.string()), "origin": pa.string(),
}  # fmt: skip
EVENT_SCHEMA = pa.schema(list(_COLUMNS.items()), metadata={"schema": "1"})
"""Columns of events; `received_ms` is when the log took the record, by the log's clock."""


def event_table(entries: Sequence[Entry]) -> pa.Table:
    """Stream entries as a table of `EVENT_SCHEMA`."""
    events = [json.loads(entry.json) for entry in entries]
    columns: dict[str, list[Any]] = {
        name: [event.get(name) for event in events] for name in EVENT_SCHEMA.names
    }
    columns["received_ms"] = [entry.received_ms for entry in entries]
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
    name = f"part-{time.time_ns()}-{secrets.token_hex(4)}.parquet"
    for day in np.unique(days):
        date = datetime.fromtimestamp(int(day) * 86_400, UTC).date().isoformat()
        directory = folder / f"day={date}"
        directory.mkdir(parents=True, exist_ok=True)
        buffer = pa.BufferOutputStream()
        pq.write_table(table.filter(pa.array(days == day)), buffer)
        write_bytes(directory / name, buffer.getvalue().to_pybytes())
        _sync(directory)
    return len(np.unique(days))


def read_days(
    folder: Path, schema: pa.Schema, id_column: str, where: pc.Expression | None = None
) -> pa.Table:
    """All rows of the days under `folder`, which may be absent; see `read_parts`."""
    return read_parts(parts_of(folder), schema, id_column, where)


def parts_of(folder: Path) -> list[Path]:
    """The files that `write_days` has written under `folder` so far; a file that is there never changes."""
    return sorted(folder.glob("day=*/part-*.parquet"))


def read_parts(
    paths: Sequence[Path], schema: pa.Schema, id_column: str, where: pc.Expression | None = None
) -> pa.Table:
    """All rows of some files that `write_days` wrote, each once, by time and then by id.

    Args:
        paths: Of the files.
        schema: Columns; one that an older file lacks is null.
        id_column: Names a record; later repeats are dropped.
        where: Keeps only rows for which this holds.

    Raises:
        DataError: A file is not Parquet, or its columns have other types.
    """
    parts = [schema.empty_table()]
    for path in paths:
        try:
            part = pq.ParquetFile(path).read()
            parts.append(part if where is None else part.filter(where))
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"cannot read {path}: {error}", mend="move it away") from error
    table = pa.concat_tables(parts, promote_options="default").select(schema.names)
    table = table.sort_by([("timestamp_ms", "ascending"), (id_column, "ascending")])
    _, first = np.unique(np.asarray(table[id_column].to_pylist(), dtype=object), return_index=True)
    return table.take(np.sort(first)) if len(first) < len(table) else table


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
