"""Which rows of a source are usable. A bad row is never dropped silently: it comes back with its reason."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import INTERACTIONS_SCHEMA, REJECTS_SCHEMA, Column, items_schema
from tastemaker.ids import CONTROL_RE2
from tastemaker.types import EVENT_KINDS, MAX_ID_LENGTH, MAX_LOGGED_POSITION, Bool, Float64, Int64, Strings

MAX_RAW_TIME = 1e15  # beyond every clock in milliseconds, and still exact as a float
MAX_VALUE = 1e12


BadRow = tuple[int, str]
"""A row's number in its source, from 1, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RawEvents:
    """Columns of a source before any check, in file order; None is a missing value.

    `row` counts the source's rows from 1, `ragged` ones included, which have no cells here. `value`, `timestamp` and
    `position` may be numbers or text.
    """

    row: Int64
    user_id: pd.Series
    item_id: pd.Series
    kind: pd.Series
    value: pd.Series | None
    timestamp: pd.Series
    origin: pd.Series | None
    milliseconds_per_unit: int
    ragged: list[BadRow] = field(default_factory=list)
    position: pd.Series | None = None
    device: pd.Series | None = None


def row_numbers(num_rows: int, ragged: list[BadRow]) -> Int64:
    """Numbers of the usable rows in a source of usable and ragged rows, from 1.

    >>> row_numbers(3, [(2, "2 columns, not 3")]).tolist()
    [1, 3, 4]
    """
    every = np.arange(1, num_rows + len(ragged) + 1)
    return np.setdiff1d(every, [row for row, _ in ragged])


def check_events(raw: RawEvents, now_ms: int) -> tuple[pa.Table, pa.Table]:
    """The usable rows with `INTERACTIONS_SCHEMA`, and the others with `REJECTS_SCHEMA`, both in file order.

    A row has one reason, the first that holds, in this order: ids, kind, origin, value, position, timestamp,
    duplicate (of an earlier usable row with the same user, item, kind and time).
    """
    timestamp_N, value_N = _number(raw.timestamp), None if raw.value is None else _number(raw.value)
    reason_N = _reasons(raw, timestamp_N, value_N, now_ms)
    time_N = np.where(np.isfinite(timestamp_N), timestamp_N * raw.milliseconds_per_unit, 0)
    frame = pd.DataFrame(
        {
            Column.USER_ID: raw.user_id,
            Column.ITEM_ID: raw.item_id,
            Column.KIND: raw.kind,
            Column.VALUE: np.nan if value_N is None else value_N,
            Column.TIMESTAMP_MS: np.round(np.clip(time_N, -MAX_RAW_TIME, MAX_RAW_TIME)).astype(np.int64),
            Column.ORIGIN: "live" if raw.origin is None else raw.origin,
            Column.POSITION: np.nan if raw.position is None else _number(raw.position),
            Column.DEVICE: raw.device,
        }
    )
    usable = frame[reason_N == ""]
    key = [Column.USER_ID, Column.ITEM_ID, Column.KIND, Column.TIMESTAMP_MS]
    again = usable.index[usable.duplicated(key)]
    reason_N[again] = "duplicate of an earlier row"
    good = frame[reason_N == ""]
    rejects = pa.concat_tables([_rejects(raw, reason_N), _ragged("interactions", raw.ragged)])
    return pa.Table.from_pandas(good, INTERACTIONS_SCHEMA, preserve_index=False), rejects.sort_by("row")


def _number(column: pd.Series) -> Float64:
    number: Float64 = pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return number


def _reasons(raw: RawEvents, timestamp_N: Float64, value_N: Float64 | None, now_ms: int) -> Strings:
    """(N,) text, empty for a usable row."""
    reason_N = np.full(len(raw.row), "", object)

    def refuse(bad_N: Bool | pd.Series, reason: str) -> None:
        reason_N[np.asarray(bad_N, np.bool_) & (reason_N == "")] = reason

    for name, ids in (("user_id", raw.user_id), ("item_id", raw.item_id)):
        length = ids.str.len()
        refuse(ids.isna() | (ids.str.strip() == ""), f"{name} is empty")
        refuse(length > MAX_ID_LENGTH, f"{name} is longer than {MAX_ID_LENGTH} characters")
        refuse(_has_control(ids), f"{name} has control characters")
    refuse(~raw.kind.isin(EVENT_KINDS), f"kind is not one of {', '.join(EVENT_KINDS)}")
    if raw.origin is not None:
        refuse(raw.origin == "simulator", "origin is simulator")
        refuse(~raw.origin.isin(["live", "replay"]), "origin is not one of live, replay")
    if raw.value is not None and value_N is not None:
        needs = raw.kind.isin(["rating", "watch"]).to_numpy()
        refuse(np.isnan(value_N) & (raw.value.notna().to_numpy() | needs), "value is not a number")
        refuse(np.abs(value_N) > MAX_VALUE, f"value is beyond {MAX_VALUE:g}")
        refuse((value_N < 0) & (raw.kind == "watch").to_numpy(), "watch time is negative")
    if raw.position is not None:
        limit = f"a whole number from 0 to {MAX_LOGGED_POSITION}"
        refuse(raw.position.notna() & ~_is_position(_number(raw.position)), f"position is not {limit}")
    refuse(~np.isfinite(timestamp_N), "timestamp is not a number")
    time_N = timestamp_N * raw.milliseconds_per_unit
    refuse(time_N < 0, "timestamp is negative")
    refuse(time_N > now_ms, "timestamp is in the future")
    return reason_N


