"""A user's record: each part by hand, and that it is a function of the set of events."""

import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import CompatibilityError
from tastemaker.events.schema import Event
from tastemaker.features.counters import row_of
from tastemaker.features.user_state import MOST_SESSION, Signal, UserState, after, state_in
from tastemaker.types import EVENT_KINDS

MINUTE, DAY = 60_000, 86_400_000
START = 1_700_000_000_000
CATEGORIES = {"a": "comedy", "b": "drama", "c": "drama"}


def category(item_id: str) -> str:
    return CATEGORIES.get(item_id, "")


def event(kind: str, item_id: str, at: int, value: float | None = None, number: int = 0) -> Event:
    return Event(
        event_id=f"{kind}-{item_id}-{at}-{number}", user_id="u", item_id=item_id, kind=kind, timestamp_ms=START + at,
        value=value,
    )  # fmt: skip


def state_of(*events: Event) -> UserState:
    if not events:
        return UserState()
    (state,) = after([UserState()], [list(events)], category)
    return state


@st.composite
def events(draw) -> list[Event]:
    kinds, items = st.sampled_from(EVENT_KINDS), st.sampled_from(["a", "b", "c", "d"])
    rows = draw(st.lists(st.tuples(kinds, items, st.integers(0, 20 * DAY), st.floats(0, 5)), max_size=20))
    return [event(kind, item, at, value, n) for n, (kind, item, at, value) in enumerate(rows)]


def test_counts_and_tastes_are_as_of_the_newest_event():
    state = state_of(event("view", "b", 0), event("purchase", "c", 10 * DAY))
    assert state.last_ms == START + 10 * DAY
    assert state.counters.value_NKW[0, row_of("weight"), -1] == pytest.approx(0.25 + 1.0)
    assert state.tastes(state.last_ms) == pytest.approx({"drama": 0.25 * math.exp(-1) + 1.0})
    assert state.tastes(state.last_ms + 5 * DAY)["drama"] == pytest.approx(
        (0.25 * math.exp(-1) + 1) * math.exp(-0.5)
    )


def test_a_session_ends_with_half_an_hour_of_silence():
    state = state_of(
        event("click", "a", 0), event("click", "b", 31 * MINUTE), event("view", "c", 60 * MINUTE)
    )
    assert state.session(START + 61 * MINUTE) == ["b", "c"]
    assert state.session(START + 91 * MINUTE) == []


def test_what_is_no_interest_is_in_no_session_and_no_taste():
    state = state_of(event("impression", "a", 0), event("skip", "b", 1), event("hide", "c", 2))
    assert (state.session(START + 3), state.affinity) == ([], {})


def test_a_later_like_forgives_and_an_earlier_one_does_not():
    assert state_of(event("hide", "a", 5), event("dislike", "b", 5)).refused() == ["a", "b"]
    assert state_of(event("like", "a", 9), event("hide", "a", 5)).refused() == []
    assert state_of(event("like", "a", 1), event("hide", "a", 5)).refused() == ["a"]


def test_impressions_fade_by_a_week():
    state = state_of(event("impression", "a", 0), event("impression", "a", 7 * DAY, number=1))
    assert state.shown["a"].at(START + 7 * DAY) == pytest.approx(1 + math.exp(-1))


@given(events(), st.integers(0, 20), st.randoms())
def test_any_order_and_any_batches_give_the_same(given_events, cut, random):
    whole = state_of(*given_events)
    shuffled = random.sample(given_events, len(given_events))
    (first,) = after([UserState()], [shuffled[:cut]], category)
    (parts,) = after([UserState.decode(first.encode())], [shuffled[cut:]], category)
    now = START + 30 * DAY
    np.testing.assert_allclose(parts.counters.at(now), whole.counters.at(now), rtol=1e-9, atol=1e-12)
    assert parts.tastes(now) == pytest.approx(whole.tastes(now), rel=1e-9)
    assert (parts.taken, parts.declined) == (whole.taken, whole.declined)
    assert parts.opinions == whole.opinions
    assert {i: s.at(now) for i, s in parts.shown.items()} == pytest.approx(
        {i: s.at(now) for i, s in whole.shown.items()}, rel=1e-9
    )


