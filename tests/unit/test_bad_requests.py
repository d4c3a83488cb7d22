"""Whatever a client sends, the gateway says no in problem+json that names what is wrong, and never fails itself."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from bad_requests import BY_ADDRESS, BY_BODY, GOOD, JSON, bodies_of_any_kind, seen
from gateway_process import Backend, listening
from gateway_world import World, items
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import ConfigError
from tastemaker_services.web import bodies
from tastemaker_services.web.bodies import MAX_BODY_BYTES
from tastemaker_services.web.schema import MAX_EXCLUDE, Filters

SHARED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with listening(Backend()) as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found


@given(st.sampled_from(BY_BODY), bodies_of_any_kind)
@SHARED
def test_any_json_is_answered_or_refused(client: httpx.Client, route: tuple[str, str], body: Any) -> None:
    content = json.dumps(body, ensure_ascii=True).encode()
    seen(client.request(*route, content=content, headers=JSON))


@given(st.sampled_from(BY_BODY), st.binary(max_size=200))
@SHARED
def test_any_bytes_are_answered_or_refused(
    client: httpx.Client, route: tuple[str, str], content: bytes
) -> None:
    seen(client.request(*route, content=content, headers=JSON))


@given(st.sampled_from(BY_BODY), st.integers(0, 400), st.binary(max_size=3))
@SHARED
def test_a_body_with_other_bytes_somewhere_is_answered_or_refused(
    client: httpx.Client, route: tuple[str, str], where: int, put: bytes
) -> None:
    whole = json.dumps(GOOD).encode()
    seen(client.request(*route, content=whole[:where] + put + whole[where + 1 :], headers=JSON))


@given(
    st.sampled_from(BY_ADDRESS),
    st.lists(
        st.tuples(
            st.sampled_from(["user_id", "item_id", "k", "q", "country", "personal", "colour", ""]),
            st.text(st.characters(codec="utf-8"), max_size=300) | st.integers().map(str),
        ),
        max_size=5,
    ),
)
@SHARED
def test_any_parameters_are_answered_or_refused(
    client: httpx.Client, route: tuple[str, str], given: list[tuple[str, str]]
) -> None:
    seen(client.request(*route, params=given))


@given(
    st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND"]),
    st.text("/.%abv1_-2F0e", max_size=20).map(lambda path: f"/v1/{path}"),
)
@SHARED
def test_any_path_and_method_is_answered_or_refused(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert response.status_code < 500
    if method != "HEAD":
        seen(response)


@pytest.mark.parametrize(
    ("raw", "status", "field"),
    [
        (b'{"user_id": "u", "k": ' + b"9" * 5000 + b"}", 400, "body"),
        (b'{"user_id": "u", "k": 1e400}', 422, "k"),
        (b'{"user_id": "u", "k": NaN}', 422, "k"),
        (b'{"user_id": "u", "k": 0}', 422, "k"),
        (b'{"user_id": "u", "k": -3}', 422, "k"),
        (b'{"user_id": "u", "k": 201}', 422, "k"),
        (b'{"user_id": "u", "deadline_ms": NaN}', 422, "deadline_ms"),
        (b'{"user_id": "u", "deadline_ms": Infinity}', 422, "deadline_ms"),
        (b'{"user_id": "a\\u0000b"}', 422, "user_id"),
        (b'{"user_id": "a\\nb"}', 422, "user_id"),
        (b'{"user_id": "\\u0085"}', 422, "user_id"),
        (b'{"user_id": "   "}', 422, "user_id"),
        (b'{"user_id": "' + b"u" * 257 + b'"}', 422, "user_id"),
        (b'{"user_id": "u", "exclude": ["a\\u007f"]}', 422, "exclude.0"),
        (b'{"user_id": "u", "session": [""]}', 422, "session.0"),
        (b'{"user_id": "u", "context": ' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}", 400, "body"),
        (b"[" * 100_000, 400, "body"),
        (b'{"user_id": "u", "filters": {"price": 3}}', 422, "filters.price"),
        (b'{"user_id": "u\xff"}', 400, "body"),
        (b'{"user_id": "\\ud800"}', 400, "body"),
    ],
)
def test_what_the_issue_of_bad_input_names(client: httpx.Client, raw: bytes, status: int, field: str) -> None:
    response = client.post("/v1/recommendations", content=raw, headers=JSON)
    seen(response)
    assert (response.status_code, response.json()["field"]) == (status, field)


def test_unknown_context_is_ignored_and_ten_thousand_exclusions_are_taken(client: httpx.Client) -> None:
    body = {"user_id": "u", "context": {"mood": "blue"}, "exclude": [f"item-{n}" for n in range(MAX_EXCLUDE)]}
    assert MAX_EXCLUDE == 10_000
    assert client.post("/v1/recommendations", json=body).status_code == 200
    body["exclude"] = ["i"] * (MAX_EXCLUDE + 1)
    refused = client.post("/v1/recommendations", json=body)
    assert (refused.status_code, refused.json()["field"]) == (422, "exclude")
    assert "10001" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        ({"filters": Filters(categories=("odd",), tags=("none",))}, ["nothing-fits"]),
        ({"filters": Filters(categories=("odd",)), "exclude": [f"i{n}" for n in range(1, 10, 2)]}, ["nothing-fits"]),
        ({"filters": Filters(categories=("odd",))}, []),
    ],
)  # fmt: skip
@pytest.mark.parametrize("forced", [None, "retrieval-order", "cached", "popular"])
def test_rules_that_leave_nothing_give_an_empty_list_that_says_so(
    asked: dict[str, Any], note: list[str], forced: str | None
) -> None:
    """Which is no rung's doing: none is tried, whatever the kill switch says, and no stage is asked."""
    world = World()
    world.forced = forced
    answer = world.recommend("old", **asked)
    assert answer["notes"] == note
    assert (items(answer) == []) is bool(note)
    if note:
        assert (answer["degraded"], world.graph.queries) == ([], [])
        assert [[*one.item_ids, *one.rungs] for one in world.decisions] == [[]]


