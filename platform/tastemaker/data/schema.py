"""What imported data looks like: column names, Arrow schemas, and the dataset that fits and evaluations read.

Not for live events (see `events/`): a dataset is what a fit learns from, so the simulator's rows are refused.
Shape letters: N rows, U users, I items.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.errors import DataError
from tastemaker.home import Home
from tastemaker.types import EVENT_WEIGHTS, Float32, Int8, Int32, Int64, catalogue_name, device_row

IMPORT_MEND = "run `tastemaker data import`"
POSITIVE_KINDS: Final = ("view", "click", "like", "purchase", "rating", "watch")
"""Kinds that mean consumption, the only ones in a `Dataset`; the file keeps the others."""


class Column:
    """Names of columns, once."""

    USER_ID: Final = "user_id"
    ITEM_ID: Final = "item_id"
    KIND: Final = "kind"
    VALUE: Final = "value"
    TIMESTAMP_MS: Final = "timestamp_ms"
    ORIGIN: Final = "origin"
    POSITION: Final = "position"
    DEVICE: Final = "device"
    TITLE: Final = "title"
    CATEGORY: Final = "category"
    TAGS: Final = "tags"
    CREATED_AT_MS: Final = "created_at_ms"
    DESCRIPTION: Final = "description"
    PRICE: Final = "price"
    REGIONS: Final = "regions"
    MATURITY: Final = "maturity"
    FRANCHISE: Final = "franchise"
    LATITUDE: Final = "latitude"
    LONGITUDE: Final = "longitude"
    PROPENSITY: Final = "propensity"
    VECTORS: Final = "vectors"


def _field(name: str, kind: "pa.DataType", nullable: bool = True) -> "pa.Field[Any]":
    return pa.field(name, kind, nullable=nullable)


INTERACTIONS_SCHEMA = pa.schema(
    [
        _field(Column.USER_ID, pa.string(), nullable=False),
        _field(Column.ITEM_ID, pa.string(), nullable=False),
        _field(Column.KIND, pa.string(), nullable=False),
        _field(Column.VALUE, pa.float32()),
        _field(Column.TIMESTAMP_MS, pa.int64(), nullable=False),
        _field(Column.ORIGIN, pa.string(), nullable=False),
        _field(Column.POSITION, pa.int32()),
        _field(Column.DEVICE, pa.string()),
    ]
)
"""One row per event, in file order. `position` is the item's rank, from 0, in the recommendation that the event answers."""

_LATER_COLUMNS = (Column.POSITION, Column.DEVICE)
"""Imports of earlier releases lack them, and are read as if they were null."""

ITEMS_SCHEMA = pa.schema(
    [
        _field(Column.ITEM_ID, pa.string(), nullable=False),
        _field(Column.TITLE, pa.string(), nullable=False),
        _field(Column.CATEGORY, pa.string(), nullable=False),
        _field(Column.TAGS, pa.list_(pa.string()), nullable=False),
        _field(Column.CREATED_AT_MS, pa.int64()),
    ]
)
"""One row per item. Unknown: title is the item's id, category empty, tags none, created_at_ms null."""

ITEM_DETAILS = pa.schema(
    [
        _field(Column.DESCRIPTION, pa.string()),
        _field(Column.PRICE, pa.float64()),
        _field(Column.REGIONS, pa.list_(pa.string())),
        _field(Column.MATURITY, pa.int32()),
        _field(Column.FRANCHISE, pa.string()),
        _field(Column.LATITUDE, pa.float64()),
        _field(Column.LONGITUDE, pa.float64()),
        _field(Column.PROPENSITY, pa.float64()),
        _field(Column.VECTORS, pa.map_(pa.string(), pa.list_(pa.float32()))),
    ]
)
"""What items may have beside; null where unknown. A table of items has those that its catalogue uses, in this order.

`regions` are countries by ISO 3166-1 alpha-2 where the item may be shown, none of them meaning everywhere; `maturity` is
the least age in years; `vectors` are other models' vectors of the item by name (image, audio, …); `propensity`, of imports alone,
is how likely it was to be seen, above 0 and at most 1.
"""

