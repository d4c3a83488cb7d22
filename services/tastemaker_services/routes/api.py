"""The HTTP routes of `/v1`: parse, check, answer. What an answer is, `gateway` decides.

Bodies are parsed by pydantic-core straight from bytes; answers are written by `json` straight from dicts:
FastAPI contributes routing and OpenAPI, not a second validation.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from tastemaker import __version__, telemetry
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import StateError
from tastemaker.events.schema import Event, parse_events
from tastemaker.types import MAX_ID_LENGTH, ORIGINS, Origin
from tastemaker_services.gateway.intake import Taken
from tastemaker_services.routes.items import ItemRoutes, ItemsBackend
from tastemaker_services.routes.questions import QuestionRoutes, QuestionsBackend
from tastemaker_services.routes.users import UserRoutes, UsersBackend
from tastemaker_services.web.access import ORIGIN_HEADER, VARIANT_HEADER, origin_of, variants_of
from tastemaker_services.web.bodies import (
    check_context,
    json_response,
    mapping,
    parameters,
    parse,
    query,
    read_body,
    validate,
)
from tastemaker_services.web.openapi import body_schema, problems, query_schema
from tastemaker_services.web.problems import Problem, invalid
from tastemaker_services.web.routing import Routes
from tastemaker_services.web.schema import (
    EraseRequest,
    EraseResponse,
    ErasureResponse,
    EventsRequest,
    EventsResponse,
    RecommendationRequest,
    RecommendationResponse,
)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Backend(ItemsBackend, UsersBackend, QuestionsBackend, Protocol):
    """What answers behind the routes."""

    async def recommend(
        self, request: RecommendationRequest, origin: Origin, variants: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """See `gateway.Gateway.recommend`."""
        ...

    async def append(self, events: list[Event]) -> Taken:
        """See `intake.Intake.append`."""
        ...

    async def erase(self, user_id: str) -> str:
        """Notes that a user is to be erased; the receipt's name. StateError where it could not be noted."""
        ...

    async def receipt(self, name: str) -> dict[str, Any] | None:
        """A receipt, empty while its erasure is under way; None where there never was one."""
        ...

    async def why_not_ready(self) -> str | None:
        """What the graph is waiting for; None where it answers."""
        ...


def create_api(
    backend: Backend, settings: GatewaySettings, catalogue: str, lifespan: Lifespan | None = None
) -> FastAPI:
    """The application. Its OpenAPI is served by the admin listener, not here."""
    api = FastAPI(
        title="Tastemaker", version=__version__, lifespan=lifespan,
        docs_url=None, redoc_url=None, openapi_url=None,
        responses=problems(401, 422, 429),
    )  # fmt: skip
    if settings.cors_origins:
        api.add_middleware(
            CORSMiddleware, allow_origins=settings.cors_origins, allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"], expose_headers=["retry-after"], max_age=3600,
        )  # fmt: skip
    routes = _Routes(backend, settings, catalogue)
    listed = ("k", "paged?", "cursor?", "personalise?")
    answers: dict[str, Any] = {"response_model": RecommendationResponse}
    api.add_exception_handler(Problem, _problem)
    api.add_exception_handler(HTTPException, _http_problem)
    api.add_exception_handler(Exception, _fault)
    api.post("/v1/recommendations", openapi_extra=body_schema(RecommendationRequest), **answers)(
        routes.recommend
    )
    api.get("/v1/recommendations", openapi_extra=query_schema("user_id", *listed), **answers)(
        routes.recommend_by_query
    )
    api.get("/v1/recommendations/{user_id:path}", openapi_extra=query_schema(*listed), **answers)(
        routes.recommend_by_path
    )
    QuestionRoutes(backend, settings, catalogue).add_to(api)
    api.post(
        "/v1/events", status_code=202, response_model=EventsResponse, openapi_extra=body_schema(EventsRequest)
    )(routes.events)
    ItemRoutes(backend, settings, catalogue).add_to(api)
    UserRoutes(backend, settings, catalogue).add_to(api)
    noted: dict[str, Any] = {"status_code": 202, "response_model": EraseResponse}
    api.delete("/v1/users", openapi_extra=query_schema("user_id"), **noted)(routes.erase_by_query)
    api.delete("/v1/users/{user_id:path}", **noted)(routes.erase_by_path)
    api.get("/v1/erasures/{receipt}", response_model=ErasureResponse)(routes.erasure)
    api.get("/healthz")(routes.healthz)
    api.get("/readyz")(routes.readyz)
    return api


