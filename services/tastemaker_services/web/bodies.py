"""Bodies of requests as models, and of answers as bytes; a client's mistake is a problem that names the field."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from tastemaker.errors import DataError
from tastemaker.events.rows import Repeating, read_json
from tastemaker.features.context import LOCAL_TIME, local_time_ms
from tastemaker.features.places import CONTEXT_LOCATION, place_of
from tastemaker.strict import Strict
from tastemaker_services.web.problems import Problem, invalid, of_validation, printable

SWITCHES: Final = frozenset({"paged", "personalise", "explain"})
"""Parameters that are true or false."""
_TRUTH: Final = {"true": True, "false": False}
MAX_BODY_BYTES = 4 * 2**20
BODY_SECONDS = 10.0
"""From a request's head to the end of its body: a client that trickles holds a connection no longer."""
M = TypeVar("M", bound=Strict)


def query(request: Request) -> dict[str, Any]:
    """The query's parameters; Problem where one stands there twice."""
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in given:
            shown = printable(name) or "a parameter without a name"
            raise invalid(shown, f"{shown} is given twice: give it once")
        given[name] = value
    return given


def parameters(request: Request) -> dict[str, Any]:
    """The same as a body's keys: numbers are numbers there, and what is true or false is so."""
    given = query(request)
    if "k" in given:
        try:
            given["k"] = int(given["k"])
        except ValueError:
            raise invalid("k", f"k is {given['k'][:60]!r}, must be a whole number: correct it") from None
    for name in SWITCHES & given.keys():
        if given[name] not in _TRUTH:
            shown = printable(given[name])
            raise invalid(name, f"{name} is {shown[:60]!r}, must be true or false: correct it")
        given[name] = _TRUTH[given[name]]
    return given


async def parse(request: Request, model: type[M]) -> M:
    """The body as a `model`; Problem where it is none."""
    body = await _read(request)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise of_validation(error, model) from error


async def read_body(request: Request) -> Any:
    """What the body says, where a fault of one row must stay with that row: see `rows`."""
    try:
        return read_json(await _read(request))
    except DataError as error:
        raise Problem(400, "malformed-json", str(error), field="body") from error


def mapping(body: Any) -> dict[str, Any]:
    """A body that must be an object; Problem where it is none."""
    if not isinstance(body, dict):
        raise invalid(
            "body", f"the body is {_name(body)}, must be an object: see /docs of the admin listener"
        )
    return body


def _name(value: Any) -> str:
    return str(value) if isinstance(value, Repeating) else f"a {type(value).__name__}"


async def _read(request: Request) -> bytes:
    """The body, refused as soon as it is too large: a client's word on its length is not trusted."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = f"content-type is {kind[:60]!r}, must be application/json: set the header"
        raise Problem(415, "unsupported-media-type", detail, field="content-type")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _whole(request)
    except TimeoutError as error:
        detail = f"the body took over {BODY_SECONDS:g} seconds: send it at once"
        raise Problem(408, "body-too-slow", detail, field="body", headers={"connection": "close"}) from error
    except ClientDisconnect as error:
        detail = "the connection ended before the body did: send it anew"
        raise Problem(400, "body-incomplete", detail, field="body") from error


async def _whole(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            detail = f"the body is over {MAX_BODY_BYTES} bytes: split it"
            raise Problem(413, "too-large", detail, field="body")
        parts.append(part)
    return b"".join(parts)


def validate(model: type[M], given: dict[str, Any]) -> M:
    """A `model` of what was given; Problem where it is none."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise of_validation(error, model) from error


def check_context(context: Mapping[str, str]) -> None:
    """Problem where the context says a time that is none, or a place that is nowhere."""
    if LOCAL_TIME in context:
        try:
            local_time_ms(context[LOCAL_TIME])
        except DataError as error:
            raise invalid(f"context.{LOCAL_TIME}", f"context.{error}") from error
    try:
        place_of(context)
    except DataError as error:
        raise invalid(f"context.{CONTEXT_LOCATION}", f"context.{error}") from error


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    """An answer; what UTF-8 cannot hold is replaced."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(content, status, media_type="application/json")
