"""Joining events to decisions: case by case."""

import json
from typing import Any

import pytest

from tastemaker.events.attribution import (
    MOST_COUNTED,
    Attributed,
    Logged,
    Outcome,
    Rule,
    attribute,
    requests_of,
)
from tastemaker.events.open_decisions import EARLY_MS, Early, Open, assignments_fit, decode_open, encode_open
from tastemaker.events.schema import Event

RULES = {
    ("exp", "live"): Rule(1000),
    ("shop", "live"): Rule(50_000, frozenset({"purchase"}), "value"),
    ("items", "live"): Rule(1000, frozenset({"click"}), "items"),
}


def decision(request_id: str = "r", at_ms: int = 100, **fields: Any) -> Logged:
    content = {"request_id": request_id, "experiment": "exp", "variant": "a", "origin": "live"}
    return Logged(at_ms, content | fields)


def sent(request_id: str | None = "r", at_ms: int = 200, **fields: Any) -> Logged:
    content = {"event_id": "e", "user_id": "u", "item_id": "i", "kind": "click", "timestamp_ms": 1}
    return Logged(at_ms, Event(**content | {"request_id": request_id} | fields))


def bought(event_id: str, value: float | None, at_ms: int = 200, **fields: Any) -> Logged:
    return sent(at_ms=at_ms, event_id=event_id, value=value, kind="purchase", **fields)


def join(
    decisions: list[Logged],
    events: list[Logged],
    pending: dict[str, Open] | None = None,
    due: tuple[str, ...] = (),
) -> Attributed:
    return attribute(decisions, events, {r: (one,) for r, one in (pending or {}).items()}, due, RULES)


def test_a_decision_opens_for_its_window_from_when_it_was_logged() -> None:
    assert join([decision()], []).open == {"r": (Open("exp", "a", "live", 1100, 0),)}


@pytest.mark.parametrize(
    ("event", "reward"),
    [
        (sent(at_ms=1100), 1),
        (sent(at_ms=1101), 0),
        (sent(kind="impression"), 0),
        (sent(request_id=None), 0),
        (sent(origin="simulator"), 0),
    ],
)
def test_only_a_click_of_the_same_origin_within_the_window_is_a_reward(event: Logged, reward: int) -> None:
    assert join([decision()], [event]).open["r"][0].reward == reward


@pytest.mark.parametrize(
    ("events", "ignored"),
    [
        ([sent()], {}),
        ([sent(), sent(event_id="f")], {"repeated": 1}),
        ([sent(at_ms=1101)], {"late": 1}),
        ([sent(origin="simulator")], {"origin": 1}),
        ([sent(kind="view")], {}),
        ([sent(request_id=None)], {}),
    ],
)
def test_what_is_no_reward_is_counted_by_its_reason(events: list[Logged], ignored: dict[str, int]) -> None:
    assert join([decision()], events).ignored == ignored


def test_the_outcome_is_told_when_the_window_closes() -> None:
    pending = {"r": Open("exp", "a", "live", 1100, 1), "s": Open("exp", "b", "live", 1200, 0, context=(0, 3))}
    result = join([], [], pending, due=("r", "s"))
    assert result.outcomes == [Outcome("exp", "a", 1, 1100), Outcome("exp", "b", 0, 1200, (0, 3))]
    assert result.closed == ["r", "s"]
    assert result.open == {}


def test_a_click_read_together_with_the_closing_still_counts() -> None:
    pending = {"r": Open("exp", "a", "live", 1100, 0)}
    assert join([], [sent(at_ms=1100)], pending, due=("r",)).outcomes == [Outcome("exp", "a", 1, 1100)]


def test_an_amount_is_the_sum_of_its_events_each_once() -> None:
    in_shop = decision(experiment="shop")
    result = join([in_shop], [bought("1", 5.0), bought("2", 2.5), bought("1", 5.0), bought("3", None)])
    assert result.open["r"][0].reward == 5.0 + 2.5 + 0
    assert result.ignored == {"repeated": 1}


