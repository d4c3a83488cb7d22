"""Decayed counts: worked out by hand, and the properties that let stream, rebuild and training share them."""

import functools
import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError
from tastemaker.features.counters import ROWS, WINDOWS_MS, Counters, decay, event_weight, row_of

HOUR = 3_600_000
NEVER = Counters.zeros(1)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, len(ROWS) - 1),
        st.floats(0, 1e3),
        st.integers(1_600_000_000_000, 1_610_000_000_000),
    ),
    max_size=30,
)


def plus(counters: Counters, events) -> Counters:
    record, row, amount, time = zip(*events, strict=True) if events else ((), (), (), ())
    return counters.plus(
        np.array(record, np.int64), np.array(row, np.int64), np.array(amount, float), np.array(time, np.int64)
    )


def test_what_lies_in_the_future_is_whole():
    assert decay(np.array([-1, -HOUR])).tolist() == [[1.0] * len(WINDOWS_MS)] * 2
    click = plus(NEVER, [(0, row_of("click"), 1.0, 2 * HOUR)])
    assert click.at(HOUR)[0, row_of("click")].tolist() == [1.0] * len(WINDOWS_MS)


def test_a_rating_weighs_its_value_and_none_takes_away():
    assert [event_weight("rating", value) for value in (3.5, 0.0, -2.0, None)] == [3.5, 0.0, 0.0, 0.0]


def test_an_event_counts_a_third_one_window_later_and_all_forgets_nothing():
    clicks = plus(NEVER, [(0, row_of("click"), 1.0, HOUR), (0, row_of("click"), 1.0, 2 * HOUR)])
    found = clicks.at(2 * HOUR)[0, row_of("click")]
    assert found[0] == pytest.approx(1 + math.exp(-1), rel=1e-12)
    assert found[1] == pytest.approx(1 + math.exp(-1 / 24), rel=1e-12)
    assert found[-1] == 2
    assert clicks.at(26 * HOUR)[0, row_of("click"), 1] == pytest.approx(found[1] * math.exp(-1), rel=1e-12)
    assert not clicks.at(2 * HOUR)[0, row_of("view")].any()


def test_an_event_that_comes_late_counts_by_its_own_time():
    late = plus(plus(NEVER, [(0, 0, 1.0, 5 * HOUR)]), [(0, 0, 1.0, 4 * HOUR)])
    assert late.last_ms_N.tolist() == [5 * HOUR]
    assert late.value_NKW[0, 0, 0] == pytest.approx(1 + math.exp(-1), rel=1e-12)


@given(EVENTS, st.integers(0, 30), st.randoms())
def test_any_order_and_any_batches_give_the_same(events, cut, random):
    whole = plus(Counters.zeros(4), events)
    shuffled = random.sample(events, len(events))
    parts = plus(plus(Counters.zeros(4), shuffled[:cut]), shuffled[cut:])
    np.testing.assert_array_equal(parts.last_ms_N, whole.last_ms_N)
    np.testing.assert_allclose(
        parts.value_NKW, whole.value_NKW, rtol=1e-9, atol=1e-12
    )  # float64 sums, reordered


@given(EVENTS, EVENTS)
def test_merging_partitions_is_counting_all_in_one(some, others):
    merged = plus(Counters.zeros(4), some).merged(plus(Counters.zeros(4), others))
    whole = plus(Counters.zeros(4), some + others)
    np.testing.assert_array_equal(merged.last_ms_N, whole.last_ms_N)
    np.testing.assert_allclose(merged.value_NKW, whole.value_NKW, rtol=1e-9, atol=1e-12)


@given(EVENTS)
def test_bytes_give_back_what_went_in(events):
    counters = plus(Counters.zeros(4), events)
    again = Counters.decode(counters.encode())
    np.testing.assert_array_equal(again.value_NKW, counters.value_NKW)
    np.testing.assert_array_equal(again.last_ms_N, counters.last_ms_N)


@given(EVENTS, st.integers(2, 5))
def test_many_records_are_decoded_as_one_by_one(events, times):
    """Also among absent ones, and however many there are."""
    records = [None, *plus(Counters.zeros(4), events).encode(), b""] * times
    many, alone = Counters.decode(records), [Counters.decode([record]) for record in records]
    np.testing.assert_array_equal(many.value_NKW, np.concatenate([one.value_NKW for one in alone]))
    np.testing.assert_array_equal(many.last_ms_N, np.concatenate([one.last_ms_N for one in alone]))


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_parts_are_folded_as_if_merged_one_after_another(events):
    parts = [plus(Counters.zeros(4), some) for some in events]
    folded = Counters.decode([record for part in parts for record in part.encode()]).folded(len(parts))
    merged = functools.reduce(Counters.merged, parts)
    np.testing.assert_array_equal(folded.last_ms_N, merged.last_ms_N)
    np.testing.assert_allclose(folded.value_NKW, merged.value_NKW, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("number", [1, 20])
@pytest.mark.parametrize(
    ("record", "found"),
    [
        (struct.pack("<qH", 5, 1), "10 bytes.*1 rows"),
        (struct.pack("<qH", 5, 1 << len(ROWS)), "10 bytes.*0 rows"),
    ],
)
def test_one_that_cannot_be_read_is_refused_among_many_as_alone(number, record, found):
    good = plus(Counters.zeros(1), [(0, 0, 1.0, HOUR)]).encode()
    with pytest.raises(CompatibilityError, match=found):
        Counters.decode(good * (number - 1) + [record])


def test_absent_records_have_seen_nothing_and_only_used_rows_are_kept():
    assert not Counters.decode([None, b""]).value_NKW.any()
    (record,) = plus(NEVER, [(0, 3, 1.0, 7)]).encode()
    assert len(record) == 8 + 2 + 8 * len(WINDOWS_MS)


def test_a_record_that_was_cut_short_is_refused():
    (record,) = plus(NEVER, [(0, 3, 1.0, 7)]).encode()
    with pytest.raises(CompatibilityError, match=r"49 bytes.*features rebuild"):
        Counters.decode([record[:-1]])
