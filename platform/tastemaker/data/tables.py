"""Reading a customer's own Parquet or CSV table of events, and of items, under a column mapping."""

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
from pydantic import Field

from tastemaker.data.schema import ITEM_DETAILS, Column, items_schema
from tastemaker.data.validation import BadRow, RawEvents, row_numbers
from tastemaker.errors import DataError
from tastemaker.strict import Strict

MAPPING_MEND = "name the right columns in the mapping"
_NUMBERS = {
    Column.CREATED_AT_MS: (-np.inf, np.inf), Column.PRICE: (0.0, 1e12), Column.MATURITY: (0, 99),
    Column.LATITUDE: (-90.0, 90.0), Column.LONGITUDE: (-180.0, 180.0),
    Column.PROPENSITY: (np.nextafter(0.0, 1.0), 1.0),
}  # fmt: skip
"""Columns of numbers, and what each may be."""


class ColumnMapping(Strict):
    """Which column of a table holds what."""

    user_id: str = Field("user_id", description="column of user ids, text or integer")
    item_id: str = Field("item_id", description="column of item ids, text or integer")
    timestamp: str = Field(
        "timestamp", description="column of times, numbers since 1970 UTC or Parquet timestamps"
    )
    timestamp_unit: Literal["s", "ms"] = Field("s", description="unit of times that are numbers")
    value: str | None = Field(None, description="column of ratings or watch seconds")
    kind: str | None = Field(
        None, description="column of event kinds; empty: rating where `value` is set, else click"
    )
    position: str | None = Field(
        None, description="column of ranks, from 0, in the recommendations that events answer"
    )
    device: str | None = Field(None, description="column of devices: mobile, tablet, desktop, tv or other")
    items: Path | None = Field(
        None,
        description="table of items: item_id and any of title, description, category, tags and regions ('a|b' or list), "
        "price, created_at_ms, maturity, franchise, latitude, longitude, vectors (a map of lists)",
    )


def read_events(source: Path, mapping: ColumnMapping) -> RawEvents:
    """The events of one Parquet or CSV file.

    A column named `origin`, where the file has one, is each row's origin; else all rows are live.

    Raises:
        DataError: The file cannot be read, is empty, lacks a column, or a column has another type.
    """
    table, ragged = read_table(source)
    optional = (mapping.value, mapping.kind, mapping.position, mapping.device)
    wanted = (mapping.user_id, mapping.item_id, mapping.timestamp, *optional)
    missing = [name for name in wanted if name is not None and name not in table.column_names]
    if missing:
        found = ", ".join(table.column_names)
        raise DataError(
            f"{source} lacks columns {', '.join(missing)}", value=f"a table of {found}", mend=MAPPING_MEND
        )
    timestamp, milliseconds = _timestamp(table, mapping, source)
    kind = "click" if mapping.value is None else "rating"
    return RawEvents(
        row=row_numbers(len(table), ragged),
        ragged=ragged,
        user_id=_text(table, mapping.user_id, source),
        item_id=_text(table, mapping.item_id, source),
        kind=pd.Series(kind, index=range(len(table)), dtype=object)
        if mapping.kind is None
        else _text(table, mapping.kind, source),
        value=None if mapping.value is None else _number(table, mapping.value, source),
        timestamp=timestamp,
        origin=_text(table, Column.ORIGIN, source) if Column.ORIGIN in table.column_names else None,
        milliseconds_per_unit=milliseconds,
        position=None if mapping.position is None else _number(table, mapping.position, source),
        device=None if mapping.device is None else _text(table, mapping.device, source),
    )


def read_items(source: Path) -> tuple[pa.Table, list[BadRow]]:
    """The items of one Parquet or CSV file, columns as in `items_schema`; absent values are null.

    Numbers that cannot be (text, a negative price, a latitude beyond 90) are null.

    Raises:
        DataError: As `read_events`.
    """
    table, ragged = read_table(source)
    if Column.ITEM_ID not in table.column_names:
        found = f"a table of {', '.join(table.column_names)}"
        raise DataError(f"{source} lacks column item_id", value=found, mend="rename its id column")
    columns: dict[str, Any] = {Column.ITEM_ID: _text(table, Column.ITEM_ID, source)}
    for name in (Column.TITLE, Column.CATEGORY, Column.DESCRIPTION, Column.FRANCHISE):
        if name in table.column_names:
            columns[name] = _text(table, name, source)
    for name in (Column.TAGS, Column.REGIONS):
        if name in table.column_names:
            columns[name] = _lists(table, name, source)
    for name, (low, high) in _NUMBERS.items():
        if name in table.column_names:
            number = pd.to_numeric(_number(table, name, source), errors="coerce")
            columns[name] = number.where(number.between(low, high))
    if Column.VECTORS in table.column_names:
        columns[Column.VECTORS] = _vectors(table, source)
    return items_table(len(table), columns), ragged


