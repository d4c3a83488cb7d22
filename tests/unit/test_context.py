from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.features.context import (
    CONTEXT_TABLES,
    NUM_ROWS,
    context_bags,
    context_rows,
    device_context,
    local_time_ms,
    query_rows,
)
from tastemaker.types import DEVICES, Int64, Query, device_row


def unknown(num: int) -> Int64:
    return np.zeros(num, np.int64)


def rows(text: str) -> dict[str, int]:
    moment = int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    return {table: int(row[0]) for table, row in context_rows(np.array([moment]), unknown(1)).items()}


def query(now_ms: int = 0, **context: str) -> Query:
    return Query(np.empty(0, np.int32), context=context, now_ms=now_ms)


@pytest.mark.parametrize(
    ("text", "hour", "weekday", "season"),
    [
        ("2025-12-01T00:00:00", 1, 1, 1),  # a Monday
        ("2026-02-28T23:59:59", 24, 6, 1),  # a Saturday, the last second of the first season
        ("2026-03-01T00:00:00", 1, 7, 2),
        ("2026-05-31T12:30:00", 13, 7, 2),
        ("2026-08-31T05:00:00", 6, 1, 3),
        ("2026-11-30T17:00:00", 18, 1, 4),
        ("1970-01-01T00:00:00.001", 1, 4, 1),  # a Thursday
    ],
)
def test_rows_of_a_moment(text: str, hour: int, weekday: int, season: int) -> None:
    assert rows(text) == {"hours": hour, "weekdays": weekday, "seasons": season, "devices": 0}


@given(moments=st.lists(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)), min_size=1, max_size=20))
def test_rows_agree_with_the_calendar(moments: list[datetime]) -> None:
    times = np.array([(m - datetime(1970, 1, 1)) // timedelta(milliseconds=1) for m in moments])
    found = context_rows(times, unknown(len(times)))
    assert found["hours"].tolist() == [m.hour + 1 for m in moments]
    assert found["weekdays"].tolist() == [m.isoweekday() for m in moments]
    assert found["seasons"].tolist() == [m.month % 12 // 3 + 1 for m in moments]
    assert all(found[table].max() < NUM_ROWS[table] for table in CONTEXT_TABLES)


def test_unknown_times_and_devices_are_row_0() -> None:
    found = query_rows([query(), query(-5, device="toaster")])
    assert [found[table].tolist() for table in CONTEXT_TABLES] == [[0, 0], [0, 0], [0, 0], [0, 5]]


def test_each_device_has_a_row() -> None:
    queries = [query(device=device.upper()) for device in DEVICES]
    assert query_rows(queries)["devices"].tolist() == [1, 2, 3, 4, 5]
    assert NUM_ROWS["devices"] == 6


def test_rows_of_devices_become_the_context_that_gives_them() -> None:
    assert device_context(0) == {}
    for row in range(1, NUM_ROWS["devices"]):
        assert device_row(device_context(row)["device"]) == row


def test_local_time_goes_before_the_moment_of_the_request() -> None:
    found = query_rows(
        [
            query(now_ms=3_600_000),
            query(now_ms=3_600_000, local_time="2026-03-01T20:00:00-08:00", device="tv"),
        ]
    )
    assert found["hours"].tolist() == [2, 21]  # the user's clock: nothing is moved to UTC
    assert found["weekdays"].tolist() == [4, 7]
    assert found["devices"].tolist() == [0, 4]


@pytest.mark.parametrize(
    "text", ["2026-11-24T18:30", "2026-11-24 18:30:00.5", "2026-11-24T18:30Z", "20261124T1830"]
)
def test_local_times_that_are_understood(text: str) -> None:
    assert local_time_ms(text) // 3_600_000 == datetime(2026, 11, 24, 18, tzinfo=UTC).timestamp() // 3600


@pytest.mark.parametrize(
    "text", ["", "18:30", "2026-11-24", "2026-13-24T18:30", "half past six, more or less"]
)
def test_a_bad_local_time_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^local_time, is .*must be an ISO 8601 date with a time"):
        local_time_ms(text)


def test_bags_hold_one_row_for_each_request() -> None:
    bags = context_bags(("weekdays", "devices"), query_rows([query(1, device="mobile"), query()]))
    assert {name: [part.tolist() for part in bag] for name, bag in bags.items()} == {
        "query_weekdays": [[4, 0], [1, 1], [1.0, 1.0]],
        "query_devices": [[1, 0], [1, 1], [1.0, 1.0]],
    }