def test_items_count_once_each() -> None:
    events = [sent(event_id="1"), sent(event_id="2"), sent(event_id="3", item_id="j")]
    assert join([decision(experiment="items")], events).open["r"][0].reward == 2


def test_the_reward_of_one_decision_has_a_bound() -> None:
    events = [bought(str(n), 1.0) for n in range(MOST_COUNTED + 7)]
    result = join([decision(experiment="shop")], events)
    assert (result.open["r"][0].reward, result.ignored["too many"]) == (MOST_COUNTED, 7)


def test_a_request_in_two_experiments_earns_each_by_its_own_rule_and_window() -> None:
    assigned = [
        {"experiment": "exp", "variant": "a"},
        {"experiment": "shop", "variant": "y", "arm_context": [0, 2]},
    ]
    both = join(
        [decision(assignments=list(map(json.dumps, assigned)))], [sent(), bought("1", 3.0, at_ms=900)]
    )
    exp, shop = Open("exp", "a", "live", 1100, 1), both.open["r"][1]
    assert both.open["r"] == (exp, shop)
    assert (shop.closes_ms, shop.reward, shop.context) == (50_100, 3.0, (0, 2))

    def close(now: tuple[Open, ...], events: list[Logged]) -> Attributed:
        return attribute([], events, {"r": now}, ["r"], RULES)

    first = close(both.open["r"], [])
    assert (first.outcomes, first.closed, first.open) == ([Outcome("exp", "a", 1, 1100)], [], {"r": (shop,)})
    second = close(first.open["r"], [bought("2", 4.0, at_ms=50_000)])
    assert second.outcomes == [Outcome("shop", "y", 3.0 + 4.0, 50_100, (0, 2))]
    assert (second.closed, second.open) == (["r"], {})


def test_a_click_without_its_decision_waits_and_is_forgotten_in_time() -> None:
    (waiting,) = join([], [sent(at_ms=200)]).open["r"]
    assert waiting == Open("", "", "live", 200 + EARLY_MS, early=(Early(200, "click", "i", "e", 0.0),))
    assert join([decision(at_ms=250)], [], {"r": waiting}).open["r"][0].reward == 1
    forgotten = join([], [], {"r": waiting}, due=("r",))
    assert (forgotten.outcomes, forgotten.closed, forgotten.ignored) == ([], ["r"], {"unjoined": 1})


def test_amounts_that_wait_for_their_decision_all_count() -> None:
    (waiting,) = join([], [bought("1", 5.0), bought("2", 2.0), bought("1", 5.0), sent()]).open["r"]
    assert join([decision(experiment="shop")], [], {"r": waiting}).open["r"][0].reward == 7.0


def test_without_an_experiment_no_event_waits() -> None:
    assert attribute([], [sent()], {}, [], {}).open == {}
    assert requests_of([], [sent()], {}) == []


def test_a_waiting_click_that_came_after_the_window_earns_nothing() -> None:
    (waiting,) = join([], [sent(at_ms=1101)]).open["r"]
    assert join([decision(at_ms=100)], [], {"r": waiting}).open["r"][0].reward == 0


def test_a_decision_that_opens_just_when_its_waiting_click_is_due_stays_open() -> None:
    (waiting,) = join([], [sent(at_ms=200)]).open["r"]
    result = join([decision(at_ms=250)], [], {"r": waiting}, due=("r",))
    assert (result.closed, result.outcomes, result.open["r"][0].reward) == ([], [], 1)


def test_what_was_decided_before_units_were_assigned_anew_earns_nothing() -> None:
    anew = {("exp", "live"): Rule(1000, since_ms=500)}
    assert attribute([decision(at_ms=499)], [], {}, [], anew).open == {}
    assert attribute([decision(at_ms=500)], [], {}, [], anew).open == {"r": (Open("exp", "a", "live", 1500),)}
    before = attribute([], [], {"r": (Open("exp", "a", "live", 1499, 1),)}, ["r"], anew)
    assert (before.outcomes, before.closed) == ([], ["r"])
    since = attribute([], [], {"r": (Open("exp", "a", "live", 1500, 1),)}, ["r"], anew)
    assert (since.outcomes, since.closed) == ([Outcome("exp", "a", 1, 1500)], ["r"])