def items_table(num_rows: int, columns: dict[str, Any]) -> pa.Table:
    """A table of the types of `items_schema` whose missing or NaN values are null, with the details that are given."""
    arrays = []
    schema = items_schema(columns)
    for field in schema:
        column = columns.get(field.name)
        if column is None:
            arrays.append(pa.nulls(num_rows, field.type))
        elif pa.types.is_integer(field.type):
            arrays.append(pa.array(column, pa.float64(), from_pandas=True).cast(field.type, safe=False))
        elif isinstance(column, pa.ChunkedArray):
            arrays.append(column)
        else:
            arrays.append(pa.array(column, field.type, from_pandas=True))
    return pa.table(arrays, names=schema.names)


def read_table(source: Path) -> tuple[pa.Table, list[BadRow]]:
    """All rows of one Parquet or CSV file (CSV cells as text, empty ones null), and the rows that are none.

    Raises:
        DataError: The file cannot be read, is neither kind, has no rows, or names a column twice.
    """
    kind, ragged = source.suffix.lower(), list[BadRow]()
    if kind not in (".parquet", ".csv"):
        raise DataError(f"{source} is of no known kind", limit=".parquet or .csv", mend="convert it")
    try:
        if kind == ".parquet":
            table = pq.read_table(source)
        else:
            table, ragged = read_delimited(source.read_bytes(), ",")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0]
        raise DataError(f"{source} cannot be read", value=text, mend="check the file") from error
    if not len(table):
        raise DataError(f"{source} has no rows", mend="give a table with rows")
    if twice := [name for name, count in Counter(table.column_names).items() if count > 1]:
        raise DataError(f"{source} has columns of the same name", value=", ".join(twice), mend="rename them")
    return table, ragged


def read_delimited(
    content: bytes,
    delimiter: str,
    names: list[str] | None = None,
    *,
    quoted: bool = True,
    encoding: str = "utf8",
) -> tuple[pa.Table, list[BadRow]]:
    """A delimited text as a table of strings, empty cells null; and the rows with other numbers of cells.

    Args:
        content: The file. Empty lines count for nothing.
        delimiter: One character.
        names: Column names where the file has no header.
        quoted: Whether cells may be in double quotes.
        encoding: Of the file.

    Raises:
        pa.ArrowInvalid: The text is empty or not of that encoding.
        UnicodeDecodeError: Its header is not of that encoding.
    """
    ragged: list[BadRow] = []

    def skip(row: Any) -> Literal["skip"]:
        reason = f"{row.actual_columns} columns, not {row.expected_columns}"
        ragged.append((row.number - (names is None), reason))
        return "skip"

    header = content[: content.find(b"\n") % (len(content) + 1)].decode(encoding).strip("\r\n\ufeff")
    columns = names or next(csv.reader([header], delimiter=delimiter), [])
    table = pv.read_csv(
        io.BytesIO(content),
        read_options=pv.ReadOptions(column_names=names, encoding=encoding, use_threads=False),
        parse_options=pv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quoted else False,
            newlines_in_values=quoted,
            invalid_row_handler=skip,
        ),
        convert_options=pv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=True, null_values=[""]
        ),
    )
    return table, ragged


def _text(table: pa.Table, name: str, source: Path) -> pd.Series:
    column = table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise DataError(
            f"column {name} of {source}", value=str(kind), limit="text or integer", mend="convert it"
        )
    text: pd.Series = column.cast(pa.string()).to_pandas().astype(object)
    return text


def _number(table: pa.Table, name: str, source: Path) -> pd.Series:
    kind = table[name].type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise DataError(f"column {name} of {source}", value=str(kind), limit="a number", mend="convert it")
    numbers: pd.Series = table[name].to_pandas()
    return numbers


def _timestamp(table: pa.Table, mapping: ColumnMapping, source: Path) -> tuple[pd.Series, int]:
    kind = table[mapping.timestamp].type
    if pa.types.is_timestamp(kind):
        milliseconds = table[mapping.timestamp].cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
        numbers: pd.Series = milliseconds.to_pandas()
        return numbers, 1
    return _number(table, mapping.timestamp, source), 1000 if mapping.timestamp_unit == "s" else 1


def _lists(table: pa.Table, name: str, source: Path) -> list[list[str] | None]:
    if pa.types.is_list(table[name].type):
        return [None if found is None else [str(word) for word in found] for found in table[name].to_pylist()]
    return [None if text is None else split_tags(text) for text in _text(table, name, source)]


def _vectors(table: pa.Table, source: Path) -> Any:
    kind = ITEM_DETAILS.field(Column.VECTORS).type
    try:
        return table[Column.VECTORS].cast(kind)
    except pa.ArrowException as error:
        found, mend = str(table[Column.VECTORS].type), "give a Parquet table with a map of names to lists"
        raise DataError(
            f"column {Column.VECTORS} of {source}", value=found, limit=str(kind), mend=mend
        ) from error


def split_tags(text: str) -> list[str]:
    """Tags of 'a|b'.

    >>> split_tags("Adventure|Children")
    ['Adventure', 'Children']
    """
    return [tag for tag in (part.strip() for part in text.split("|")) if tag]
