"""`/admin/v1/experiments` and `/admin/v1/holdout`: experiments are made, started, ramped and stopped without a restart.

Every write says who (the caller's key, and a name where the body gives one) and why; both stand in the experiment's history.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI, Request, Response
from pydantic import Field

from tastemaker.errors import ConfigError, ExperimentError, TastemakerError, UnknownExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.keys import Keys
from tastemaker.strict import Strict
from tastemaker_services.admin.answers import admin_answer
from tastemaker_services.web.access import Access
from tastemaker_services.web.bodies import json_response, parse
from tastemaker_services.web.openapi import body_schema, problems
from tastemaker_services.web.problems import Problem, invalid

if TYPE_CHECKING:
    import redis

PATH: Final = "/admin/v1/experiments"
HOLDOUT_PATH: Final = "/admin/v1/holdout"
_KEY_DIGITS: Final = 8
_READ: Final = (401, 403, 503)
_WRITTEN: Final = (400, 401, 403, 408, 409, 413, 415, 422, 503)
Work = Callable[[str], Awaitable[dict[str, Any]]]


class Write(Strict):
    """What every body may say."""

    actor: str = Field("", max_length=100, description="who asks, beside the key")
    reason: str = Field("", max_length=2000, description="why; kept in the history")


class CreateRequest(Write):
    """Body of `POST /admin/v1/experiments`."""

    definition: dict[str, Any] = Field(description="the experiment, as in a file")
    start: bool = Field(False, description="start it at once, or not keep it where it cannot")


class EditRequest(Write):
    """Body of `PUT /admin/v1/experiments/{name}`."""

    definition: dict[str, Any] = Field(description="the whole experiment, as in a file")
    reassign: bool = Field(False, description="let units that were assigned get something else")


class StartRequest(Write):
    """Body of `POST /admin/v1/experiments/{name}/start`."""

    reassign: bool = Field(False, description="take other units, where others have its own by now")


class RampRequest(Write):
    """Body of `POST /admin/v1/experiments/{name}/ramp`."""

    traffic: float | None = Field(None, description="share of the layer's units, in place of steps to come")
    weights: list[float] | None = Field(None, description="of a fixed split")
    reassign: bool = Field(False, description="let units that were assigned get something else")


class HoldoutRequest(Write):
    """Body of `PUT /admin/v1/holdout`."""

    share: float = Field(description="of all users, 0 to 0.5")
    salt: str = Field("holdout", description="another salt takes other users")
    reassign: bool = Field(False, description="though experiments run")


class ExperimentAdmin:
    """The routes of one catalogue.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        access: Who may.
    """

    def __init__(self, client: "redis.Redis", keys: Keys, access: Access) -> None:
        self._store, self._holdout = ExperimentStore(client, keys), HoldoutStore(client, keys)
        self._access = access

    def add_to(self, admin: FastAPI) -> None:
        """Adds the routes."""
        one, found, refused = PATH + "/{name}", problems(*_READ, 404), problems(*_WRITTEN, 404)
        admin.get(PATH, responses=problems(*_READ))(self.list)
        written: dict[str, Any] = {"status_code": 201, "responses": problems(*_WRITTEN)}
        admin.post(PATH, openapi_extra=body_schema(CreateRequest), **written)(self.create)
        admin.get(one, responses=found)(self.show)
        admin.put(one, responses=refused, openapi_extra=body_schema(EditRequest))(self.edit)
        admin.delete(one, responses=problems(*_READ, 404, 409))(self.delete)
        admin.get(one + "/history", responses=found)(self.history)
        admin.post(one + "/start", responses=refused, openapi_extra=body_schema(StartRequest))(self.start)
        admin.post(one + "/stop", responses=refused, openapi_extra=body_schema(Write))(self.stop)
        admin.post(one + "/ramp", responses=refused, openapi_extra=body_schema(RampRequest))(self.ramp)
        admin.get(HOLDOUT_PATH, responses=problems(*_READ))(self.show_holdout)
        share = body_schema(HoldoutRequest)
        admin.put(HOLDOUT_PATH, responses=problems(*_WRITTEN), openapi_extra=share)(self.put_holdout)

    async def list(self, request: Request) -> Response:
        """All experiments: drafts, running and stopped."""

        async def work(_: str) -> dict[str, Any]:
            found = await asyncio.to_thread(self._store.list)
            return {"experiments": [one.model_dump(mode="json") for one in found]}

        return await self._answer(request, work)

    async def show(self, request: Request, name: str) -> Response:
        """One experiment."""

        async def work(_: str) -> dict[str, Any]:
            return shown(await asyncio.to_thread(self._store.get, name))

        return await self._answer(request, work)

    async def history(self, request: Request, name: str) -> Response:
        """All its changes, the oldest first."""

        async def work(_: str) -> dict[str, Any]:
            found = await asyncio.to_thread(self._store.history, name)
            if not found:
                await asyncio.to_thread(self._store.get, name)
            return {"changes": [change.model_dump(mode="json") for change in found]}

        return await self._answer(request, work)

    async def create(self, request: Request) -> Response:
        """Keeps an experiment as a draft, or starts it at once."""

        async def work(caller: str) -> dict[str, Any]:
            asked = await parse(request, CreateRequest)
            definition = asked.definition | {"state": "running" if asked.start else "draft"}
            experiment = Experiment.parse(definition, "definition")
            return shown(await self._write(self._store.create, caller, asked, experiment))

        return await self._answer(request, work, status=201)

    async def edit(self, request: Request, name: str) -> Response:
        """Replaces the definition."""

        async def work(caller: str) -> dict[str, Any]:
            asked = await parse(request, EditRequest)
            experiment = Experiment.parse({"name": name} | asked.definition, "definition")
            if experiment.name != name:
                raise invalid(
                    "definition.name", f"definition.name is {experiment.name!r}, must be {name!r}: correct it"
                )
            kept = await self._write(self._store.edit, caller, asked, experiment, reassign=asked.reassign)
            return shown(kept)

        return await self._answer(request, work)

    async def start(self, request: Request, name: str) -> Response:
        """Lets it assign units."""

        async def work(caller: str) -> dict[str, Any]:
            asked = await parse(request, StartRequest)
            return shown(await self._write(self._store.start, caller, asked, name, reassign=asked.reassign))

        return await self._answer(request, work)

    async def stop(self, request: Request, name: str) -> Response:
        """Ends assignment."""

        async def work(caller: str) -> dict[str, Any]:
            return shown(await self._write(self._store.stop, caller, await parse(request, Write), name))

        return await self._answer(request, work)

    async def ramp(self, request: Request, name: str) -> Response:
        """Sets its traffic or weights."""

        async def work(caller: str) -> dict[str, Any]:
            asked = await parse(request, RampRequest)
            if asked.traffic is None and asked.weights is None:
                raise invalid("traffic", "traffic and weights are missing: give one of them")
            more = asked.model_dump(include={"traffic", "weights", "reassign"})
            return shown(await self._write(self._store.ramp, caller, asked, name, **more))

        return await self._answer(request, work)

    async def delete(self, request: Request, name: str) -> Response:
        """Removes a draft."""

        async def work(caller: str) -> dict[str, Any]:
            await asyncio.to_thread(self._store.delete, name, actor=caller)
            return {"deleted": name}

        return await self._answer(request, work)

    async def show_holdout(self, request: Request) -> Response:
        """Who is in no experiment, and how that changed."""

        async def work(_: str) -> dict[str, Any]:
            return await asyncio.to_thread(self._told_holdout)

        return await self._answer(request, work)

    async def put_holdout(self, request: Request) -> Response:
        """Sets it."""

        async def work(caller: str) -> dict[str, Any]:
            asked = await parse(request, HoldoutRequest)
            wanted = Holdout.parse(asked.model_dump(include={"share", "salt"}), "holdout")
            await self._write(self._holdout.put, caller, asked, wanted, reassign=asked.reassign)
            return await asyncio.to_thread(self._told_holdout)

        return await self._answer(request, work)

    def _told_holdout(self) -> dict[str, Any]:
        changes = [change.model_dump(mode="json") for change in self._holdout.history()]
        return {"holdout": self._holdout.get().model_dump(mode="json"), "changes": changes}

    async def _write(
        self, write: Callable[..., Any], caller: str, asked: Write, *arguments: Any, **more: Any
    ) -> Any:
        actor = f"{asked.actor} ({caller})" if asked.actor else caller
        return await asyncio.to_thread(write, *arguments, actor=actor, reason=asked.reason, **more)

    async def _answer(self, request: Request, work: Work, status: int = 200) -> Response:
        async def answer() -> Response:
            return json_response(await work(caller_of(request.headers.get("authorization"))), status)

        return await admin_answer(self._access, request, answer, _told)


def _told(error: TastemakerError) -> Problem | None:
    match error:
        case UnknownExperimentError():
            return Problem(404, "unknown-experiment", str(error), field="name")
        case ExperimentError():
            return Problem(409, "experiment-refused", str(error))
        case ConfigError():
            return invalid("definition", str(error))
    return None


def shown(experiment: Experiment) -> dict[str, Any]:
    """An experiment as it is told, with the share of traffic that it has now."""
    now_ms = time.time_ns() // 1_000_000
    open_now = experiment.is_open(now_ms)
    told = {"open": open_now, "traffic_now": experiment.traffic_at(now_ms) if open_now else 0.0}
    return {"experiment": experiment.model_dump(mode="json"), **told}


def caller_of(authorization: str | None) -> str:
    """Names a key by the first digits of its SHA-256, as the configuration has it; without one, the machine.

    >>> caller_of("Bearer k"), caller_of(None)
    ('key 8254c329', 'loopback')
    """
    key = (authorization or "").partition(" ")[2].strip()
    if not key:
        return "loopback"
    return f"key {hashlib.sha256(key.encode(errors='replace')).hexdigest()[:_KEY_DIGITS]}"
