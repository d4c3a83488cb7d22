"""Which decision an event without a request answers: case by case."""

from typing import Any

import pytest

from tastemaker.events.attribution import Logged, Rule
from tastemaker.events.last_touch import MOST_SHOWN, Shown, decode, encode, last_touch, users_of
from tastemaker.events.schema import Event
from tastemaker.state.keys import Keys

RULES = {("exp", "live"): Rule(1000, frozenset({"purchase", "click"}), "value")}


def decision(request_id: str, items: str, at_ms: int = 100, **fields: Any) -> Logged:
    content = {
        "request_id": request_id,
        "user_id": "u",
        "experiment": "exp",
        "variant": "a",
        "origin": "live",
    }
    return Logged(at_ms, content | {"item_ids": list(items)} | fields)


def bought(item: str, at_ms: int = 500, **fields: Any) -> Logged:
    content = {
        "event_id": "e",
        "user_id": "u",
        "item_id": item,
        "kind": "purchase",
        "timestamp_ms": 1,
        "value": 2.0,
    }
    return Logged(at_ms, Event(**content | fields))


def answered(
    decisions: list[Logged], event: Logged, shown: dict[str, tuple[Shown, ...]] | None = None
) -> str | None:
    (found,) = last_touch(decisions, [event], shown or {}, RULES).events
    assert found.received_ms == event.received_ms
    return found.record.request_id


@pytest.mark.parametrize(
    ("event", "request_id"),
    [
        (bought("b"), "r2"),  # both showed it, the later one last
        (bought("a"), "r1"),
        (bought("x"), None),
        (bought("b", at_ms=199), "r1"),  # before the second
        (bought("b", at_ms=200), "r2"),
        (bought("a", at_ms=1100), "r1"),  # the last moment of the first's window
        (bought("a", at_ms=1101), None),  # after it
        (bought("b", user_id="v"), None),
        (bought("b", origin="replay"), None),
        (bought("b", kind="view"), None),
        (bought("b", request_id="r1"), "r1"),
        (bought("b", request_id="elsewhere"), "elsewhere"),
    ],
)
def test_an_event_belongs_to_the_last_list_that_showed_its_item(
    event: Logged, request_id: str | None
) -> None:
    assert answered([decision("r1", "ab"), decision("r2", "bc", at_ms=200)], event) == request_id


def test_what_was_shown_is_remembered_from_step_to_step() -> None:
    first = last_touch([decision("r1", "ab")], [], {}, RULES)
    assert answered([], bought("a"), dict(first.shown)) == "r1"
    kept = {"u": decode(encode(first.shown["u"]))}
    again = last_touch([decision("r1", "ab", at_ms=300)], [], kept, RULES)
    assert again.shown == {}  # logged twice
    later = last_touch([decision("r2", "cd", at_ms=1200)], [], kept, RULES)
    assert [one.request_id for one in later.shown["u"]] == ["r2"]  # the first's window is over


def test_of_a_user_the_newest_lists_are_kept_until_the_last_window_ends() -> None:
    many = [decision(f"r{n}", "ab", at_ms=100 + n) for n in range(MOST_SHOWN + 5)]
    found = last_touch(many, [], {}, RULES)
    assert [one.request_id for one in found.shown["u"]] == [f"r{n}" for n in range(5, MOST_SHOWN + 5)]
    ((command, key, text, px, ttl),) = found.commands(Keys("c", 4), 124)
    assert (command, key, px, ttl) == ("SET", Keys("c", 4).shown("u"), "PX", "1000")
    assert decode(text) == found.shown["u"]


def test_only_users_of_experiments_and_of_events_that_may_be_rewards_are_looked_up() -> None:
    decisions = [decision("r1", "a"), decision("r2", "a", user_id="v", experiment=None)]
    events = [
        bought("a", user_id="w"),
        bought("a", user_id="x", request_id="r"),
        bought("a", user_id="y", kind="view"),
    ]
    assert users_of(decisions, events, RULES) == ["u", "w"]
    assert users_of(decisions, events, {}) == []