def test_a_parameter_that_stands_twice_is_refused(client: httpx.Client) -> None:
    response = client.get("/v1/recommendations?user_id=a&user_id=b")
    assert (response.status_code, response.json()["field"]) == (422, "user_id")


def test_an_unlikely_number_of_parameters_is_refused(client: httpx.Client) -> None:
    response = client.get(
        "/v1/recommendations", params={f"p{n}": "1" for n in range(3000)} | {"user_id": "u"}
    )
    seen(response)
    assert response.status_code == 422


def test_a_receipt_that_could_be_no_file_is_unknown(client: httpx.Client) -> None:
    for name in ("r" * 4000, "..", "%2e%2e%2fhome.json", "é" * 100):
        response = client.get(f"/v1/erasures/{name}")
        seen(response)
        assert response.status_code == 404


def test_a_body_over_the_limit_is_refused_though_it_says_it_is_small(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**16 + 1):
            yield b" " * 2**16

    response = client.post("/v1/events", content=chunks(), headers=JSON)
    seen(response)
    assert response.status_code == 413


def test_a_body_that_trickles_is_given_up(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as slow:
        head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"
        slow.sendall(head)
        answer, deadline = b"", time.monotonic() + 30
        while b"\r\n\r\n" not in answer and time.monotonic() < deadline:
            answer += slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in answer.lower()


def test_a_client_that_leaves_amid_its_body_harms_nobody(client: httpx.Client) -> None:
    for _ in range(5):
        with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30) as gone:
            gone.sendall(
                b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
            )
    assert client.get("/healthz").status_code == 200


def test_browsers_of_named_sites_alone_may_call() -> None:
    asked = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    named = GatewaySettings(cors_origins=("https://shop.example",))
    with listening(Backend(), named) as url:
        allowed = httpx.options(f"{url}/v1/events", headers=asked | {"origin": "https://shop.example"})
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        refused = httpx.options(f"{url}/v1/events", headers=asked | {"origin": "https://other.example"})
        assert "access-control-allow-origin" not in refused.headers
    with listening(Backend()) as url:
        closed = httpx.options(f"{url}/v1/events", headers=asked | {"origin": "https://shop.example"})
        assert "access-control-allow-origin" not in closed.headers
    for wrong in ("*", "shop.example", "https://shop.example/path", "https://*.example"):
        with pytest.raises(ConfigError, match="cors_origins"):
            GatewaySettings.parse({"cors_origins": [wrong]}, "a file")
