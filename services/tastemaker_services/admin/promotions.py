"""`/admin/v1/promotions`, `/admin/v1/history` and `/admin/v1/rollback`: what gates said, what was live when, and the way back."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from pydantic import Field

from tastemaker.errors import RegistryError, TastemakerError, UsageError
from tastemaker.promotion.record import Promotion, read_promotions
from tastemaker.registry.history import AliasMove, all_live_at
from tastemaker.registry.live import CHAMPION
from tastemaker.strict import Strict
from tastemaker_services.admin.answers import admin_answer
from tastemaker_services.admin.experiments import caller_of
from tastemaker_services.web.access import Access
from tastemaker_services.web.bodies import json_response, parse, query
from tastemaker_services.web.openapi import body_schema, problems, query_schema
from tastemaker_services.web.problems import Problem, invalid

if TYPE_CHECKING:
    from tastemaker.registry.client import Registry

PROMOTIONS: Final = "/admin/v1/promotions"
HISTORY: Final = "/admin/v1/history"
ROLLBACK: Final = "/admin/v1/rollback"
Work = Callable[[], Awaitable[dict[str, Any]]]


class RollbackRequest(Strict):
    """Body of `POST /admin/v1/rollback`."""

    alias: str = Field(CHAMPION, description="what goes back to the version that it named before")
    actor: str = Field("", max_length=100, description="who asks, beside the key")
    reason: str = Field("rolled back", max_length=500, description="why; kept in the history")


class PromotionsAdmin:
    """The routes of one catalogue.

    Args:
        registry: Where versions are.
        catalogue: Whose.
        access: Who may.
        moved: Called after a rollback, so that who serves sees it at once.
    """

    def __init__(
        self, registry: "Registry", catalogue: str, access: Access, moved: Callable[[], object]
    ) -> None:
        self._registry, self._catalogue, self._access, self._moved = registry, catalogue, access, moved

    def add_to(self, admin: FastAPI) -> None:
        """Adds the routes."""
        asked = (401, 403, 409, 422, 503)
        admin.get(PROMOTIONS + "/{version}", responses=problems(*asked, 404))(self.promotions)
        of_history = query_schema("alias?", "at?")
        admin.get(HISTORY, responses=problems(*asked), openapi_extra=of_history)(self.history)
        written = problems(*asked, 400, 408, 413, 415)
        admin.post(ROLLBACK, responses=written, openapi_extra=body_schema(RollbackRequest))(self.rollback)

    async def promotions(self, request: Request, version: str) -> Response:
        """What the gates said of a version, for each alias that it wanted."""

        async def work() -> dict[str, Any]:
            if not (version.isascii() and version.isdigit() and len(version) < 10):
                raise invalid("version", f"version is {version[:60]!r}, must be a whole number: correct it")
            found = await asyncio.to_thread(self._promotions, int(version))
            return {"version": int(version), "promotions": [one.model_dump(mode="json") for one in found]}

        return await self._answer(request, work)

    async def history(self, request: Request) -> Response:
        """All moves of aliases, or with `at` those that decided what was live then; with `alias` of that alone."""

        async def work() -> dict[str, Any]:
            given = query(request)
            at = given.get("at")
            at_ms = None if at is None else _time_ms(at)
            moves: list[AliasMove] = await asyncio.to_thread(self._registry.history, self._catalogue)
            if at_ms is not None:
                moves = list(all_live_at(moves, at_ms).values())
            return {"moves": [asdict(one) for one in moves if given.get("alias", one.alias) == one.alias]}

        return await self._answer(request, work)

    async def rollback(self, request: Request) -> Response:
        """Points an alias back at the version that it named before."""

        async def work() -> dict[str, Any]:
            asked = await parse(request, RollbackRequest)
            caller = caller_of(request.headers.get("authorization"))
            actor = f"{asked.actor} ({caller})" if asked.actor else caller
            version = await asyncio.to_thread(
                self._registry.rollback, self._catalogue, asked.alias, actor, asked.reason
            )
            await asyncio.to_thread(self._moved)
            return {"alias": asked.alias, "version": version.number}

        return await self._answer(request, work)

    def _promotions(self, number: int) -> list[Promotion]:
        known = [version.number for version in self._registry.versions(self._catalogue)]
        if number not in known:
            limit = f"one of the {len(known)} versions of catalogue {self._catalogue}"
            detail = f"version is {number}, must be {limit}: correct it"
            raise Problem(404, "unknown-version", detail, field="version")
        return read_promotions(self._registry, self._catalogue, number)

    async def _answer(self, request: Request, work: Work) -> Response:
        async def answer() -> Response:
            return json_response(await work())

        return await admin_answer(self._access, request, answer, _told)


def _told(error: TastemakerError) -> Problem | None:
    match error:
        case UsageError():
            return invalid("alias", str(error))
        case RegistryError():
            return Problem(409, "registry-refused", str(error))
    return None


def _time_ms(text: str) -> int:
    """Milliseconds of a time in ISO 8601, UTC unless it says."""
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # what a query makes of a zone's plus
    except ValueError:
        detail = f"at is {text[:60]!r}, must be a time such as 2026-11-26T08:30Z: correct it"
        raise invalid("at", detail) from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
