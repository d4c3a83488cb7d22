"""The HTTP contract of `/v1`: every refusal is problem+json that names the field; nothing else is in the way."""

from typing import Any

import pytest
from asked_api import ADMIN, GOOD_EVENT, INGEST, KEYS, READ, Recorder, assert_problem, bearer, call, post

from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import ConfigError
from tastemaker_services.admin.listener import gateway_openapi
from tastemaker_services.web.access import check_exposure
from tastemaker_services.web.bodies import MAX_BODY_BYTES


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


def test_the_origin_chooses_experiments_where_no_keys_are_configured() -> None:
    backend = Recorder()
    post({"user_id": "u"}, backend=backend, headers={"x-tastemaker-origin": "simulator"})
    assert backend.asked[0][1] == "simulator"
    response = post({"user_id": "u"}, headers={"x-tastemaker-origin": "mars"})
    assert_problem(response, 422, "x-tastemaker-origin", "live, simulator, replay")


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


@pytest.mark.parametrize("path", ["/v1/users/a%2Fb", "/v1/users?user_id=a%2Fb"])
def test_an_erasure_is_noted_and_gives_a_receipt(path: str) -> None:
    backend = Recorder()
    answer = call("DELETE", path, backend=backend)
    assert (answer.status_code, backend.erased) == (202, ["a/b"])
    assert answer.json() == {"receipt": "receipt-1", "see": "/v1/erasures/receipt-1"}


def test_an_erasure_is_under_way_done_or_unknown() -> None:
    assert call("GET", "/v1/erasures/receipt-1").json() == {"state": "under way", "receipt": "receipt-1"}
    assert call("GET", "/v1/erasures/receipt-0").json() == {"state": "done", "removed": {"records": 2}}
    assert_problem(call("GET", "/v1/erasures/other"), 404, "receipt", "none of ours")


def test_an_erasure_that_cannot_be_noted_or_is_not_allowed_is_refused() -> None:
    backend = Recorder()
    backend.broken = True
    assert_problem(call("DELETE", "/v1/users/u", backend=backend), 503, None, "cannot note an erasure")
    assert_problem(call("DELETE", f"/v1/users/{'u' * 257}", backend=backend), 422, "user_id")
    assert_problem(
        call("DELETE", "/v1/users/u", keys=KEYS, headers=bearer(READ[0])), 403, "authorization", "erase"
    )
    assert backend.erased == []


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
        "/v1/events", "/v1/search", "/v1/explain", "/healthz", "/readyz",
    }  # fmt: skip
    body = api["paths"]["/v1/recommendations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["properties"]) == {
        "user_id", "k", "context", "session", "exclude", "filters", "explain", "personalise", "paged", "cursor",
        "deadline_ms", "priority", "visitor_id", "session_id",
    }  # fmt: skip
    assert body["properties"]["filters"]["properties"].keys() == {"categories", "tags", "max_maturity"}
    assert "RecommendationResponse" in api["components"]["schemas"]
