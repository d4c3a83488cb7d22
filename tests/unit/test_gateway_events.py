"""The HTTP contract of `/v1/events`: which rows count, and what becomes of a batch that is broken."""

from typing import Any

import pytest
from asked_api import GOOD_EVENT, INGEST, KEYS, Recorder, assert_problem, bearer, call, post


def test_events_are_counted_row_by_row() -> None:
    backend = Recorder()
    rows = [GOOD_EVENT, GOOD_EVENT | {"event_id": "e2", "kind": "glance"}, "no event"]
    response = post({"events": rows}, "/v1/events", backend=backend)
    assert response.status_code == 202
    body = response.json()
    assert (body["accepted"], body["duplicate"], body["rejected"]) == (1, 0, 2)
    assert [(r["position"], r["event_id"]) for r in body["rejections"]] == [(1, "e2"), (2, None)]
    assert "glance" in body["rejections"][0]["reason"]
    assert [event.event_id for event in backend.events] == ["e1"]


GOOD_ROW = b'{"event_id": "e1", "user_id": "u", "item_id": "i", "kind": "click", "timestamp_ms": 1}'
JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD_ROW.replace(b'"i"', b'"\\ud800"'), "item_id"),
        (GOOD_ROW.replace(b": 1}", b": " + b"9" * 5000 + b"}"), "timestamp_ms is inf"),
        (GOOD_ROW.replace(b": 1}", b": 1e999}"), "timestamp_ms is inf"),
        (GOOD_ROW.replace(b"}", b', "value": NaN}'), "value is nan"),
        (GOOD_ROW.replace(b"}", b', "value": -Infinity}'), "value is -inf"),
        (GOOD_ROW.replace(b"}", b', "user_id": "v"}'), "user_id"),
        (GOOD_ROW.replace(b'"u"', b"[" * 600 + b"]" * 600), "user_id is [[[...]]]"),
        (GOOD_ROW.replace(b'"u"', b'"' + b"u" * 10**6 + b'"'), "user_id has 1000000 characters"),
        (GOOD_ROW.replace(b'"i"', b'"i", "\\u0000": 1'), "is no field of an event"),
        (b"[" * 600 + b"]" * 600, "the row is a list"),
        (b"null", "the row is a NoneType"),
    ],
)
def test_a_row_that_other_parsers_fail_the_body_for_fails_alone(row: bytes, reason: str) -> None:
    backend = Recorder()
    content = b'{"events": [' + row + b", " + GOOD_ROW.replace(b"e1", b"e2") + b"]}"
    response = call("POST", "/v1/events", backend=backend, content=content, headers=JSON_TYPE)
    assert response.status_code == 202, response.text
    (rejection,) = response.json()["rejections"]
    assert rejection["position"] == 0
    assert reason in rejection["reason"]
    assert len(rejection["reason"]) < 300
    assert [event.event_id for event in backend.events] == ["e2"]


@pytest.mark.parametrize(
    ("content", "status", "field", "words"),
    [
        (b"", 400, "body", "not JSON"),
        (b'{"events": [', 400, "body", "not JSON"),
        (b'{"events": [' + GOOD_ROW + b",]}", 400, "body", "not JSON"),
        (b'{"events": ["\xff"]}', 400, "body", "not JSON"),
        (b'{"events": ' + b"[" * 100_000, 400, "body", "nests too deeply"),
        (b'{"events": [1], "events": [2]}', 422, "body", "an object with 'events' twice"),
        (b"[" + GOOD_ROW + b"]", 422, "body", "a list, must be an object"),
        (b"7", 422, "body", "a int"),
        (b'{"events": "e"}', 422, "events", "list"),
        (b'{"events": {"a": ' + b"[" * 600 + b"]" * 600 + b"}}", 422, "events", "list"),
        (b'{"events": [1], "colour": 1}', 422, "colour", "unknown"),
    ],
)
def test_a_batch_that_is_broken_as_a_whole_is_refused(
    content: bytes, status: int, field: str, words: str
) -> None:
    backend = Recorder()
    response = call("POST", "/v1/events", backend=backend, content=content, headers=JSON_TYPE)
    assert_problem(response, status, field, words)
    assert backend.events == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-ndjson", "application/json-seq", ""])
def test_events_of_another_content_type_are_415(kind: str) -> None:
    response = call(
        "POST", "/v1/events", content=b'{"events": [' + GOOD_ROW + b"]}", headers={"content-type": kind}
    )
    assert_problem(response, 415, "content-type", "application/json")


def test_an_oversize_batch_is_refused_whole() -> None:
    backend = Recorder()
    response = post({"events": [GOOD_EVENT] * 4}, "/v1/events", backend=backend)
    assert_problem(response, 422, "events", "4 rows", "at most 3")
    assert backend.events == []


@pytest.mark.parametrize(
    ("body", "field"), [({}, "events"), ({"events": []}, "events"), ({"rows": []}, "events")]
)
def test_a_batch_without_events_is_refused(body: Any, field: str) -> None:
    response = post(body, "/v1/events")
    assert_problem(response, 422, field)


def test_events_that_are_not_on_disk_are_not_accepted() -> None:
    backend = Recorder()
    backend.broken = True
    response = post({"events": [GOOD_EVENT]}, "/v1/events", backend=backend)
    assert_problem(response, 503, None, "cannot append events")
    assert response.headers["retry-after"] == "1"


def test_an_events_origin_is_its_requests_unless_it_says_so() -> None:
    backend = Recorder()
    rows = [GOOD_EVENT, GOOD_EVENT | {"event_id": "e2", "origin": "replay"}]
    post({"events": rows}, "/v1/events", backend=backend, headers={"x-tastemaker-origin": "simulator"})
    assert [event.origin for event in backend.events] == ["simulator", "replay"]


def test_an_event_cannot_smuggle_in_an_origin() -> None:
    backend = Recorder()
    rows = [GOOD_EVENT | {"origin": "simulator"}, GOOD_EVENT]
    response = post({"events": rows}, "/v1/events", backend=backend, keys=KEYS, headers=bearer(INGEST[0]))
    assert response.json()["rejections"] == [
        {"position": 0, "event_id": "e1", "reason": "origin simulator needs a key with scope admin"}
    ]
    assert [event.origin for event in backend.events] == ["live"]
