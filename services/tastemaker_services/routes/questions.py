"""The HTTP routes of the questions beside recommendations: what is like an item, what fits a text, why an item is shown."""

from typing import Any, Protocol, TypeVar

from fastapi import FastAPI, Request, Response

from tastemaker.config_serving import GatewaySettings
from tastemaker.types import Origin
from tastemaker_services.web.access import ORIGIN_HEADER, origin_of
from tastemaker_services.web.bodies import check_context, parameters, parse, validate
from tastemaker_services.web.openapi import body_schema, query_schema
from tastemaker_services.web.problems import invalid
from tastemaker_services.web.question_schema import (
    ExplainRequest,
    ExplainResponse,
    SearchRequest,
    SimilarRequest,
)
from tastemaker_services.web.routing import Routes
from tastemaker_services.web.schema import RecommendationResponse

Asked = TypeVar("Asked", SimilarRequest, SearchRequest, ExplainRequest)


class QuestionsBackend(Protocol):
    """What answers behind the routes."""

    async def similar(self, request: SimilarRequest) -> dict[str, Any]:
        """See `listing.Listing.similar`."""
        ...

    async def search(self, request: SearchRequest) -> dict[str, Any]:
        """See `listing.Listing.search`."""
        ...

    async def explain(self, request: ExplainRequest, origin: Origin) -> dict[str, Any]:
        """See `explaining.Explainer.explain`."""
        ...


class QuestionRoutes(Routes):
    """The routes of `/v1/items/similar`, `/v1/search` and `/v1/explain`."""

    def __init__(self, backend: QuestionsBackend, settings: GatewaySettings, catalogue: str) -> None:
        super().__init__(settings, catalogue)
        self._backend = backend

    def add_to(self, api: FastAPI) -> None:
        """Adds the routes to an application."""
        listed: dict[str, Any] = {"response_model": RecommendationResponse}
        more = ("k", "user_id?", "country?")
        api.post("/v1/items/similar", openapi_extra=body_schema(SimilarRequest), **listed)(self.similar)
        api.get("/v1/items/similar", openapi_extra=query_schema("item_id", *more), **listed)(
            self.similar_by_query
        )
        api.get("/v1/items/{item_id:path}/similar", openapi_extra=query_schema(*more), **listed)(
            self.similar_by_path
        )
        api.post("/v1/search", openapi_extra=body_schema(SearchRequest), **listed)(self.search)
        api.get("/v1/search", openapi_extra=query_schema("q", *more, "personal?"), **listed)(
            self.search_by_query
        )
        explained: dict[str, Any] = {"response_model": ExplainResponse}
        api.post("/v1/explain", openapi_extra=body_schema(ExplainRequest), **explained)(self.explain)
        by_query = query_schema("user_id", "item_id", "k", "country?")
        api.get("/v1/explain", openapi_extra=by_query, **explained)(self.explain_by_query)

    async def similar(self, request: Request) -> Response:
        """The items most like one."""
        return await self.answer("similar", self._similar(request, None))

    async def similar_by_query(self, request: Request) -> Response:
        """The same by query: `?item_id=&k=`."""
        return await self.answer("similar", self._similar(request, {}))

    async def similar_by_path(self, request: Request, item_id: str) -> Response:
        """The same by path, for ids that a path can carry."""
        return await self.answer("similar", self._similar(request, {"item_id": item_id}))

    async def search(self, request: Request) -> Response:
        """The items that fit a text best."""
        return await self.answer("search", self._search(request, None))

    async def search_by_query(self, request: Request) -> Response:
        """The same by query: `?q=&k=`."""
        return await self.answer("search", self._search(request, {}))

    async def explain(self, request: Request) -> Response:
        """Why an item is in a user's list now, or why it is not."""
        return await self.answer("explain", self._explain(request, None))

    async def explain_by_query(self, request: Request) -> Response:
        """The same by query: `?user_id=&item_id=`."""
        return await self.answer("explain", self._explain(request, {}))

    async def _similar(self, request: Request, path: dict[str, Any] | None) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "read")
        return await self._backend.similar(await self._asked(request, SimilarRequest, path))

    async def _search(self, request: Request, path: dict[str, Any] | None) -> dict[str, Any]:
        self.access.scopes(request.headers.get("authorization"), "read")
        return await self._backend.search(await self._asked(request, SearchRequest, path))

    async def _explain(self, request: Request, path: dict[str, Any] | None) -> dict[str, Any]:
        scopes = self.access.scopes(request.headers.get("authorization"), "explain")
        origin = origin_of(request.headers.get(ORIGIN_HEADER), scopes)
        asked = await self._asked(request, ExplainRequest, path)
        if asked.cursor is not None or asked.paged:
            field = "paged" if asked.cursor is None else "cursor"
            raise invalid(field, f"{field} is given, a page has no explanation of its own: leave it out")
        return await self._backend.explain(asked, origin)

    async def _asked(self, request: Request, model: type[Asked], path: dict[str, Any] | None) -> Asked:
        """The body, or what query and path say where `path` is given."""
        asked = await parse(request, model) if path is None else validate(model, _given(request) | path)
        if asked.k > self.settings.max_k:
            raise invalid("k", f"k is {asked.k}, must be at most {self.settings.max_k}: ask for fewer")
        check_context(asked.context)
        return asked


def _given(request: Request) -> dict[str, Any]:
    """The query's parameters as a body's keys."""
    given = parameters(request)
    if "country" in given:
        given["context"] = {"country": given.pop("country")}
    if "personal" in given:
        try:
            given["personal"] = float(given["personal"])
        except ValueError:
            shown = given["personal"][:60]
            raise invalid("personal", f"personal is {shown!r}, must be a number: correct it") from None
    return given