@given(events(), events())
def test_two_users_merged_are_one_with_the_events_of_both(some, others):
    merged, whole = state_of(*some).merged(state_of(*others)), state_of(*some, *others)
    now = START + 30 * DAY
    np.testing.assert_allclose(merged.counters.at(now), whole.counters.at(now), rtol=1e-9, atol=1e-12)
    assert merged.tastes(now) == pytest.approx(whole.tastes(now), rel=1e-9)
    assert (merged.taken, merged.declined) == (whole.taken, whole.declined)
    assert merged.opinions == whole.opinions
    assert {i: s.at(now) for i, s in merged.shown.items()} == pytest.approx(
        {i: s.at(now) for i, s in whole.shown.items()}, rel=1e-9
    )


@given(events())
def test_bytes_give_back_what_went_in(given_events):
    state = state_of(*given_events)
    again = UserState.decode(state.encode())
    assert again.encode() == state.encode()
    assert (again.taken, again.declined, again.opinions, again.shown, again.affinity) == (
        state.taken, state.declined, state.opinions, state.shown, state.affinity,
    )  # fmt: skip


def test_a_record_that_is_read_again_is_decoded_once():
    record = state_of(event("click", "i", 0)).encode()
    assert state_in(record) is state_in(bytes(bytearray(record)))
    assert state_in(record).encode() == record
    assert state_in(None).encode() == UserState().encode()
    with pytest.raises(CompatibilityError, match="a user's record"):
        state_in(b"\x91\x07")


def test_the_newest_stay_where_there_are_too_many():
    state = state_of(*(event("click", f"i{n}", n, number=n) for n in range(MOST_SESSION + 5)))
    assert [s.item_id for s in state.taken][:: MOST_SESSION - 1] == ["i5", f"i{MOST_SESSION + 4}"]


def test_what_was_not_wanted_pushes_out_nothing_that_was_taken():
    state = state_of(event("click", "a", 0), *(event("skip", f"i{n}", 1, number=n) for n in range(80)))
    assert [s.item_id for s in state.taken] == ["a"]
    assert len(state.declined) == MOST_SESSION


def test_signals_of_the_session_have_weights_and_signs():
    state = state_of(
        event("purchase", "a", 0),  # over: 31 minutes of silence
        event("rating", "b", 31 * MINUTE, value=4.0),
        event("dislike", "c", 60 * MINUTE),
        event("view", "a", 89 * MINUTE),
    )
    assert state.signals(START + 90 * MINUTE) == [
        Signal(START + 31 * MINUTE, "b", 4.0),
        Signal(START + 60 * MINUTE, "c", -0.75),
        Signal(START + 89 * MINUTE, "a", 0.25),
    ]
    assert state.session(START + 90 * MINUTE) == ["a"]  # nothing was taken for 58 minutes before it
    assert state.signals(START + 120 * MINUTE) == []


def test_a_record_of_the_first_schema_has_clicked_what_it_took():
    state = state_of(event("purchase", "a", 5), event("hide", "b", 6))
    parts = [state.affinity, [(START + 5, "a")], state.opinions, state.shown]
    again = UserState.decode(msgpack.packb((1, state.counters.encode()[0], *parts)))
    assert again.taken == [Signal(START + 5, "a", 0.5)]
    assert (again.declined, again.refused(), again.last_ms) == ([], ["b"], state.last_ms)


def test_a_user_of_whom_nothing_is_known_and_a_record_of_another_release():
    assert UserState.decode(None).last_ms == 0
    with pytest.raises(CompatibilityError, match=r"schema 1 or 2.*features rebuild"):
        UserState.decode(b"\x91\x07")
