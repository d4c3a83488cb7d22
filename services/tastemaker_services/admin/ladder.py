"""`/admin/v1/ladder`: what is forced, the breakers, the load and the rungs used, as of all gateways; and the kill switch."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from prometheus_client.metrics_core import Metric
from pydantic import Field

from tastemaker.errors import StateError, UsageError
from tastemaker.state import forced as state
from tastemaker.state.keys import Keys
from tastemaker.strict import Strict
from tastemaker_services.admin.answers import admin_answer
from tastemaker_services.gateway.breakers import State
from tastemaker_services.web.access import Access
from tastemaker_services.web.bodies import json_response, parse
from tastemaker_services.web.openapi import body_schema, problems
from tastemaker_services.web.problems import invalid

if TYPE_CHECKING:
    import redis

PATH: Final = "/admin/v1/ladder"
Metrics = Callable[[], Iterable[Metric]]
Work = Callable[[], Awaitable[dict[str, Any]]]


class ForceRequest(Strict):
    """Body of `PUT /admin/v1/ladder`."""

    rung: str = Field(description=f"one of {', '.join(state.RUNGS)}")
    seconds: float | None = Field(None, description="after which it ends by itself; empty: when released")


class LadderAdmin:
    """The routes of one catalogue.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        access: Who may.
        metrics: Gives the sums of all gateways' metrics.
    """

    def __init__(self, client: "redis.Redis", keys: Keys, access: Access, metrics: Metrics) -> None:
        self._client, self._keys, self._access, self._metrics = client, keys, access, metrics

    def add_to(self, admin: FastAPI) -> None:
        """Adds the routes."""
        asked = (401, 403, 503)
        admin.get(PATH, responses=problems(*asked))(self.show)
        written = problems(*asked, 400, 408, 413, 415, 422)
        admin.put(PATH, responses=written, openapi_extra=body_schema(ForceRequest))(self.force)
        admin.delete(PATH, responses=problems(*asked))(self.release)

    async def show(self, request: Request) -> Response:
        """What is forced, what the breakers say, and what requests got less than the whole graph."""
        return await self._answer(request, self._told)

    async def force(self, request: Request) -> Response:
        """Holds all answers to a rung."""

        async def work() -> dict[str, Any]:
            asked = await parse(request, ForceRequest)
            try:
                chosen = state.Forced.of(asked.rung, asked.seconds)
            except UsageError as error:
                raise invalid("rung" if error.what == "rung" else "seconds", str(error)) from error
            await asyncio.to_thread(state.force, self._client, self._keys, chosen)
            return await self._told()

        return await self._answer(request, work)

    async def release(self, request: Request) -> Response:
        """Lets answers use the whole graph again."""

        async def work() -> dict[str, Any]:
            await asyncio.to_thread(state.release, self._client, self._keys)
            return await self._told()

        return await self._answer(request, work)

    async def _told(self) -> dict[str, Any]:
        try:
            forced = await asyncio.to_thread(state.read_forced, self._client, self._keys)
            told: dict[str, Any] = {"forced": None if forced is None else asdict(forced)}
        except StateError as error:  # the rest is worth most at that very time
            told = {"forced": None, "forced_unknown": str(error)}
        return told | await asyncio.to_thread(lambda: standing(self._metrics(), self._keys.catalogue))

    async def _answer(self, request: Request, work: Work) -> Response:
        async def answer() -> Response:
            return json_response(await work())

        return await admin_answer(self._access, request, answer)


def standing(metrics: Iterable[Metric], catalogue: str) -> dict[str, Any]:
    """How a catalogue's ladder stands, by the gateways' metrics."""
    found: dict[str, Any] = {
        "breakers": {}, "opened": {}, "in_flight": {}, "limit": 0.0, "rungs_used": {}, "shed": {},
    }  # fmt: skip
    for sample in (sample for metric in metrics for sample in metric.samples):
        labels: Mapping[str, str] = sample.labels
        if labels.get("catalogue") != catalogue:
            continue
        match sample.name.removeprefix("tastemaker_gateway_"):
            case "breaker_state":
                found["breakers"][labels["part"]] = State(int(sample.value)).name.lower().replace("_", "-")
            case "breaker_opened_total":
                found["opened"][labels["part"]] = int(sample.value)
            case "in_flight":
                found["in_flight"][labels["kind"]] = int(sample.value)
            case "load_limit":
                found["limit"] = round(sample.value, 1)
            case "rungs_total":
                found["rungs_used"][labels["rung"]] = int(sample.value)
            case "shed_total":
                found["shed"].setdefault(labels["priority"], {})[labels["rung"]] = int(sample.value)
    return found
