"""The client and the OpenAPI document say the same: routes, parameters, keys of bodies and of answers."""

import json
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import httpx
import pytest
from pydantic import BaseModel

from tastemaker.client import (
    AnswerError,
    Client,
    Event,
    RecommendOptions,
    Retries,
    RuleOptions,
    SearchOptions,
)
from tastemaker.config_serving import GatewaySettings
from tastemaker_services.admin.listener import gateway_openapi

LEFT_OUT = {
    # The same questions by address; the client asks by body, which access logs do not keep.
    "GET /v1/recommendations", "GET /v1/recommendations/{user_id}", "GET /v1/items/similar",
    "GET /v1/items/{item_id}/similar", "GET /v1/search", "GET /v1/explain",
    # Ids by path break on a slash; the client gives them as parameters.
    "DELETE /v1/items/{item_id}", "DELETE /v1/users/{user_id}",
    # For load balancers.
    "GET /healthz", "GET /readyz",
}  # fmt: skip
FULL_EVENT = Event(
    "u", "i", "watch", value=1.0, request_id="r", position=1, context={"device": "tv"}, origin="live"
)


def options(kind: type) -> dict[str, Any]:
    """Every option, given."""
    given = {
        "user_id": "u", "context": {"device": "tv"}, "exclude": ["a"], "filters": {"tags": ["x"]}, "session": ["b"],
        "explain": True, "personalise": True, "paged": True, "cursor": "c", "deadline_ms": 50.0,
        "priority": "batch", "personal": 0.5, "visitor_id": "v", "session_id": "s",
    }  # fmt: skip
    return {name: given[name] for name in get_type_hints(kind)}


CALLS: dict[str, Callable[[Client], Any]] = {
    "POST /v1/recommendations": lambda c: c.recommend("u", 3, **options(RecommendOptions)),
    "POST /v1/items/similar": lambda c: c.similar("i", 3, **options(RuleOptions)),
    "POST /v1/search": lambda c: c.search("words", 3, **options(SearchOptions)),
    "POST /v1/explain": lambda c: c.explain("u", "i", 3, **options(RecommendOptions)),
    "POST /v1/events": lambda c: c.send_events([FULL_EVENT]),
    "PUT /v1/items": lambda c: c.put_items([{"item_id": "i"}]),
    "DELETE /v1/items": lambda c: c.delete_item("i"),
    "PUT /v1/users": lambda c: c.put_users([{"user_id": "u"}]),
    "GET /v1/users": lambda c: c.user("u"),
    "DELETE /v1/users": lambda c: c.erase_user("u"),
    "POST /v1/users/merge": lambda c: c.merge_users("a", "b"),
    "GET /v1/erasures/{receipt}": lambda c: c.erasure("r"),
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return gateway_openapi(GatewaySettings())


def sent(call: Callable[[Client], Any]) -> httpx.Request:
    requests: list[httpx.Request] = []

    def refuse(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(422, json={"detail": "seen"})

    client = Client("http://there", transport=httpx.MockTransport(refuse), retries=Retries(max_attempts=1))
    with client, pytest.raises(AnswerError, match="seen"):
        call(client)
    return requests[0]


def operation(document: dict[str, Any], route: str) -> dict[str, Any]:
    method, path = route.split(" ")
    found: dict[str, Any] = document["paths"][path][method.lower()]
    return found


def test_every_public_route_has_a_method_or_is_left_out_with_a_reason(document: dict[str, Any]) -> None:
    routes = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert routes == set(CALLS) | LEFT_OUT
    assert not set(CALLS) & LEFT_OUT


@pytest.mark.parametrize("route", CALLS)
def test_a_method_asks_its_route_with_its_parameters_and_keys(document: dict[str, Any], route: str) -> None:
    request, found = sent(CALLS[route]), operation(document, route)
    method, path = route.split(" ")
    assert (request.method, request.url.path) == (method, path.replace("{receipt}", "r"))
    by_query = {p["name"] for p in found.get("parameters", ()) if p["in"] == "query"}
    assert set(request.url.params) == by_query
    if "requestBody" not in found:
        assert request.content == b""
        return
    schema = found["requestBody"]["content"]["application/json"]["schema"]
    body = json.loads(request.content)
    assert set(body) == set(schema["properties"])
    for name, value in body.items():
        kinds = {
            str: "string",
            bool: "boolean",
            int: "integer",
            float: "number",
            list: "array",
            dict: "object",
        }
        told = schema["properties"][name]
        assert kinds[type(value)] in {told.get("type")} | {k.get("type") for k in told.get("anyOf", ())}, name


@pytest.mark.parametrize("route", CALLS)
def test_an_answer_has_the_documents_keys(document: dict[str, Any], route: str) -> None:
    found = operation(document, route)
    (told,) = [answer for status, answer in found["responses"].items() if status in {"200", "202"}]
    name = told["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    compare(document["components"]["schemas"], name, answer_of(route))


def answer_of(route: str) -> type[BaseModel]:
    hints = {
        "POST /v1/recommendations": Client.recommend, "POST /v1/items/similar": Client.similar,
        "POST /v1/search": Client.search, "POST /v1/explain": Client.explain, "POST /v1/events": Client.send_events,
        "PUT /v1/items": Client.put_items, "DELETE /v1/items": Client.delete_item, "PUT /v1/users": Client.put_users,
        "GET /v1/users": Client.user, "DELETE /v1/users": Client.erase_user,
        "POST /v1/users/merge": Client.merge_users, "GET /v1/erasures/{receipt}": Client.erasure,
    }  # fmt: skip
    answer: type[BaseModel] = get_type_hints(hints[route])["return"]
    return answer


def compare(schemas: dict[str, Any], name: str, model: type[BaseModel]) -> None:
    told, fields = schemas[name]["properties"], model.model_fields
    if model.model_config["extra"] == "allow":
        assert set(fields) <= set(told)
        return
    optional = {key for key, field in fields.items() if not field.is_required()}
    beside = {"event_id", "item_id", "user_id"} if "position" in told else set()  # one row of rejects for all
    assert set(told) | beside == set(fields) | beside, name
    assert optional.isdisjoint(set(schemas[name].get("required", ())) - WAS_NOT_ALWAYS - beside), name
    for key, field in fields.items():
        for part in get_args(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and key in told:
                compare(schemas, named(told[key]), part)


def named(schema: dict[str, Any]) -> str:
    """The schema that a field of it is of, or a list of, or may be empty."""
    (found,) = [one["$ref"] for one in (schema.get("items", {}), *schema.get("anyOf", ())) if "$ref" in one]
    return str(found.rsplit("/", 1)[1])


WAS_NOT_ALWAYS = {
    "cached", "cached_from", "experiment", "variant", "shown_rank", "record_age_ms",
}  # fmt: skip
"""Keys that the gateway always sends and the client does without: empty as a rule, or younger than the route."""
