"""The routes of `/v1/users` beside erasure: profiles in batches, what is kept of a user, merges."""

from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from tastemaker import telemetry
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import StateError
from tastemaker.ids import Id
from tastemaker.strict import Strict
from tastemaker.users.profile import ProfileRow
from tastemaker.users.rows import parse_users
from tastemaker_services.web.bodies import mapping, parse, query, read_body, validate
from tastemaker_services.web.openapi import body_schema, query_schema
from tastemaker_services.web.problems import Problem, invalid
from tastemaker_services.web.routing import Routes
from tastemaker_services.web.schema import UserResponse


class UsersBackend(Protocol):
    """What answers behind the routes."""

    async def put_users(self, rows: Sequence[ProfileRow]) -> None:
        """See `profiles.Profiles.put`."""
        ...

    async def user(self, user_id: str) -> dict[str, Any] | None:
        """See `profiles.Profiles.get`."""
        ...

    async def merge_users(self, from_user: str, into_user: str) -> dict[str, str]:
        """See `profiles.Profiles.merge`."""
        ...


class UsersRequest(Strict):
    """Body of `PUT /v1/users`. Rows are checked one by one: a bad one does not stop the others."""

    users: list[Any] = Field(
        min_length=1, description="users, each an object with user_id and what to change"
    )


class UserRequest(Strict):
    """Parameters of `GET /v1/users`."""

    user_id: Id = Field(description="the customer's own id")


class MergeRequest(Strict):
    """Body of `POST /v1/users/merge`."""

    from_user_id: Id = Field(description="whose past joins, and whose later events count for the other")
    into_user_id: Id = Field(description="who both are from now on")


class UserRejection(BaseModel):
    """A row that is no user."""

    position: int = Field(description="in the batch, from 0")
    user_id: str | None
    reason: str


class UsersResponse(BaseModel):
    """What became of a batch of users."""

    accepted: int
    rejected: int
    rejections: list[UserRejection]


class MergeResponse(BaseModel):
    """What became of a merge."""

    into_user_id: str = Field(description="who both are, by now")
    state: str = Field(description="noted: it is done within seconds; or one already")


class UserRoutes(Routes):
    """Profiles and merges."""

    def __init__(self, backend: UsersBackend, settings: GatewaySettings, catalogue: str) -> None:
        super().__init__(settings, catalogue)
        self._backend = backend

    def add_to(self, api: FastAPI) -> None:
        """Registers the routes; to be called before those of erasure, whose paths match more."""
        users, merge = body_schema(UsersRequest), body_schema(MergeRequest)
        api.put("/v1/users", response_model=UsersResponse, openapi_extra=users)(self.put)
        by_query = query_schema("user_id")
        api.get("/v1/users", response_model=UserResponse, openapi_extra=by_query)(self.get)
        api.post("/v1/users/merge", status_code=202, response_model=MergeResponse, openapi_extra=merge)(
            self.merge
        )

    async def put(self, request: Request) -> Response:
        """Keeps what a batch says of users, once it is on disk; what a row leaves out stays as it was."""
        return await self.answer("users", self._put(request))

    async def get(self, request: Request) -> Response:
        """What is kept of a user: `?user_id=`."""
        return await self.answer("users", self._get(request))

    async def merge(self, request: Request) -> Response:
        """Makes two users one; 202 once that is on disk."""
        return await self.answer("users", self._merge(request), status=202)

    async def _put(self, request: Request) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "ingest")
        rows = validate(UsersRequest, mapping(await read_body(request))).users
        if len(rows) > (limit := self.settings.max_batch):
            raise invalid("users", f"users has {len(rows)} rows, must be at most {limit}: split the batch")
        users, rejected = parse_users(rows)
        try:
            await self._backend.put_users(users)
        except StateError as error:
            raise _unavailable(error) from error
        for outcome, number in (("accepted", len(users)), ("rejected", len(rejected))):
            telemetry.USERS_PUT.labels(self.catalogue, outcome).inc(number)
        return {
            "accepted": len(users),
            "rejected": len(rejected),
            "rejections": [row._asdict() for row in rejected],
        }

    async def _get(self, request: Request) -> dict[str, Any]:
        self._may_look(request.headers.get("authorization"))
        asked = validate(UserRequest, query(request))
        try:
            found = await self._backend.user(asked.user_id)
        except StateError as error:
            raise _unavailable(error) from error
        if found is None:
            detail = f"user_id {asked.user_id[:60]!r} is unknown: nothing is kept"
            raise Problem(404, "unknown-user", detail, field="user_id")
        return found

    def _may_look(self, authorization: str | None) -> None:
        """Whoever may explain or erase may see what there is."""
        try:
            self.access.scopes(authorization, "explain")
        except Problem as problem:
            if problem.status != 403:
                raise
            self.access.scopes(authorization, "erase")

    async def _merge(self, request: Request) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "ingest")
        asked = await parse(request, MergeRequest)
        if asked.from_user_id == asked.into_user_id:
            raise invalid("into_user_id", "into_user_id is from_user_id, must be another user: correct it")
        try:
            return await self._backend.merge_users(asked.from_user_id, asked.into_user_id)
        except StateError as error:
            raise _unavailable(error) from error


def _unavailable(error: StateError) -> Problem:
    return Problem(503, "not-accepted", str(error), headers={"retry-after": "1"})
