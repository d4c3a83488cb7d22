"""When and on what a request is made, as rows of small tables: hour of day, weekday, season and device.

Row 0 of each table stands for unknown. A request's own `local_time` goes before the moment at which it came; events of
the past have that moment alone, in UTC.

Shape letters: B requests.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

import numpy as np

from tastemaker.errors import DataError
from tastemaker.features.ranking_batch import QUERY_PREFIX, Bag
from tastemaker.types import DEVICES, Int8, Int64, Query, device_row

ContextTable = Literal["hours", "weekdays", "seasons", "devices"]
CONTEXT_TABLES: tuple[ContextTable, ...] = get_args(ContextTable)
NUM_ROWS: Mapping[ContextTable, int] = {"hours": 25, "weekdays": 8, "seasons": 5, "devices": len(DEVICES) + 1}
LOCAL_TIME, DEVICE = "local_time", "device"
"""Keys of a request's context."""
HOURS = "hours"
"""What a part of the day is named by, as a device is by `DEVICE`."""
_HOUR_MS = 3_600_000
_HOURS_OF_PART = 4
PARTS_OF_DAY = tuple(f"{first}-{first + _HOURS_OF_PART - 1}" for first in range(0, 24, _HOURS_OF_PART))
"""Six parts of four hours: `0-3` up to `20-23`."""


def query_feature(table: ContextTable) -> str:
    """The feature that reads a table.

    >>> query_feature("hours")
    'query_hours'
    """
    return QUERY_PREFIX + table


def context_rows(timestamp_ms_B: Int64, device_row_B: Int8 | Int64) -> dict[ContextTable, Int64]:
    """The row (B,) of each request in each table.

    Hours from 0 o'clock, weekdays from Monday, seasons by month from December to February; devices are rows already.
    Times of 0 or less are unknown. The first hour of 1 December 2025, a Monday:

    >>> rows = context_rows(np.array([1764547200000]), np.array([device_row("tablet")]))
    >>> [int(rows[table][0]) for table in CONTEXT_TABLES]
    [1, 1, 1, 2]
    """
    known_B = timestamp_ms_B > 0
    hour_B = timestamp_ms_B // _HOUR_MS
    month_B = timestamp_ms_B.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) % 12
    return {
        "hours": np.where(known_B, hour_B % 24 + 1, 0),
        "weekdays": np.where(known_B, (hour_B // 24 + 3) % 7 + 1, 0),  # 1970 began on a Thursday
        "seasons": np.where(known_B, (month_B + 1) % 12 // 3 + 1, 0),
        "devices": device_row_B.astype(np.int64),
    }


def device_context(row: int) -> dict[str, str]:
    """The context of a request from the device of that row.

    >>> device_context(4), device_context(0)
    ({'device': 'tv'}, {})
    """
    return {DEVICE: DEVICES[row - 1]} if row else {}


def query_rows(queries: Sequence[Query]) -> dict[ContextTable, Int64]:
    """The row (B,) of each query in each table.

    Raises:
        DataError: See `local_time_ms`.
    """
    local_times = [query.context.get(LOCAL_TIME) for query in queries]
    times = [
        query.now_ms if text is None else local_time_ms(text)
        for query, text in zip(queries, local_times, strict=True)
    ]
    device_rows = [device_row(query.context.get(DEVICE, "")) for query in queries]
    return context_rows(np.array(times, np.int64), np.array(device_rows, np.int64))


def local_time_ms(text: str) -> int:
    """What the user's clock shows, as if it were UTC. An offset says where the clock is, and moves nothing.

    >>> local_time_ms("1970-01-01T02:00:00+09:00") // 3_600_000
    2

    Raises:
        DataError: The text is no ISO 8601 date with a time.
    """
    try:
        if len(text) <= len("2026-11-24"):
            raise ValueError("no time of day")
        shown = datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise DataError(
            LOCAL_TIME, value=text[:60], limit="an ISO 8601 date with a time, like 2026-11-24T18:30",
            mend="correct it, or leave it out",
        ) from error  # fmt: skip
    return int(shown.timestamp() * 1000)


def part_of_day(shown_ms_N: Int64) -> Int64:
    """The place among `PARTS_OF_DAY` (N,) of moments, as clocks show them.

    >>> PARTS_OF_DAY[int(part_of_day(np.array([local_time_ms("2026-11-24T18:30")]))[0])]
    '16-19'
    """
    return shown_ms_N // _HOUR_MS % 24 // _HOURS_OF_PART


def hours_of(context: Mapping[str, str]) -> str:
    """The part of the day at which a request is made where the user is; empty where it does not say.

    Raises:
        DataError: See `local_time_ms`.
    """
    text = context.get(LOCAL_TIME)
    return "" if text is None else PARTS_OF_DAY[int(part_of_day(np.array([local_time_ms(text)]))[0])]


def context_bags(tables: Sequence[ContextTable], rows: Mapping[ContextTable, Int64]) -> dict[str, Bag]:
    """One bag of one row per request, under the features `query_…` of `tables`; `rows` as `query_rows` gives them."""
    return {query_feature(table): Bag.singles(rows[table]) for table in tables}
