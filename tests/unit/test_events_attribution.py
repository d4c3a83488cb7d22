"""Joining clicks to decisions: case by case."""

from typing import Any

import pytest

from tastemaker.events.attribution import (
    EARLY_MS,
    Attributed,
    Logged,
    Open,
    Outcome,
    attribute,
    decode_open,
    encode_open,
)
from tastemaker.events.schema import Event

WINDOWS = {("exp", "live"): 1000}


def decision(request_id: str = "r", at_ms: int = 100, **fields: Any) -> Logged:
    content = {"request_id": request_id, "experiment": "exp", "variant": "a", "origin": "live"}
    return Logged(at_ms, content | fields)


def click(
    request_id: str | None = "r", at_ms: int = 200, kind: str = "click", origin: str = "live"
) -> Logged:
    event = Event(
        event_id="e",
        user_id="u",
        item_id="i",
        kind=kind,
        timestamp_ms=1,
        request_id=request_id,
        origin=origin,
    )  # type: ignore[arg-type]
    return Logged(at_ms, event)


def join(
    decisions: list[Logged],
    events: list[Logged],
    pending: dict[str, Open] | None = None,
    due: tuple[str, ...] = (),
) -> Attributed:
    return attribute(decisions, events, pending or {}, due, WINDOWS)


def test_a_decision_opens_for_its_window_from_when_it_was_logged() -> None:
    assert join([decision()], []).open == {"r": Open("exp", "a", "live", 1100, 0)}


@pytest.mark.parametrize(
    ("event", "reward"),
    [
        (click(at_ms=1100), 1),
        (click(at_ms=1101), 0),
        (click(kind="impression"), 0),
        (click(request_id=None), 0),
        (click(origin="simulator"), 0),
    ],
)
def test_only_a_click_of_the_same_origin_within_the_window_is_a_reward(event: Logged, reward: int) -> None:
    assert join([decision()], [event]).open["r"].reward == reward


def test_the_outcome_is_told_when_the_window_closes() -> None:
    pending = {"r": Open("exp", "a", "live", 1100, 1), "s": Open("exp", "b", "live", 1100, 0)}
    result = join([], [], pending, due=("r", "s"))
    assert result.outcomes == [Outcome("exp", "a", 1), Outcome("exp", "b", 0)]
    assert result.closed == ["r", "s"]
    assert result.open == {}


def test_a_click_read_together_with_the_closing_still_counts() -> None:
    pending = {"r": Open("exp", "a", "live", 1100, 0)}
    assert join([], [click(at_ms=1100)], pending, due=("r",)).outcomes == [Outcome("exp", "a", 1)]


def test_a_click_without_its_decision_waits_and_is_forgotten_in_time() -> None:
    waiting = join([], [click(at_ms=200)]).open["r"]
    assert waiting == Open("", "", "live", 200 + EARLY_MS, 1)
    assert join([decision(at_ms=250)], [], {"r": waiting}).open["r"].reward == 1
    forgotten = join([], [], {"r": waiting}, due=("r",))
    assert (forgotten.outcomes, forgotten.closed) == ([], ["r"])


def test_a_waiting_click_that_came_after_the_window_earns_nothing() -> None:
    waiting = join([], [click(at_ms=1101)]).open["r"]
    assert join([decision(at_ms=100)], [], {"r": waiting}).open["r"].reward == 0


def test_a_decision_that_opens_just_when_its_waiting_click_is_due_stays_open() -> None:
    waiting = join([], [click(at_ms=200)]).open["r"]
    result = join([decision(at_ms=250)], [], {"r": waiting}, due=("r",))
    assert (result.closed, result.outcomes, result.open["r"].reward) == ([], [], 1)


def test_a_decision_logged_twice_opens_once() -> None:
    first = Open("exp", "a", "live", 1100, 1)
    assert join([decision(at_ms=500)], [], {"r": first}).open == {}


@pytest.mark.parametrize("fields", [{"experiment": None}, {"experiment": "gone"}, {"origin": "replay"}])
def test_decisions_of_no_known_experiment_stay_out(fields: dict[str, Any]) -> None:
    assert join([decision(**fields)], []).open == {}


def test_an_open_decision_comes_back_from_json() -> None:
    one = Open("exp", "ä", "live", 1100, 1)
    assert decode_open(encode_open(one)) == one