class _Routes(Routes):
    def __init__(self, backend: Backend, settings: GatewaySettings, catalogue: str) -> None:
        super().__init__(settings, catalogue)
        self._backend = backend

    async def recommend(self, request: Request) -> Response:
        """The best items for a user."""
        return await self.answer("recommendations", self._recommend(request, None))

    async def recommend_by_query(self, request: Request) -> Response:
        """The same by query: `?user_id=&k=`."""
        return await self.answer("recommendations", self._recommend(request, {}))

    async def recommend_by_path(self, request: Request, user_id: str) -> Response:
        """The same by path, for ids that a path can carry."""
        return await self.answer("recommendations", self._recommend(request, {"user_id": user_id}))

    async def events(self, request: Request) -> Response:
        """Takes a batch of events; 202 once they are on disk."""
        return await self.answer("events", self._events(request), status=202)

    async def erase_by_query(self, request: Request) -> Response:
        """Erases a user: `?user_id=`; 202 with the name of a receipt to look at later."""
        return await self.answer("erase", self._erase(request, {}), status=202)

    async def erase_by_path(self, request: Request, user_id: str) -> Response:
        """The same by path, for ids that a path can carry."""
        return await self.answer("erase", self._erase(request, {"user_id": user_id}), status=202)

    async def erasure(self, request: Request, receipt: str) -> Response:
        """What an erasure removed, once it is done."""
        return await self.answer("erase", self._erasure(request, receipt))

    async def healthz(self) -> Response:
        """Whether the process lives."""
        return json_response({"status": "ok"})

    async def readyz(self) -> Response:
        """Whether the whole graph answers."""
        reason = await self._backend.why_not_ready()
        if reason is None:
            return json_response({"status": "ready"})
        return Problem(503, "not-ready", f"waiting for {reason}", headers={"retry-after": "1"}).response()

    async def _recommend(self, request: Request, path: dict[str, Any] | None) -> dict[str, Any]:
        scopes = self.access.scopes(request.headers.get("authorization"), "read")
        origin = origin_of(request.headers.get(ORIGIN_HEADER), scopes)
        variants = variants_of(request.headers.get(VARIANT_HEADER), scopes)
        if path is None:
            asked = await parse(request, RecommendationRequest)
        else:
            asked = validate(RecommendationRequest, parameters(request) | path)
        if asked.k > self.settings.max_k:
            raise invalid("k", f"k is {asked.k}, must be at most {self.settings.max_k}: ask for fewer")
        check_context(asked.context)
        if asked.explain and "explain" not in scopes:
            raise Problem(403, "forbidden", "explain needs a key with scope explain", field="explain")
        return await self._backend.recommend(asked, origin, variants)

    async def _events(self, request: Request) -> dict[str, Any]:
        scopes = self.access.scopes(request.headers.get("authorization"), "ingest")
        origin = origin_of(request.headers.get(ORIGIN_HEADER), scopes)
        rows = validate(EventsRequest, mapping(await read_body(request))).events
        if len(rows) > self.settings.max_batch:
            limit = self.settings.max_batch
            raise invalid("events", f"events has {len(rows)} rows, must be at most {limit}: split the batch")
        given = [{"origin": origin} | row if isinstance(row, dict) else row for row in rows]
        origins = ORIGINS if "admin" in scopes else ("live",)
        events, rejected = parse_events(given, time.time_ns() // 1_000_000, origins)
        try:
            taken = await self._backend.append(events)
        except StateError as error:
            raise Problem(503, "not-accepted", str(error), headers={"retry-after": "1"}) from error
        self._count(events, len(rejected))
        return {
            "accepted": taken.accepted,
            "duplicate": taken.duplicates,
            "spooled": taken.spooled,
            "rejected": len(rejected),
            "rejections": [row._asdict() for row in rejected],
        }

    async def _erase(self, request: Request, path: dict[str, Any]) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "erase")
        asked = validate(EraseRequest, query(request) | path)
        try:
            receipt = await self._backend.erase(asked.user_id)
        except StateError as error:
            raise Problem(503, "not-accepted", str(error), headers={"retry-after": "1"}) from error
        return {"receipt": receipt, "see": f"/v1/erasures/{receipt}"}

    async def _erasure(self, request: Request, receipt: str) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "erase")
        found = await self._backend.receipt(receipt) if len(receipt) <= MAX_ID_LENGTH else None
        if found is None:
            detail = f"receipt {receipt[:60]!r} is none of ours: correct it"
            raise Problem(404, "unknown-receipt", detail, field="receipt")
        return {"state": "done", **found} if found else {"state": "under way", "receipt": receipt}

    def _count(self, events: list[Event], num_rejected: int) -> None:
        kinds: dict[str, int] = {}
        for event in events:
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
        for kind, number in kinds.items():
            telemetry.EVENTS.labels(self.catalogue, kind, "received").inc(number)
        if num_rejected:
            telemetry.EVENTS.labels(self.catalogue, "other", "rejected").inc(num_rejected)


async def _problem(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, Problem)
    return error.response()


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds = {404: "not-found", 405: "method-not-allowed"}
    detail = f"{request.method} {request.url.path[:120]}: {error.detail}; see /docs of the admin listener"
    kind = kinds.get(error.status_code, "http-error")
    return Problem(error.status_code, kind, detail, headers=error.headers).response()


async def _fault(request: Request, error: Exception) -> Response:
    del request
    return Problem(500, "fault", f"a fault of ours: {type(error).__name__}").response()
