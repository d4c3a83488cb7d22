"""The imported interactions as events of the log: known from when they happened, before all live ones."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.data.schema import INTERACTIONS_SCHEMA, Column, imported_folder, read_imported
from tastemaker.events.archive import EVENT_SCHEMA
from tastemaker.home import Home

_ROWS: Final = 1_000_000
_NO_CLIENTS: Final = "\0"
"""Begins the events' ids, so that they are those of no event that a client sent."""


def imported_events(home: Home, catalogue: str) -> Iterator[pa.Table]:
    """The catalogue's imported rows with `EVENT_SCHEMA`, some at a time, oldest first; none without an import.

    All kinds, of origin live. `received_ms` is the row's own time, `sequence` its place by time and, within a ms, by file.

    Raises:
        DataError: The files cannot be read.
    """
    if not (imported_folder(home, catalogue) / "interactions.parquet").exists():
        return
    rows, _ = read_imported(home, catalogue)
    order = np.argsort(rows[Column.TIMESTAMP_MS].to_numpy(), kind="stable")
    for start in range(0, len(rows), _ROWS):
        yield _events(rows.take(order[start : start + _ROWS]), start)


def num_imported_rows(home: Home, catalogue: str) -> int:
    """How many rows `imported_events` gives."""
    file = imported_folder(home, catalogue) / "interactions.parquet"
    return pq.read_metadata(file).num_rows if file.exists() else 0


def _events(rows: pa.Table, first: int) -> pa.Table:
    assert rows.schema.names == INTERACTIONS_SCHEMA.names
    place = pa.array(np.arange(first, first + len(rows)))
    times = rows[Column.TIMESTAMP_MS]
    ids = [f"{_NO_CLIENTS}{n}" for n in range(first, first + len(rows))]
    columns: dict[str, Any] = {
        "event_id": pa.array(ids, pa.string()),
        **{name: rows[name] for name in (Column.USER_ID, Column.ITEM_ID, Column.KIND, Column.POSITION)},
        "timestamp_ms": times,
        "received_ms": times,
        "value": rows[Column.VALUE].cast(pa.float64()),
        "origin": pa.array(["live"] * len(rows), pa.string()),
        "sequence": place,
    }
    for name in EVENT_SCHEMA.names:
        columns.setdefault(name, pa.nulls(len(rows), EVENT_SCHEMA.field(name).type))
    return pa.table({name: columns[name] for name in EVENT_SCHEMA.names}, schema=EVENT_SCHEMA)
