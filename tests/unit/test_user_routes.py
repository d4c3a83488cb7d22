"""The HTTP contract of `/v1/users`: rows fail alone, scopes, merges, and what is said while state is away."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.errors import StateError
from tastemaker.users.profile import ProfileRow
from tastemaker_services.routes.users import UserRoutes
from tastemaker_services.web.problems import Problem

SCOPES = ("read", "ingest", "catalogue", "erase", "explain")
KEYS = tuple(ApiKey(sha256=hashlib.sha256(scope.encode()).hexdigest(), scopes=(scope,)) for scope in SCOPES)


class Backend:
    """Remembers what it was asked."""

    def __init__(self, is_broken: bool = False) -> None:
        self.is_broken = is_broken
        self.rows: list[ProfileRow] = []
        self.merged: list[tuple[str, str]] = []

    async def put_users(self, rows: Sequence[ProfileRow]) -> None:
        self._break()
        self.rows += rows

    async def user(self, user_id: str) -> dict[str, Any] | None:
        self._break()
        return {"user_id": user_id, "history": []} if user_id == "known/ü" else None

    async def merge_users(self, from_user: str, into_user: str) -> dict[str, str]:
        self._break()
        if from_user == "taken":
            raise Problem(409, "merged-already", "from_user_id was merged", field="from_user_id")
        self.merged.append((from_user, into_user))
        return {"into_user_id": into_user, "state": "noted"}

    def _break(self) -> None:
        if self.is_broken:
            raise StateError("cannot keep profiles", mend="check that Redis/Valkey is up")


def call(
    method: str, path: str, backend: Backend | None = None, keys: tuple[ApiKey, ...] = (), **request: Any
) -> httpx.Response:
    api = FastAPI()

    async def problem(_: Any, error: Exception) -> Any:
        assert isinstance(error, Problem)
        return error.response()

    api.add_exception_handler(Problem, problem)
    UserRoutes(backend or Backend(), GatewaySettings(max_batch=3, keys=keys), "default").add_to(api)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(api)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


def put(users: Any, backend: Backend | None = None, **request: Any) -> httpx.Response:
    return call("PUT", "/v1/users", backend, json={"users": users}, **request)


def merge(body: Any, backend: Backend | None = None, **request: Any) -> httpx.Response:
    return call("POST", "/v1/users/merge", backend, json=body, **request)


def test_a_bad_row_is_answered_by_its_place_and_the_others_are_kept() -> None:
    backend = Backend()
    fields = "demographics, location, onboarding, personalise, user_id"
    answer = put([{"user_id": "a", "personalise": False}, {"user_id": "b", "age": 3}, "c"], backend)
    assert answer.status_code == 200
    assert answer.json() == {
        "accepted": 1,
        "rejected": 2,
        "rejections": [
            {"position": 1, "user_id": "b", "reason": f"age is no field of a user, which has {fields}"},
            {"position": 2, "user_id": None, "reason": "the row is a str, must be an object"},
        ],
    }
    assert [(row.user_id, row.personalise) for row in backend.rows] == [("a", False)]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"[]", 422, "body"),
        (b"{", 400, "body"),
        (b'{"users": []}', 422, "users"),
        (b'{"users": [1, 2, 3, 4]}', 422, "users"),
        (b'{"users": [1], "more": 1}', 422, "more"),
        (b'{"users": ' + b"[" * 100_000, 400, "body"),
    ],
)
def test_a_body_that_is_no_batch_says_what_is_wrong(body: bytes, status: int, field: str) -> None:
    answer = call("PUT", "/v1/users", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["field"]) == (status, field)


def test_what_is_kept_is_shown_and_an_unknown_user_is_not_found() -> None:
    found = call("GET", "/v1/users", params={"user_id": "known/ü"})
    assert (found.status_code, found.json()["user_id"]) == (200, "known/ü")
    assert call("GET", "/v1/users", params={"user_id": "nobody"}).status_code == 404
    assert call("GET", "/v1/users").status_code == 422


def test_a_merge_is_noted_and_nonsense_is_not() -> None:
    backend = Backend()
    answer = merge({"from_user_id": "anon", "into_user_id": "ann"}, backend)
    assert (answer.status_code, answer.json()) == (202, {"into_user_id": "ann", "state": "noted"})
    itself = merge({"from_user_id": "a", "into_user_id": "a"}, backend)
    assert (itself.status_code, itself.json()["field"]) == (422, "into_user_id")
    assert merge({"from_user_id": "", "into_user_id": "a"}, backend).status_code == 422
    assert merge({"from_user_id": "a"}, backend).json()["field"] == "into_user_id"
    assert merge({"from_user_id": "taken", "into_user_id": "a"}, backend).status_code == 409
    assert backend.merged == [("anon", "ann")]


def test_while_state_is_away_nothing_is_said_to_be_kept() -> None:
    broken = Backend(is_broken=True)
    for answer in (
        put([{"user_id": "a"}], broken),
        merge({"from_user_id": "a", "into_user_id": "b"}, broken),
        call("GET", "/v1/users", broken, params={"user_id": "a"}),
    ):
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize("scope", SCOPES)
def test_profiles_and_merges_need_ingest_and_what_is_kept_needs_explain_or_erase(scope: str) -> None:
    headers = {"authorization": f"Bearer {scope}"}
    wanted = {"ingest": (200, 202, 403), "explain": (403, 403, 404), "erase": (403, 403, 404)}.get(
        scope, (403, 403, 403)
    )
    answers = (
        put([{"user_id": "a"}], keys=KEYS, headers=headers),
        merge({"from_user_id": "a", "into_user_id": "b"}, keys=KEYS, headers=headers),
        call("GET", "/v1/users", keys=KEYS, headers=headers, params={"user_id": "a"}),
    )
    assert tuple(answer.status_code for answer in answers) == wanted
    assert call("GET", "/v1/users", keys=KEYS, params={"user_id": "a"}).status_code == 401
