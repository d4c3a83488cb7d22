"""The routes of similar items, search and explain: what they take, and what they refuse."""

import asyncio
import hashlib
from typing import Any

import httpx
import pytest

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker_services.routes.api import create_api
from tastemaker_services.web.question_schema import MAX_TEXT, ExplainRequest, SearchRequest, SimilarRequest
from tastemaker_services.web.schema import Filters, RecommendationRequest

READ, EXPLAIN = "r" * 32, "e" * 32
KEYS = tuple(
    ApiKey(sha256=hashlib.sha256(key.encode()).hexdigest(), scopes=(scope,))
    for key, scope in ((READ, "read"), (EXPLAIN, "explain"))
)


class Recorder:
    """A backend that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def similar(self, request: SimilarRequest) -> dict[str, Any]:
        self.asked.append(request)
        return {"items": []}

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        self.asked.append(request)
        return {"items": []}

    async def recommend(
        self, request: RecommendationRequest, origin: str, variants: Any = None
    ) -> dict[str, Any]:
        self.asked.append((request, origin))
        return {"items": []}

    async def explain(self, request: ExplainRequest, origin: str) -> dict[str, Any]:
        self.asked.append((request, origin))
        return {"verdict": "shown"}


def call(method: str, path: str, *, key: str | None = None, **request: Any) -> tuple[httpx.Response, Any]:
    backend = Recorder()
    settings = GatewaySettings(max_k=50, keys=KEYS if key else ())
    api = create_api(backend, settings, "default")  # type: ignore[arg-type]
    headers = {"authorization": f"Bearer {key}"} if key else {}

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, headers=headers, **request)

    return asyncio.run(send()), backend.asked


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "/v1/items/similar?item_id=a/b&k=3", None, SimilarRequest(item_id="a/b", k=3)),
        ("GET", "/v1/items/a%2Fb/similar?user_id=u", None, SimilarRequest(item_id="a/b", user_id="u")),
        (
            "POST",
            "/v1/items/similar",
            {"item_id": "a", "filters": {"tags": ["t"]}, "exclude": ["b"], "context": {"country": "DE"}},
            SimilarRequest(
                item_id="a", filters=Filters(tags=("t",)), exclude=("b",), context={"country": "DE"}
            ),
        ),
        (
            "GET",
            "/v1/search?q=two+words&k=4&country=DE&user_id=u&personal=0.25",
            None,
            SearchRequest(q="two words", k=4, context={"country": "DE"}, user_id="u", personal=0.25),
        ),
        ("POST", "/v1/search", {"q": "ü"}, SearchRequest(q="ü")),
        (
            "GET",
            "/v1/recommendations?user_id=u&paged=true&personalise=false",
            None,
            (RecommendationRequest(user_id="u", paged=True, personalise=False), "live"),
        ),
        (
            "GET",
            "/v1/recommendations/u?cursor=AAAA&k=3",
            None,
            (RecommendationRequest(user_id="u", cursor="AAAA", k=3), "live"),
        ),
        (
            "GET",
            "/v1/explain?user_id=u&item_id=i&k=7",
            None,
            (ExplainRequest(user_id="u", item_id="i", k=7), "live"),
        ),
        (
            "POST",
            "/v1/explain",
            {"user_id": "u", "item_id": "i", "session": ["s"], "personalise": False},
            (ExplainRequest(user_id="u", item_id="i", session=("s",), personalise=False), "live"),
        ),
    ],
)
def test_a_question_arrives_as_it_was_asked(method: str, path: str, body: Any, expected: Any) -> None:
    response, asked = call(method, path, **({"json": body} if body else {}))
    assert (response.status_code, asked) == (200, [expected])


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("GET", "/v1/items/similar", None, "item_id"),
        ("GET", "/v1/items/i/similar?k=51", None, "k"),
        ("GET", "/v1/items/i/similar?k=x", None, "k"),
        ("GET", "/v1/items/i/similar?shape=round", None, "shape"),
        ("GET", "/v1/search", None, "q"),
        ("GET", "/v1/search?q=", None, "q"),
        ("GET", f"/v1/search?q={'a' * (MAX_TEXT + 1)}", None, "q"),
        ("GET", "/v1/search?q=a&personal=much", None, "personal"),
        ("GET", "/v1/recommendations?user_id=u&paged=yes", None, "paged"),
        ("GET", "/v1/recommendations?user_id=u&personalise=", None, "personalise"),
        ("GET", "/v1/search?q=a&personal=1.5", None, "personal"),
        ("GET", "/v1/search?q=a&personal=nan", None, "personal"),
        ("POST", "/v1/search", {"q": "a", "context": {"local_time": "noon"}}, "context.local_time"),
        ("GET", "/v1/explain?user_id=u", None, "item_id"),
        ("GET", "/v1/explain?item_id=i", None, "user_id"),
        ("POST", "/v1/explain", {"user_id": "u", "item_id": "i", "paged": True}, "paged"),
        ("POST", "/v1/explain", {"user_id": "u", "item_id": "i", "cursor": "A"}, "cursor"),
        ("POST", "/v1/explain", {"user_id": "u", "item_id": "i", "k": 0}, "k"),
    ],
)
def test_what_means_nothing_is_refused_by_its_field(method: str, path: str, body: Any, field: str) -> None:
    response, asked = call(method, path, **({"json": body} if body else {}))
    assert (response.status_code, response.json()["field"], asked) == (422, field, [])


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/v1/search?q=a", READ, 200),
        ("/v1/search?q=a", EXPLAIN, 403),
        ("/v1/items/i/similar", READ, 200),
        ("/v1/explain?user_id=u&item_id=i", EXPLAIN, 200),
        ("/v1/explain?user_id=u&item_id=i", READ, 403),
        ("/v1/explain?user_id=u&item_id=i", "x" * 32, 401),
    ],
)
def test_each_question_has_its_scope(path: str, key: str, status: int) -> None:
    assert call("GET", path, key=key)[0].status_code == status
