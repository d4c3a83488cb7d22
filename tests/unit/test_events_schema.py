"""Rows that are no events, each with its reason."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.events.rows import read_json
from tastemaker.events.schema import FUTURE_LIMIT_MS, Event, parse_events
from tastemaker.types import EVENT_KINDS, MAX_LOGGED_POSITION

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
        ({"timestamp_ms": 10.0}, "timestamp_ms is 10.0: .*integer"),
        ({"timestamp_ms": 2**63}, "timestamp_ms is 9223372036854775808: .*less than 9223372036854775808"),
        ({"timestamp_ms": 10**400}, r"timestamp_ms is 10+\.\.\.0+: .*less than"),
        ({"timestamp_ms": float("inf")}, "timestamp_ms is inf: .*integer"),
        ({"timestamp_ms": None}, "timestamp_ms is None: .*integer"),
        ({"timestamp_ms": [1]}, r"timestamp_ms is \[1\]: .*integer"),
        ({"event_id": ["e"]}, r"event_id is \['e'\]: .*string"),
        ({"event_id": "x" * 10**6}, "event_id has 1000000 characters, at most 256"),
        ({"item_id": {"id": "i"}}, r"item_id is \{'id': 'i'\}: .*string"),
        ({"item_id": True}, "item_id is True: .*string"),
        ({"kind": 3}, "kind is 3, must be one of"),
        ({"kind": None}, "kind is None, must be one of"),
        ({"kind": ["click"]}, "kind is .*, must be one of"),
        ({"kind": "\ud800"}, "kind is '.ud800'"),
        ({"value": "3"}, "value is '3': .*number"),
        ({"value": True}, "value is True: .*number"),
        ({"value": []}, r"value is \[\]: .*number"),
        ({"value": 10**400}, r"value is 10+\.\.\.0+: .*number"),
        ({"value": -float("inf")}, "value is -inf: .*finite"),
        ({"value": 1.1e12}, r"value of a click is 1.1e\+12, must be from 0 to 1e\+12"),
        ({"kind": "rating", "value": None}, "value is missing: a rating needs one"),
        ({"kind": "watch", "value": -0.5}, "value of a watch is -0.5, must be from 0"),
        ({"request_id": ""}, "request_id is empty"),
        ({"request_id": 1}, "request_id is 1: .*string"),
        ({"request_id": "r" * 257}, "request_id has 257 characters"),
        ({"position": 1.0}, "position is 1.0: .*integer"),
        ({"position": "1"}, "position is '1': .*integer"),
        ({"position": MAX_LOGGED_POSITION + 1}, "position is .*less than or equal"),
        ({"context": []}, r"context is \[\]: .*dictionary"),
        ({"context": "tv"}, "context is 'tv': .*dictionary"),
        ({"context": {"k" * 257: "v"}}, "context.k+ has 257 characters"),
        ({"context": {"k": "v" * 257}}, "context.k has 257 characters"),
        ({"context": {"k": {"deeper": "v"}}}, "context.k is .*string"),
        ({"context": {"a\ud800": "b"}}, "context.a.*unicode"),
        ({"origin": None}, "origin is None"),
        ({"origin": "Live"}, "origin is 'Live'"),
        ({"\ud800": "b"}, r"\? is no field of an event"),
        ({"user_id": "a\nb"}, r"user_id is 'a.nb', must be without control characters"),
        ({"event_id": "\x7f"}, "event_id is .* must be without control characters"),
        ({"item_id": "\u2003 "}, "item_id is .* not blank"),
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
        ({"position": -1}, "position is -1: .*greater"),
        ({"context": {"a": 1}}, "context.a is 1"),
        ({"context": {str(i): "" for i in range(33)}}, "context has 33 keys, at most 32 are allowed"),
        ({"origin": "test"}, "origin is 'test'"),
        ({"colour": "red"}, "colour is no field of an event"),
    ],
)
def test_each_fault_has_its_own_reason(changes: dict[str, Any], reason: str) -> None:
    assert re.match(reason, reason_of(**changes)), reason_of(**changes)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("field", list(GOOD))
def test_a_deeply_nested_value_is_one_reason_like_any_other(field: str) -> None:
    assert re.match(rf"{field} is \[\[\[\.\.\.\]\]\]", reason_of(**{field: nested(900)}))


def test_a_row_of_a_hundred_thousand_keys_is_refused_by_its_shape_not_by_its_values() -> None:
    keys = {f"key{i}": i for i in range(100_000)}
    _, rejected = parse_events([GOOD | keys, GOOD | {"context": keys}], NOW_MS)
    assert [r.reason for r in rejected] == [
        "key0 is no field of an event, which has context, event_id, item_id, kind, origin, position, request_id, timestamp_ms, user_id, value",
        "context has 100000 keys, at most 32 are allowed",
    ]  # fmt: skip


def test_an_origin_that_a_client_may_not_claim_is_its_rows_fault_alone() -> None:
    rows = [GOOD | {"origin": "replay"}, GOOD | {"event_id": "e2"}]
    events, rejected = parse_events(rows, NOW_MS, origins=("live",))
    assert [e.event_id for e in events] == ["e2"]
    assert [r.reason for r in rejected] == ["origin replay needs a key with scope admin"]


def test_an_id_of_a_row_that_was_rejected_is_free_for_a_later_one() -> None:
    rows = [GOOD | {"value": -1.0}, GOOD, GOOD]
    events, rejected = parse_events(rows, NOW_MS)
    assert len(events) == 1
    assert [r.position for r in rejected] == [0, 2]


@pytest.mark.parametrize(
    ("body", "row"),
    [
        (b'[{"item_id": "\\ud800"}]', {"item_id": "\ud800"}),
        (b"[1e999]", float("inf")),
        (b"[-Infinity]", -float("inf")),
        (b"[" + b"9" * 300 + b"]", int("9" * 300)),
        (b"[" + b"9" * 301 + b"]", float("inf")),
        (b"[" + b"9" * 100_000 + b"]", float("inf")),
        (b"[" + b"[" * 300 + b"]" * 301, nested(299)),
        (b'[{"a": 1}]', {"a": 1}),
    ],
)
def test_what_other_parsers_stumble_over_is_a_value_of_its_row(body: bytes, row: Any) -> None:
    assert read_json(body) == [row]


def test_a_key_that_stands_twice_makes_its_object_no_object() -> None:
    rows = read_json(
        b'[{"event_id": "a", "x": 1, "event_id": "b"}, {"event_id": "c", "context": {"k": "", "k": ""}}]'
    )
    _, rejected = parse_events([rows[0], GOOD | rows[1]], NOW_MS)
    assert [r.reason for r in rejected] == [
        "the row is an object with 'event_id' twice, must be an object",
        "context is an object with 'k' twice: Input should be a valid dictionary",
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"[1", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"[tru]", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'["\xff"]', "not JSON: .*utf-8"),
        (b'["\xed\xa0\x80"]', "not JSON: .*utf-8"),  # half a pair in raw bytes is no UTF-8
        (b"\xef\xbb\xbf[]", "not JSON: .*BOM"),
        ("[]".encode("utf-16"), "not JSON"),
        (b"[" * 100_000, "nests too deeply: flatten it"),
        (b'{"a":' * 100_000, "nests too deeply"),
    ],
)
def test_what_is_broken_as_a_whole_is_refused_as_a_whole(body: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_json(body)


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
ids = texts.filter(lambda text: bool(text.strip()))


@given(
    ids, ids, st.sampled_from(EVENT_KINDS), st.integers(0, NOW_MS), st.floats(0, 100),
    st.none() | st.dictionaries(texts, texts, max_size=3),
)  # fmt: skip
def test_an_event_comes_back_from_json(
    user: str, item: str, kind: str, at_ms: int, value: float, context: dict[str, str] | None
) -> None:
    row = GOOD | {"user_id": user, "item_id": item, "kind": kind, "timestamp_ms": at_ms, "value": value}
    events, rejected = parse_events([row | {"context": context}], NOW_MS)
    assert not rejected
    again = Event.model_validate_json(events[0].model_dump_json(exclude_none=True))
    assert again.model_dump() == events[0].model_dump()
