"""The HTTP contract of `/v1`: every refusal is problem+json that names the field; nothing else is in the way."""

import asyncio
import hashlib
from typing import Any

import httpx
import pytest

from tastemaker.config import ApiKey, GatewaySettings
from tastemaker.errors import ConfigError, StateError
from tastemaker.events.schema import Event
from tastemaker_services.access import check_exposure
from tastemaker_services.admin import gateway_openapi
from tastemaker_services.api import MAX_BODY_BYTES, create_api

URL = "http://gateway"
READ, INGEST, ADMIN = ("a" * 32, ("read",)), ("b" * 32, ("ingest",)), ("c" * 32, ("read", "admin", "explain"))
KEYS = tuple(
    ApiKey(sha256=hashlib.sha256(k.encode()).hexdigest(), scopes=s) for k, s in (READ, INGEST, ADMIN)
)
GOOD_EVENT = {"event_id": "e1", "user_id": "u", "item_id": "i", "kind": "click", "timestamp_ms": 1}


class Recorder:
    """A backend that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.events: list[Event] = []
        self.waiting_for: str | None = None
        self.broken = False

    async def recommend(self, request: Any, origin: str) -> dict[str, Any]:
        self.asked.append((request, origin))
        return {"items": [], "degraded": []}

    async def similar(self, item_id: str, k: int) -> dict[str, Any]:
        self.asked.append((item_id, k))
        return {"items": [], "degraded": []}

    async def append(self, events: list[Event]) -> tuple[int, int]:
        if self.broken:
            raise StateError("cannot append events", mend="check that Redis/Valkey is up")
        self.events += events
        return len(events), 0

    async def why_not_ready(self) -> str | None:
        return self.waiting_for


def call(
    method: str, path: str, *, backend: Recorder | None = None, keys: tuple[ApiKey, ...] = (), **request: Any
) -> httpx.Response:
    settings = GatewaySettings(max_k=50, max_batch=3, keys=keys)
    api = create_api(backend or Recorder(), settings, "default")

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url=URL) as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def post(body: Any, path: str = "/v1/recommendations", **request: Any) -> httpx.Response:
    return call("POST", path, json=body, **request)


def assert_problem(response: httpx.Response, status: int, field: str | None, *words: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:tastemaker:problem:")
    assert problem["title"]
    assert problem.get("field") == field
    for word in words:
        assert word in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "user_id", ("missing",)),
        ({"user_id": ""}, "user_id", ("at least 1",)),
        ({"user_id": 7}, "user_id", ("7", "string")),
        ({"user_id": "u" * 257}, "user_id", ("257", "256")),
        ({"user_id": "u", "colour": "red"}, "colour", ("unknown", "user_id, k, context")),
        ({"user_id": "u", "k": 0}, "k", ("0", "greater than or equal to 1")),
        ({"user_id": "u", "k": 51}, "k", ("51", "at most 50")),
        ({"user_id": "u", "k": "10"}, "k", ("10", "integer")),
        ({"user_id": "u", "k": 1.5}, "k", ("1.5",)),
        ({"user_id": "u", "session": "i1"}, "session", ("array",)),
        ({"user_id": "u", "session": ["i"] * 501}, "session", ("501", "500")),
        ({"user_id": "u", "session": ["i1", 2]}, "session.1", ("2", "string")),
        ({"user_id": "u", "exclude": [None]}, "exclude.0", ("None",)),
        ({"user_id": "u", "context": {"device": 3}}, "context.device", ("3",)),
        (
            {"user_id": "u", "context": {"local_time": "half past six"}},
            "context.local_time",
            ("'half past six'", "ISO 8601"),
        ),
        ({"user_id": "u", "filters": {"price": 3}}, "filters.price", ("unknown",)),
        ({"user_id": "u", "deadline_ms": 0}, "deadline_ms", ("greater than 0",)),
        ({"user_id": "u", "explain": "yes"}, "explain", ("yes",)),
        ([], "body", ("object",)),
    ],
)
def test_a_wrong_field_is_named(body: Any, field: str, words: tuple[str, ...]) -> None:
    assert_problem(post(body), 422, field, *words)


def test_every_wrong_field_is_listed() -> None:
    problem = post({"k": 0, "colour": "red"}).json()
    assert {error["field"] for error in problem["errors"]} == {"user_id", "k", "colour"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{'user_id': 'u'}", b'{"user_id": "\xff"}', b'{"user_id": "\\ud800"}']
)
def test_what_is_not_json_is_400(content: bytes) -> None:
    response = call(
        "POST", "/v1/recommendations", content=content, headers={"content-type": "application/json"}
    )
    assert_problem(response, 400, "body", "not JSON")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_415(kind: str) -> None:
    response = call(
        "POST", "/v1/recommendations", content=b'{"user_id": "u"}', headers={"content-type": kind}
    )
    assert_problem(response, 415, "content-type", "application/json")


def test_a_charset_in_the_content_type_is_fine() -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    assert (
        call("POST", "/v1/recommendations", content=b'{"user_id": "u"}', headers=headers).status_code == 200
    )


def test_a_huge_body_is_413() -> None:
    headers = {"content-type": "application/json"}
    response = call("POST", "/v1/events", content=b" " * (MAX_BODY_BYTES + 1), headers=headers)
    assert_problem(response, 413, "body", str(MAX_BODY_BYTES))


def test_unknown_paths_and_methods_are_problems_too() -> None:
    assert_problem(call("GET", "/v2/recommendations"), 404, None, "/v2/recommendations")
    assert_problem(call("DELETE", "/v1/events"), 405, None, "DELETE")
    assert_problem(call("GET", "/docs"), 404, None)  # the admin listener's


def test_a_whole_request_arrives() -> None:
    backend = Recorder()
    body = {
        "user_id": "ü/1", "k": 5, "context": {"device": "tv", "mood": "x"}, "session": ["a", "b"], "exclude": ["c"],
        "filters": {"categories": ["Drama"]}, "explain": True, "deadline_ms": 80,
    }  # fmt: skip
    assert post(body, backend=backend).status_code == 200
    request, origin = backend.asked[0]
    assert origin == "live"
    assert (request.user_id, request.k, request.session, request.exclude) == ("ü/1", 5, ("a", "b"), ("c",))
    assert request.context == {"device": "tv", "mood": "x"}
    assert request.filters.categories == ("Drama",)
    assert (request.explain, request.deadline_ms) == (True, 80.0)


@pytest.mark.parametrize(
    "path",
    ["/v1/recommendations/u%2F1?k=7", "/v1/recommendations?user_id=u/1&k=7", "/v1/recommendations/u/1?k=7"],
)
def test_an_id_comes_by_path_or_query_with_its_slash(path: str) -> None:
    backend = Recorder()
    assert call("GET", path, backend=backend).status_code == 200
    request, _ = backend.asked[0]
    assert (request.user_id, request.k) == ("u/1", 7)


def test_get_refuses_what_post_refuses() -> None:
    assert_problem(call("GET", "/v1/recommendations/u?k=many"), 422, "k", "many")
    assert_problem(call("GET", "/v1/recommendations/u?k=51"), 422, "k", "51")
    assert_problem(call("GET", "/v1/recommendations/u?colour=red"), 422, "colour", "unknown")
    assert_problem(call("GET", "/v1/recommendations"), 422, "user_id", "missing")


@pytest.mark.parametrize("path", ["/v1/items/a%2Fb/similar?k=3", "/v1/items/similar?item_id=a/b&k=3"])
def test_similar_takes_the_item_by_path_or_query(path: str) -> None:
    backend = Recorder()
    assert call("GET", path, backend=backend).status_code == 200
    assert backend.asked == [("a/b", 3)]


def test_similar_refuses_what_is_wrong() -> None:
    assert_problem(call("GET", "/v1/items/similar"), 422, "item_id", "missing")
    assert_problem(call("GET", "/v1/items/i/similar?k=0"), 422, "k", "0")
    assert_problem(call("GET", "/v1/items/i/similar?k=51"), 422, "k", "at most 50")


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


def test_the_origin_chooses_experiments_where_no_keys_are_configured() -> None:
    backend = Recorder()
    post({"user_id": "u"}, backend=backend, headers={"x-tastemaker-origin": "simulator"})
    assert backend.asked[0][1] == "simulator"
    response = post({"user_id": "u"}, headers={"x-tastemaker-origin": "mars"})
    assert_problem(response, 422, "x-tastemaker-origin", "live, simulator, replay")


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_keys_decide_who_may_what() -> None:
    asked, simulator = {"user_id": "u"}, {"x-tastemaker-origin": "simulator"}
    events = {"events": [GOOD_EVENT]}
    assert_problem(post(asked, keys=KEYS), 401, "authorization")
    assert_problem(post(asked, keys=KEYS, headers=bearer("d" * 32)), 401, "authorization")
    assert_problem(post(asked, keys=KEYS, headers={"authorization": READ[0]}), 401, "authorization")
    assert post(asked, keys=KEYS, headers=bearer(READ[0])).status_code == 200
    assert_problem(post(asked, keys=KEYS, headers=bearer(INGEST[0])), 403, "authorization", "read")
    assert_problem(
        post(events, "/v1/events", keys=KEYS, headers=bearer(READ[0])), 403, "authorization", "ingest"
    )
    assert post(events, "/v1/events", keys=KEYS, headers=bearer(INGEST[0])).status_code == 202
    denied = post(asked, keys=KEYS, headers=bearer(READ[0]) | simulator)
    assert_problem(denied, 403, "x-tastemaker-origin", "admin")
    assert post(asked, keys=KEYS, headers=bearer(ADMIN[0]) | simulator).status_code == 200
    assert_problem(post(asked | {"explain": True}, keys=KEYS, headers=bearer(READ[0])), 403, "explain")


def test_an_event_cannot_smuggle_in_an_origin() -> None:
    backend = Recorder()
    rows = [GOOD_EVENT | {"origin": "simulator"}]
    response = post({"events": rows}, "/v1/events", backend=backend, keys=KEYS, headers=bearer(INGEST[0]))
    assert_problem(response, 403, "events.origin")
    assert backend.events == []


def test_health_and_readiness_need_no_key() -> None:
    backend = Recorder()
    assert call("GET", "/healthz", keys=KEYS).json() == {"status": "ok"}
    assert call("GET", "/readyz", backend=backend, keys=KEYS).json() == {"status": "ready"}
    backend.waiting_for = "an alias champion: promote a version"
    response = call("GET", "/readyz", backend=backend, keys=KEYS)
    assert_problem(response, 503, None, "an alias champion")


def test_without_keys_only_loopback_is_listened_on() -> None:
    check_exposure(GatewaySettings(host="127.0.0.1"))
    check_exposure(GatewaySettings(host="::1"))
    check_exposure(GatewaySettings(host="0.0.0.0", keys=KEYS))
    with pytest.raises(ConfigError, match=r"gateway.host, is '0.0.0.0', must be a loopback address"):
        check_exposure(GatewaySettings(host="0.0.0.0"))


def test_openapi_names_every_route_and_body() -> None:
    api = gateway_openapi(GatewaySettings())
    assert set(api["paths"]) >= {
        "/v1/recommendations", "/v1/recommendations/{user_id}", "/v1/items/similar", "/v1/items/{item_id}/similar",
        "/v1/events", "/healthz", "/readyz",
    }  # fmt: skip
    body = api["paths"]["/v1/recommendations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {
        "user_id", "k", "context", "session", "exclude", "filters", "explain", "deadline_ms"
    }  # fmt: skip
    assert body["properties"]["filters"]["properties"].keys() == {"categories", "tags"}
    assert "RecommendationResponse" in api["components"]["schemas"]
