"""Rows that are no events, each with its reason."""

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.events.schema import FUTURE_LIMIT_MS, Event, parse_events
from tastemaker.types import EVENT_KINDS

NOW_MS = 1_750_000_000_000
GOOD: dict[str, Any] = {
    "event_id": "e1", "user_id": "u1", "item_id": "i1", "kind": "click", "timestamp_ms": NOW_MS,
}  # fmt: skip


def reason_of(**changes: Any) -> str:
    row = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    events, rejected = parse_events([row], NOW_MS)
    assert not events
    assert rejected[0].position == 0
    return rejected[0].reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"event_id": ...}, "event_id is missing"),
        ({"user_id": ...}, "user_id is missing"),
        ({"item_id": ...}, "item_id is missing"),
        ({"timestamp_ms": ...}, "timestamp_ms is missing"),
        ({"kind": "glance"}, "kind is 'glance', must be one of impression, view"),
        ({"user_id": ""}, "user_id is empty"),
        ({"user_id": "x" * 257}, "user_id has 257 characters, at most 256"),
        ({"user_id": 7}, "user_id is 7: .*string"),
        ({"item_id": None}, "item_id is None"),
        ({"item_id": "\ud800"}, "item_id is .*unicode"),
        ({"timestamp_ms": -1}, "timestamp_ms is -1: .*greater than or equal to 0"),
        ({"timestamp_ms": "2025"}, "timestamp_ms is '2025'"),
        ({"timestamp_ms": 1.5}, "timestamp_ms is 1.5"),
        ({"timestamp_ms": True}, "timestamp_ms is True"),
        (
            {"timestamp_ms": NOW_MS + FUTURE_LIMIT_MS + 1000},
            "timestamp_ms lies 301 s in the future, at most 300 s",
        ),
        ({"value": float("nan")}, "value is nan: .*finite"),
        ({"value": float("inf")}, "value is inf: .*finite"),
        ({"value": -1.0}, "value of a click is -1, must be from 0"),
        ({"kind": "rating"}, "value is missing: a rating needs one"),
        ({"kind": "rating", "value": 1001.0}, "value of a rating is 1001, must be from -1000 to 1000"),
        ({"kind": "watch", "value": 1e9}, "value of a watch is 1e"),
        ({"position": -1}, "position is -1"),
        ({"context": {"a": 1}}, "context.a is 1"),
        ({"context": {str(i): "" for i in range(33)}}, "context"),
        ({"origin": "test"}, "origin is 'test'"),
        ({"colour": "red"}, "colour is no field of an event"),
    ],
)
def test_each_fault_has_its_own_reason(changes: dict[str, Any], reason: str) -> None:
    assert re.match(reason, reason_of(**changes)), reason_of(**changes)


@pytest.mark.parametrize("row", [None, 3, "text", [], [GOOD]])
def test_a_row_that_is_no_object_is_rejected(row: Any) -> None:
    _, rejected = parse_events([row], NOW_MS)
    assert "must be an object" in rejected[0].reason
    assert rejected[0].event_id is None


def test_good_rows_pass_beside_bad_ones_and_keep_their_order() -> None:
    rows = [GOOD | {"event_id": "a"}, {}, GOOD | {"event_id": "b"}, GOOD | {"event_id": "a"}]
    events, rejected = parse_events(rows, NOW_MS)
    assert [e.event_id for e in events] == ["a", "b"]
    assert [(r.position, r.event_id) for r in rejected] == [(1, None), (3, "a")]
    assert rejected[1].reason == "event_id stands already at row 0 of this batch"


def test_limits_themselves_pass() -> None:
    row = GOOD | {"user_id": "ü" * 256, "timestamp_ms": NOW_MS + FUTURE_LIMIT_MS, "value": 0, "position": 0}
    assert len(parse_events([row, GOOD | {"event_id": "e2", "timestamp_ms": 0}], NOW_MS)[0]) == 2


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(list(Event.model_fields)), json_values) | json_values, max_size=4
    )
)
def test_any_json_is_either_an_event_or_rejected_with_a_reason(rows: list[Any]) -> None:
    events, rejected = parse_events(rows, NOW_MS)
    assert len(events) + len(rejected) == len(rows)
    assert all(r.reason and r.reason.encode() for r in rejected)


texts = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable())


@given(
    texts, texts, st.sampled_from(EVENT_KINDS), st.integers(0, NOW_MS), st.floats(0, 100),
    st.none() | st.dictionaries(texts, texts, max_size=3),
)  # fmt: skip
def test_an_event_comes_back_from_json(
    user: str, item: str, kind: str, at_ms: int, value: float, context: dict[str, str] | None
) -> None:
    row = GOOD | {"user_id": user, "item_id": item, "kind": kind, "timestamp_ms": at_ms, "value": value}
    events, rejected = parse_events([row | {"context": context}], NOW_MS)
    assert not rejected
    assert Event.model_validate_json(events[0].model_dump_json(exclude_none=True)) == events[0]


def test_a_thousand_rows_take_milliseconds() -> None:
    rows = [GOOD | {"event_id": f"e{i}", "context": {"device": "tv"}, "request_id": "r"} for i in range(1000)]
    best = min(_seconds_to_parse(rows) for _ in range(5))
    assert best < 0.05  # 5 to 10 ms on one core; the limit leaves room for a busy machine


def _seconds_to_parse(rows: list[dict[str, Any]]) -> float:
    started = time.perf_counter()
    parse_events(rows, NOW_MS)
    return time.perf_counter() - started
