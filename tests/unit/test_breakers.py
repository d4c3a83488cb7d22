"""Circuit breakers under a clock of the test's own."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker import telemetry
from tastemaker.config_serving import BreakerSettings
from tastemaker.errors import StateError
from tastemaker_services.gateway.breakers import Breaker, Breakers, State

SETTINGS = BreakerSettings(calls=8, least_calls=4, window_seconds=10.0, failure_share=0.5, retry_seconds=1.0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make(clock: Clock, notes: list[State] | None = None) -> Breaker:
    return Breaker(SETTINGS, (notes if notes is not None else []).append, clock)


def opened(clock: Clock, notes: list[State] | None = None) -> Breaker:
    breaker = make(clock, notes)
    for _ in range(SETTINGS.least_calls):
        breaker.failed()
    assert breaker.state is State.OPEN
    return breaker


def test_it_opens_at_the_share_of_failures_and_not_before_there_are_enough_calls() -> None:
    breaker = make(Clock())
    for failed in (True, True, False, False):  # two of four: the share of one half
        assert breaker.state is State.CLOSED
        assert breaker.allows()
        breaker.failed() if failed else breaker.succeeded()
    assert breaker.state is State.CLOSED  # it is looked at when a call fails
    breaker.failed()  # three of five
    assert breaker.state is State.OPEN
    other = make(Clock())
    for failed in (False, False, True, True):  # the fourth call makes it two of four
        assert other.state is State.CLOSED
        other.failed() if failed else other.succeeded()
    assert other.state is State.OPEN


def test_fewer_failures_than_the_share_never_open_it() -> None:
    breaker = make(Clock())
    for _ in range(50):
        for _ in range(3):
            breaker.succeeded()
        breaker.failed()
    assert breaker.state is State.CLOSED


def test_failures_beyond_the_window_are_forgotten() -> None:
    clock = Clock()
    breaker = make(clock)
    for _ in range(3):
        breaker.failed()
    clock.now += 10.1
    breaker.failed()
    assert breaker.state is State.CLOSED


def test_open_it_refuses_then_lets_one_probe_through_whose_success_closes_it() -> None:
    clock, notes = Clock(), list[State]()
    breaker = opened(clock, notes)
    assert not breaker.allows()
    clock.now += 0.99
    assert not breaker.allows()
    clock.now += 0.01
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert breaker.allows()
    assert notes == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_probe_that_fails_opens_it_anew_for_the_whole_time() -> None:
    clock = Clock()
    breaker = opened(clock)
    for _ in range(3):
        clock.now += 1.0
        assert breaker.allows()
        breaker.failed()
        assert breaker.state is State.OPEN
        assert not breaker.allows()
    clock.now += 1.0
    assert breaker.allows()


def test_a_probe_of_which_nothing_is_heard_is_followed_by_another() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1.0
    assert breaker.allows()
    assert not breaker.allows()
    clock.now += 1.0
    assert breaker.allows()


def test_after_it_closed_old_failures_count_no_more() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now += 1.0
    assert breaker.allows()
    breaker.succeeded()
    for _ in range(SETTINGS.least_calls - 2):
        breaker.failed()
    assert breaker.state is State.CLOSED


@given(st.lists(st.tuples(st.integers(0, 192), st.booleans()), max_size=60))
def test_whatever_happened_a_part_that_answers_again_is_used_again_soon(
    past: Sequence[tuple[int, bool]],
) -> None:
    clock = Clock()
    breaker = make(clock)
    for waited, fails in past:
        clock.now += waited / 64  # of which sums are exact: a second later is a second later
        if breaker.allows():
            breaker.failed() if fails else breaker.succeeded()
    clock.now += SETTINGS.retry_seconds
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.state is State.CLOSED


@given(st.integers(1, 200))
def test_a_dead_part_costs_no_more_calls_than_the_least_and_the_probes(seconds: int) -> None:
    clock = Clock()
    breaker, made = make(clock), 0
    for _ in range(20 * seconds):  # twenty requests a second
        if breaker.allows():
            made += 1
            breaker.failed()
        clock.now += 0.05
    assert made <= SETTINGS.least_calls + seconds / SETTINGS.retry_seconds


def read(breakers: Breakers, outcome: str, seconds: float = 0.02, fair: float = 0.01) -> str:
    async def answer() -> str:
        if outcome == "late":
            await asyncio.sleep(10)
        if outcome == "fails":
            raise StateError("cannot read")
        return outcome

    return asyncio.run(breakers.read("history", answer, seconds, fair))


@pytest.mark.parametrize("fault", ["late", "fails"])
def test_a_read_that_fails_or_hangs_is_soon_not_tried_and_says_so_in_the_metrics(fault: str) -> None:
    clock = Clock()
    catalogue = f"breakers-{fault}"
    breakers = Breakers(SETTINGS, catalogue, clock)
    state = telemetry.BREAKER_STATE.labels(catalogue, "history")
    for _ in range(SETTINGS.least_calls):
        with pytest.raises(StateError, match=r"is late: over 20 ms|cannot read"):
            read(breakers, fault)
    with pytest.raises(StateError, match="not read for the moment"):
        read(breakers, "fine")
    assert state._value.get() == State.OPEN
    clock.now += 1.0
    with pytest.raises(StateError, match=r"is late: over 20 ms|cannot read"):
        read(breakers, fault)
    assert (
        telemetry.BREAKER_OPENED.labels(catalogue, "history")._value.get() == 1
    )  # a probe that fails is none
    clock.now += 1.0
    assert read(breakers, "fine") == "fine"
    assert state._value.get() == State.CLOSED


def test_to_be_late_in_less_than_a_fair_time_counts_for_nothing() -> None:
    breakers = Breakers(SETTINGS, "breakers-unfair")
    for _ in range(10 * SETTINGS.least_calls):
        with pytest.raises(StateError, match="is late"):
            read(breakers, "late", seconds=0.001, fair=0.01)
    assert breakers["history"].state is State.CLOSED


def test_a_time_out_that_this_process_saw_late_counts_for_nothing() -> None:
    clock = Clock()
    breakers = Breakers(SETTINGS, "breakers-own", clock)

    async def answer() -> None:
        clock.now += 1.0  # the loop was busy with others for a second, of a call that had 20 ms
        await asyncio.sleep(10)

    for _ in range(10 * SETTINGS.least_calls):
        with pytest.raises(StateError, match="is late"):
            asyncio.run(breakers.read("history", answer, 0.02, 0.01))
    assert breakers["history"].state is State.CLOSED
