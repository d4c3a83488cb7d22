"""Bodies of requests as models, and of answers as bytes; a client's mistake is a problem that names the field."""

import json
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError

from tastemaker.config import Strict
from tastemaker.errors import DataError
from tastemaker.events.rows import Repeating, read_json
from tastemaker_services.problems import Problem, invalid, of_validation

MAX_BODY_BYTES = 4 * 2**20
M = TypeVar("M", bound=Strict)


def parameters(request: Request) -> dict[str, Any]:
    """The query's parameters as a body's keys; numbers are numbers there."""
    given: dict[str, Any] = dict(request.query_params)
    if "k" in given:
        try:
            given["k"] = int(given["k"])
        except ValueError:
            raise invalid("k", f"k is {given['k'][:60]!r}, must be a whole number: correct it") from None
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


def json_response(body: dict[str, Any], status: int = 200) -> Response:
    """An answer; what UTF-8 cannot hold is replaced."""
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(content, status, media_type="application/json")