def _has_control(ids: pd.Series) -> Bool:
    text: Any = pa.array(ids, pa.string(), from_pandas=True)
    has: Any = pc.match_substring_regex(text, CONTROL_RE2)
    has_N: Bool = has.fill_null(False).to_numpy(zero_copy_only=False)
    return has_N


def _is_position(number_N: Float64) -> Bool:
    whole_N: Bool = (number_N >= 0) & (number_N <= MAX_LOGGED_POSITION) & (np.floor(number_N) == number_N)
    return whole_N


def _rejects(raw: RawEvents, reason_N: Strings) -> pa.Table:
    bad = reason_N != ""

    def text(column: pd.Series | None) -> list[str | None]:
        if column is None:
            return [None] * int(bad.sum())
        return [None if pd.isna(cell) else str(cell) for cell in column[bad]]

    columns = (raw.user_id, raw.item_id, raw.kind, raw.value, raw.timestamp)
    table = pa.array(["interactions"] * int(bad.sum()), pa.string())
    arrays = [table, pa.array(raw.row[bad]), *(pa.array(text(c), pa.string()) for c in columns)]
    return pa.Table.from_arrays([*arrays, pa.array(list(reason_N[bad]), pa.string())], schema=REJECTS_SCHEMA)


def _ragged(table: str, rows: list[BadRow]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [None] * len(rows) for name in REJECTS_SCHEMA.names}
    columns |= {"table": [table] * len(rows), "row": [r for r, _ in rows], "reason": [why for _, why in rows]}
    return pa.table(columns, schema=REJECTS_SCHEMA)


def check_items(
    items: pa.Table, ragged: list[BadRow], used_ids: "pa.Array[Any]"
) -> tuple[pa.Table, pa.Table]:
    """The usable item rows, followed by a bare row for each used id that has none; and the refused item rows.

    Args:
        items: With the columns of `items_schema`, any of which may hold nulls.
        ragged: Rows of the source that are not in `items`.
        used_ids: Item ids of the interactions, distinct.
    """
    ids = items.select([Column.ITEM_ID]).to_pandas()[Column.ITEM_ID]
    reason_N = np.full(len(ids), "", object)
    reason_N[ids.duplicated()] = "duplicate item_id"
    reason_N[ids.str.len() > MAX_ID_LENGTH] = f"item_id is longer than {MAX_ID_LENGTH} characters"
    reason_N[_has_control(ids)] = "item_id has control characters"
    reason_N[ids.isna() | (ids.str.strip() == "")] = "item_id is empty"
    bad = reason_N != ""
    good = items.filter(pa.array(~bad))
    missing = used_ids.filter(pc.invert(pc.is_in(used_ids, good[Column.ITEM_ID].combine_chunks())))
    bare = pa.table([missing], names=[Column.ITEM_ID])
    whole = pa.concat_tables([good, bare], promote_options="default")
    rejects = pa.table(
        {
            "table": pa.array(["items"] * int(bad.sum()), pa.string()),
            "row": row_numbers(len(ids), ragged)[bad],
            Column.ITEM_ID: pa.array(list(ids[bad]), pa.string()),
            "reason": pa.array(list(reason_N[bad]), pa.string()),
        }
    )
    refused = pa.concat_tables([_ragged("items", ragged), rejects], promote_options="default")
    return _filled(whole), refused.cast(REJECTS_SCHEMA).sort_by("row")


def _filled(items: pa.Table) -> pa.Table:
    rows = items.to_pydict()
    ids = rows[Column.ITEM_ID]
    rows[Column.TITLE] = [title or item_id for title, item_id in zip(rows[Column.TITLE], ids, strict=True)]
    rows[Column.CATEGORY] = [category or "" for category in rows[Column.CATEGORY]]
    rows[Column.TAGS] = [tags or [] for tags in rows[Column.TAGS]]
    return pa.table(rows, schema=items_schema(items.column_names))
