"""What a client gets instead of an answer: problem+json (RFC 9457) that names the field.

Not for faults of our own parts, which the ladder of fallbacks hides.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.responses import Response

from tastemaker.ids import ID_PATTERN, ID_RULE

CONTENT_TYPE = "application/problem+json"
_REPR = reprlib.Repr()  # of a value of any size and depth
_REPR.maxstring = _REPR.maxother = 120


class Problem(Exception):  # noqa: N818 (the RFC's own word)
    """An answer that is an error.

    Args:
        status: HTTP status.
        kind: Last part of the problem's `type`, a stable word for programs.
        detail: What, value, limit and mend, for people.
        field: The field of the request that is at fault.
        errors: Every fault, where there may be several.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        field: str | None = None,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail, self.field = status, kind, detail, field
        self.errors, self.headers = list(errors), headers

    def body(self) -> dict[str, Any]:
        """The members of the JSON object."""
        members: dict[str, Any] = {
            "type": f"urn:tastemaker:problem:{self.kind}",
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        if self.field is not None:
            members["field"] = self.field
        if self.errors:
            members["errors"] = self.errors
        return members

    def response(self) -> Response:
        """The HTTP answer."""
        headers = dict(self.headers) if self.headers else None
        content = json.dumps(self.body(), ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        return Response(content, self.status, headers, media_type=CONTENT_TYPE)


def invalid(field: str, detail: str) -> Problem:
    """The request is well-formed and means nothing: 422."""
    return Problem(422, "invalid-request", detail, field=field, errors=[{"field": field, "detail": detail}])


def of_validation(error: ValidationError, model: type[BaseModel]) -> Problem:
    """What pydantic found: 400 where it is not JSON at all, else 422 with every fault."""
    found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        reason = found[0].get("ctx", {}).get("error", found[0]["msg"])
        return Problem(400, "malformed-json", f"the body is not JSON: {reason}", field="body")
    faults = [{"field": _path(fault), "detail": _sentence(fault, model)} for fault in found]
    first = faults[0]
    return Problem(422, "invalid-request", first["detail"], field=first["field"], errors=faults)


def _path(fault: ErrorDetails) -> str:
    return ".".join(printable(part) for part in fault["loc"]) or "body"


def _sentence(fault: ErrorDetails, model: type[BaseModel]) -> str:
    path = _path(fault)
    match fault["type"]:
        case "missing":
            return f"{path} is missing: add it"
        case "extra_forbidden":
            if len(fault["loc"]) == 1:
                return f"{path} is unknown, must be one of {', '.join(model.model_fields)}: remove it"
            return f"{path} is unknown: remove it"
        case "string_too_long" | "too_long":
            actual = fault["ctx"].get("actual_length") or len(str(fault["input"]))
            return f"{path} has length {actual}, must be at most {fault['ctx']['max_length']}: shorten it"
        case "string_pattern_mismatch" if fault["ctx"]["pattern"] == ID_PATTERN:
            return f"{path} is {_shown(fault['input'])}, must be {ID_RULE}: correct it"
        case _:
            return f"{path} is {_shown(fault['input'])}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _shown(value: Any) -> str:
    text = printable(_REPR.repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def printable(value: object) -> str:
    """Text that UTF-8 can carry, also where a client sent half a surrogate pair."""
    return str(value)[:120].encode(errors="replace").decode()
