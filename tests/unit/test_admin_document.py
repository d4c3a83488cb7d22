"""What the admin listener's document says of every route: bodies and errors."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import redis

from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.state.keys import Keys
from tastemaker_services.admin.app import Administered, administration
from tastemaker_services.admin.ladder import ForceRequest

OPERATIONS = ("get", "put", "post", "delete")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """As a program gets it from the whole application, behind whose routes nothing runs."""
    folder = tmp_path_factory.mktemp("admin")
    nobody: Any = SimpleNamespace(poll=None)
    app = administration(
        Administered(Settings(), Home(folder), redis.Redis(), Keys("default", 4), nobody, nobody, folder)
    )

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as http:
            return await http.get("/openapi.json")

    found: dict[str, Any] = asyncio.run(ask()).json()
    return found


def of(document: dict[str, Any], prefix: str) -> dict[str, dict[str, Any]]:
    return {
        f"{method} {path}": one
        for path, methods in document["paths"].items()
        for method, one in methods.items()
        if path.startswith(prefix) and method in OPERATIONS
    }


def test_every_admin_route_tells_its_body_and_errors(document: dict[str, Any]) -> None:
    found = of(document, "/admin/")
    assert {"put /admin/v1/ladder", "get /admin/v1/bundles", "post /admin/v1/rollback"} <= found.keys()
    for name, one in found.items():
        assert {"401", "403", "503"} <= one["responses"].keys(), name
        if name.startswith(("put", "post")):
            assert one["requestBody"]["content"]["application/json"]["schema"]["properties"], name
            assert {"400", "408", "413", "415", "422"} <= one["responses"].keys(), name
    body = found["put /admin/v1/ladder"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"].keys() == ForceRequest.model_fields.keys()


@pytest.mark.parametrize("prefix", ["/admin/", "/v1/"])
def test_every_refusal_is_a_problem(document: dict[str, Any], prefix: str) -> None:
    for name, one in of(document, prefix).items():
        for status, answer in one["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/problem+json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ProblemResponse"}, (name, status)
                assert answer["content"].keys() == {"application/problem+json"}, (name, status)
    assert "detail" in document["components"]["schemas"]["ProblemResponse"]["properties"]
    assert "ValidationError" not in json.dumps(document)