def test_a_decision_logged_twice_opens_once() -> None:
    first = Open("exp", "a", "live", 1100, 1)
    assert join([decision(at_ms=500)], [], {"r": first}).open == {}


@pytest.mark.parametrize("fields", [{"experiment": None}, {"experiment": "gone"}, {"origin": "replay"}])
def test_decisions_of_no_known_experiment_stay_out(fields: dict[str, Any]) -> None:
    assert join([decision(**fields)], []).open == {}


@pytest.mark.parametrize(
    "decisions",
    [
        (Open("exp", "ä", "live", 1100, 1),),
        (Open("exp", "a", "live", 1100, 2.5, ("k",), (0, 3)),),
        (Open("", "", "live", 1100, early=(Early(1, "click", "i", "e", 2.0),)),),
        (Open("exp", "a", "live", 1100), Open("shop", "b", "live", 9, 1.5, (), (0,))),
    ],
)
def test_open_decisions_come_back_from_json(decisions: tuple[Open, ...]) -> None:
    assert decode_open(encode_open(decisions)) == decisions


def test_what_the_previous_release_kept_is_read() -> None:
    assert decode_open('["exp","a","live",1100,1]') == (Open("exp", "a", "live", 1100, 1),)
    assert encode_open((Open("exp", "a", "live", 1100, 1),)) == '["exp","a","live",1100,1]'
    waiting = decode_open(f'["","","live",{200 + EARLY_MS},1]')
    assert join([decision()], [], {"r": waiting[0]}).open["r"][0].reward == 1


@pytest.mark.parametrize(
    "assigned",
    [{"a": 1}, ["a"], [{"experiment": "e"}], [{"experiment": "e", "variant": "a", "arm_context": ["x"]}]],
)
def test_assignments_of_another_shape_are_told(assigned: Any) -> None:
    assert not assignments_fit({"assignments": [json.dumps(assigned)]})


def team_draft(**fields: Any) -> Logged:
    drawn = {"experiment": "exp", "variant": "interleaved", "teams": ["a", "b"]}
    places = {"item_ids": ["i", "j", "k"], "slot_team": [0, 1, -1]}
    return decision(assignments=[json.dumps(drawn)], **places | fields)


def test_of_a_list_of_two_variants_picks_each_earns_what_its_own_items_do() -> None:
    clicks = [
        sent(event_id="e1", item_id="j"),
        sent(event_id="e2", item_id="k"),
        sent(event_id="e3", item_id="j"),
    ]
    step = join([team_draft()], clicks)
    (a, b) = step.open["r"]
    assert (a.variant, a.reward, b.variant, b.reward) == ("a", 0, "b", 1)
    assert step.ignored == {"repeated": 1}  # what stands at nobody's place is no reward that went lost
    again = decode_open(encode_open(step.open["r"]))
    assert again == (a, b)
    closed = attribute([], [sent(event_id="e4", at_ms=300, item_id="i")], {"r": again}, ["r"], RULES)
    assert closed.outcomes == [Outcome("exp", "a", 1, 1100), Outcome("exp", "b", 1, 1100)]


def test_a_click_that_came_before_its_list_is_credited_to_its_team_alone() -> None:
    waiting = join([], [sent(item_id="j", at_ms=90)]).open
    step = attribute([team_draft()], [], waiting, [], RULES)
    assert [(one.variant, one.reward) for one in step.open["r"]] == [("a", 0), ("b", 1)]


def test_a_team_without_a_pick_earns_nothing() -> None:
    step = join([team_draft(item_ids=["i"], slot_team=[0])], [sent()])
    assert [(one.variant, one.reward) for one in step.open["r"]] == [("a", 1), ("b", 0)]


def test_teams_of_a_record_must_be_names() -> None:
    assert not assignments_fit({"assignments": ['{"experiment": "e", "variant": "v", "teams": [1, 2]}']})
