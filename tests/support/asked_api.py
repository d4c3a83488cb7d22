"""The HTTP face in this process, before a backend that remembers what it was asked."""

import asyncio
import hashlib
from typing import Any

import httpx

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.errors import StateError
from tastemaker.events.schema import Event
from tastemaker_services.gateway.intake import Taken
from tastemaker_services.routes.api import create_api

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
        self.erased: list[str] = []
        self.waiting_for: str | None = None
        self.broken = False

    async def recommend(self, request: Any, origin: str, variants: Any = None) -> dict[str, Any]:
        self.asked.append((request, origin))
        return {"items": [], "degraded": []}

    async def similar(self, request: Any) -> dict[str, Any]:
        self.asked.append((request.item_id, request.k))
        return {"items": [], "degraded": []}

    async def append(self, events: list[Event]) -> Taken:
        if self.broken:
            raise StateError("cannot append events", mend="check that Redis/Valkey is up")
        self.events += events
        return Taken(len(events), 0, 0)

    async def erase(self, user_id: str) -> str:
        if self.broken:
            raise StateError("cannot note an erasure", mend="check that Redis/Valkey is up")
        self.erased.append(user_id)
        return "receipt-1"

    async def receipt(self, name: str) -> dict[str, Any] | None:
        return {"receipt-1": {}, "receipt-0": {"removed": {"records": 2}}}.get(name)

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


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