REJECTS_SCHEMA = pa.schema(
    [
        _field("table", pa.string(), nullable=False),
        _field("row", pa.int64()),
        *(_field(name, pa.string()) for name in (Column.USER_ID, Column.ITEM_ID, Column.KIND, Column.VALUE)),
        _field("timestamp", pa.string()),
        _field("reason", pa.string(), nullable=False),
    ]
)
"""Refused rows of the table `interactions` or `items`, as text; `row` counts data rows from 1."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """All positive interactions of one catalogue, as rows of numbers.

    Rows are sorted by user, then time, then place in the imported file (ties in time keep the file's order).
    Users are in order of their first row in the file; `items` row i is item i, items that nobody has used
    included. `value` is the rating or watch time, else the kind's default weight; `kind_index` is the kind's place in
    `POSITIVE_KINDS`. `slot` is the position from 1 and `device_row` the device as `types.device_row` has it; 0 is unknown.
    """

    user_ids: list[str]
    item_ids: list[str]
    user_index: Int32
    item_index: Int32
    timestamp_ms: Int64
    value: Float32
    kind_index: Int8
    slot: Int32
    device_row: Int8
    items: pa.Table
    fingerprint: str

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.user_index)


def imported_folder(home: Home, catalogue: str) -> Path:
    """Where the last import of `catalogue` lies."""
    return home / "events" / catalogue_name(catalogue) / "imported"


def read_dataset(home: Home, catalogue: str) -> Dataset:
    """The dataset that was last imported into `catalogue`; `data.log` adds the live events to it.

    Raises:
        DataError: Nothing was imported, the files cannot be read, or rows come from the simulator.
    """
    return build_dataset(*read_imported(home, catalogue))


def read_imported(home: Home, catalogue: str) -> tuple[pa.Table, pa.Table]:
    """The interactions and items that were last imported into `catalogue`.

    Raises:
        DataError: Nothing was imported, or the files cannot be read.
    """
    folder = imported_folder(home, catalogue)
    if not folder.is_dir():
        raise DataError(f"catalogue {catalogue} has no data", mend=IMPORT_MEND)
    return (
        _read_table(folder / "interactions.parquet", lambda _: INTERACTIONS_SCHEMA),
        _read_table(folder / "items.parquet", items_schema),
    )


def items_schema(names: Iterable[str]) -> pa.Schema:
    """The schema of a table of items with these columns; those that no item has are left out."""
    details = [ITEM_DETAILS.field(name) for name in ITEM_DETAILS.names if name in set(names)]
    return pa.schema([*ITEMS_SCHEMA, *details])


def _read_table(file: Path, schema_of: Callable[[Iterable[str]], pa.Schema]) -> pa.Table:
    try:
        table = pq.read_table(file)
        schema = schema_of(table.column_names)
        return _with_later_columns(table, schema).select(schema.names).cast(schema)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise DataError(f"{file} cannot be read", value=str(error), mend=IMPORT_MEND + " again") from error


def _with_later_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for name in _LATER_COLUMNS:
        if name in schema.names and name not in table.column_names:
            table = table.append_column(schema.field(name), pa.nulls(len(table), schema.field(name).type))
    return table


def build_dataset(interactions: pa.Table, items: pa.Table) -> Dataset:
    """The dataset of two tables with `INTERACTIONS_SCHEMA` and `items_schema`.

    Raises:
        DataError: A row's origin is the simulator, or its item is not in `items`.
    """
    if pc.any(pc.equal(interactions[Column.ORIGIN], pa.scalar("simulator"))).as_py():
        raise DataError(
            "imported interactions have origin simulator", limit="live or replay", mend="import real events"
        )
    rows = interactions.filter(pc.is_in(interactions[Column.KIND], pa.array(POSITIVE_KINDS)))
    users = rows[Column.USER_ID].combine_chunks().dictionary_encode()
    item_ids = items[Column.ITEM_ID].combine_chunks()
    item_index = pc.index_in(rows[Column.ITEM_ID].combine_chunks(), item_ids)
    if item_index.null_count:
        raise DataError("interactions name items that the items table lacks", value=item_index.null_count)
    user_N = users.indices.to_numpy().astype(np.int32)
    time_N = rows[Column.TIMESTAMP_MS].to_numpy()
    order_N = np.lexsort((time_N, user_N))  # stable: file order breaks ties
    arrays = (
        user_N[order_N],
        item_index.to_numpy().astype(np.int32)[order_N],
        time_N[order_N].astype(np.int64),
        _values(rows)[order_N],
    )
    kind_N = pc.index_in(rows[Column.KIND].combine_chunks(), pa.array(POSITIVE_KINDS)).to_numpy()
    kind_N = kind_N.astype(np.int8)[order_N]
    shown = (slots_of(rows).to_numpy()[order_N], _device_rows(rows)[order_N])
    user_ids = [str(user_id) for user_id in users.dictionary.to_pylist()]
    names = [str(item_id) for item_id in item_ids.to_pylist()]
    fingerprint = _fingerprint(user_ids, items, _content(arrays, kind_N, *shown))
    return Dataset(user_ids, names, *arrays, kind_N, *shown, items, fingerprint)


def _values(rows: pa.Table) -> Float32:
    default_N = rows[Column.KIND].to_pandas().map(EVENT_WEIGHTS).fillna(1.0)
    value: Float32 = rows[Column.VALUE].to_pandas().fillna(default_N).to_numpy(np.float32)
    return value


def slots_of(rows: pa.Table) -> Any:
    """The column of slots of rows with `INTERACTIONS_SCHEMA`: positions from 1, and 0 where unknown."""
    return pc.add(pc.fill_null(rows[Column.POSITION], pa.scalar(-1, pa.int32())), pa.scalar(1, pa.int32()))


def _device_rows(rows: pa.Table) -> Int8:
    devices: Any = rows[Column.DEVICE].combine_chunks().dictionary_encode(null_encoding="encode")
    row_D = np.array([device_row(device or "") for device in devices.dictionary.to_pylist()], np.int8)
    device_N: Int8 = row_D[devices.indices.to_numpy()]
    return device_N


def _content(
    arrays: tuple[np.ndarray[Any, Any], ...], kind_N: Int8, slot_N: Int32, device_N: Int8
) -> tuple[np.ndarray[Any, Any], ...]:
    """What is fingerprinted: a dataset keeps what it had before kinds, and then slots and devices, were told apart."""
    if slot_N.any() or device_N.any():
        return (*arrays, kind_N, slot_N, device_N)
    return arrays if (kind_N == POSITIVE_KINDS.index("rating")).all() else (*arrays, kind_N)


def _fingerprint(user_ids: list[str], items: pa.Table, arrays: tuple[np.ndarray[Any, Any], ...]) -> str:
    digest = hashlib.sha256()
    digest.update(json.dumps([user_ids, items.to_pydict()], ensure_ascii=False, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
