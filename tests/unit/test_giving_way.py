"""Work beside requests: it goes on between them, and at last beside them."""

import asyncio
import threading
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker import pacing
from tastemaker.data.values import array_of, repeated_values_of, values_of
from tastemaker.features import ragged
from tastemaker.features.ragged import repeated
from tastemaker_services.versions import giving_way
from tastemaker_services.versions.giving_way import (
    GRACE_SECONDS,
    MOST_WAITS,
    ONCE_SECONDS,
    BetweenRequests,
    UnderWay,
    quiet_moment,
)

WAIT_SECONDS = 20.0


class Clock(UnderWay):
    """Requests of whom no end is waited for: the time passes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.waits = 0.0, list[float]()

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return not self.any


def test_work_waits_for_nobody_where_no_request_is_under_way() -> None:
    clock = Clock()
    pace = BetweenRequests(clock, lambda: clock.now)
    pace()
    with clock, clock:
        pass
    pace()
    assert clock.waits == []


def test_work_waits_while_one_request_of_several_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it may at once, and again, and again; and no longer once none is under way."""
    monkeypatch.setattr(giving_way, "ONCE_SECONDS", 0.05)
    under_way, paces = UnderWay(), threading.Semaphore(0)
    pace = BetweenRequests(under_way, lambda: 0.0)

    def work() -> None:
        while under_way.any:
            pace()
            paces.release()

    under_way.__enter__()
    with under_way:
        pass  # one of two has ended
    thread, began = threading.Thread(target=work), time.monotonic()
    thread.start()
    try:
        assert all(paces.acquire(timeout=WAIT_SECONDS) for _ in range(4))
        assert time.monotonic() - began >= 4 * 0.04  # a pace that waits for nothing ends at once
    finally:
        under_way.__exit__()
        thread.join(WAIT_SECONDS)
    assert not thread.is_alive()


def test_beside_requests_without_end_work_goes_on_after_as_many_waits_as_it_may_have() -> None:
    clock = Clock()
    pace = BetweenRequests(clock, lambda: clock.now)
    with clock:
        for _ in range(100):
            clock.now += 0.1  # it works
            pace()
    worked = 100 * 0.1
    assert sum(clock.waits) == pytest.approx(GRACE_SECONDS + MOST_WAITS * worked, rel=1e-6)
    assert max(clock.waits) <= ONCE_SECONDS


def test_a_pace_holds_for_its_thread_and_block_alone() -> None:
    steps = list[str]()
    with pacing.paced(lambda: steps.append("outer")):
        with pacing.paced(None):
            pacing.step()
        pacing.step()
        other = threading.Thread(target=pacing.step)
        other.start()
        other.join()
    pacing.step()
    assert steps == ["outer"]


def test_a_column_is_read_in_steps() -> None:
    steps = list[int]()
    ids = [f"i{row}" for row in range(10_000)]
    with pacing.paced(lambda: steps.append(1)):
        assert values_of(pa.chunked_array([ids[:7], ids[7:]])) == ids
    assert len(steps) >= 2


def test_a_moment_without_requests_is_waited_for_so_long_and_no_longer() -> None:
    busy = [True, True, False]
    assert asyncio.run(quiet_moment(lambda: busy.pop(0), WAIT_SECONDS))
    assert not asyncio.run(quiet_moment(lambda: True, 0.0))


@given(st.lists(st.one_of(st.none(), st.sampled_from(["", "a", "bb"]))))
def test_repeated_values_are_the_columns_own_and_alike_ones_are_one(words: list[str | None]) -> None:
    found = repeated_values_of(pa.array(words, pa.string()))
    assert found == words
    assert len({id(word) for word in found}) == len(set(words))


@given(st.lists(st.integers(-5, 5)))
def test_an_array_is_what_a_function_makes_of_each_value(numbers: list[int]) -> None:
    assert array_of(numbers, abs, np.int64).tolist() == [abs(number) for number in numbers]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4))), st.integers(1, 5))
def test_values_are_repeated_as_numpy_does(pairs: list[tuple[int, int]], at_once: int) -> None:
    values = np.array([value for value, _ in pairs], np.int32)
    lengths = np.array([length for _, length in pairs], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "_AT_ONCE", at_once)
        found = repeated(values, lengths)
    assert found.dtype == values.dtype
    assert found.tolist() == np.repeat(values, lengths).tolist()
