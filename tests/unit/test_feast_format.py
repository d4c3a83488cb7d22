"""Feast's bytes without Feast: known values, and that what is read is what was written."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import NOW_MS

from tastemaker.errors import CompatibilityError, UsageError
from tastemaker.features import feast_format
from tastemaker.features.feast_repo import connection_string
from tastemaker.features.views import VIEW, ViewRows

VIEW_OF_ALL_KINDS = VIEW["user_session"]
NUMBERS = st.floats(allow_nan=True, allow_infinity=False)


def test_murmur3_by_its_reference_values():
    assert feast_format.murmur3(b"") == 0
    assert feast_format.murmur3(b"test") == 0xBA6BD213
    assert feast_format.murmur3(b"Hello, world!") == 0xC0363E43
    assert feast_format.murmur3(b"The quick brown fox jumps over the lazy dog") == 0x2E4FF723


def test_a_key_is_lengths_and_types_then_the_project():
    assert feast_format.row_key("user", "ü1", "tm_shop") == (
        b"\x01\0\0\0\x02\0\0\0\x07\0\0\0user_id\x02\0\0\0\x03\0\0\0\xc3\xbc1tm_shop"
    )


@given(st.text(max_size=20))
def test_a_key_gives_back_its_id_and_no_other_projects(user_id):
    key = feast_format.row_key("user", user_id, "tm_shop")
    assert feast_format.id_of("user", key, "tm_shop") == user_id
    assert feast_format.id_of("user", feast_format.row_key("user", user_id, "x_tm_shop"), "tm_shop") is None
    assert feast_format.id_of("user", feast_format.row_key("item", user_id, "tm_shop"), "tm_shop") is None
    assert feast_format.id_of("user", key[:18], "tm_shop") is None


@given(NUMBERS, st.integers(-(2**53), 2**53), st.text(max_size=300))
def test_cells_give_back_what_went_in(number, whole, text):
    counted = ViewRows(VIEW["item_popularity"], np.array([[NOW_MS, number, 0.0, 1.5, whole]]), {})
    values = [feast_format.value_of(cell) for cell in feast_format.cells(counted)[0]]
    assert values == [NOW_MS, None if math.isnan(number) else number, 0.0, 1.5, float(whole)]
    session = ViewRows(
        VIEW_OF_ALL_KINDS, np.array([[float(whole), 3.0, math.nan]]), {"session_last_item": [text]}
    )
    values = [feast_format.value_of(cell) for cell in feast_format.cells(session)[0]]
    assert values == [whole, 3, None, text]


@given(st.integers(0, 2**61))
def test_times_give_back_what_went_in(time_ns):
    assert feast_format.decode_time(feast_format.encode_time(time_ns)) == time_ns


def test_a_value_of_a_type_that_we_do_not_write_is_refused():
    with pytest.raises(CompatibilityError, match=r"is 6, must be 2, 4 or 5.*materialize"):
        feast_format.value_of(b"\x35\0\0\0\0")


def test_where_feast_finds_the_store():
    assert connection_string("redis://host") == "host:6379,db=0"
    assert connection_string("redis://:0123@10.0.0.1:7000/3") == '10.0.0.1:7000,db=3,password="0123"'
    cluster = "rediss+cluster://:a%2C@h1:7000,h2:7001"
    assert connection_string(cluster) == r'h1:7000,h2:7001,ssl=true,password="a\u002c"'
    with pytest.raises(UsageError, match=r"state.url for Feast, is 'unix://', must be redis://"):
        connection_string("unix:///tmp/redis.sock")
    with pytest.raises(UsageError, match="IPv4"):
        connection_string("redis://[::1]:6379")
