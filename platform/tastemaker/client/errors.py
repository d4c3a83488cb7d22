"""What can go wrong between a client and the gateway, in one tree.

    ClientError
    ├── UnreachableError         no connection, or it broke
    │   └── LateError            no whole answer within the time
    ├── UnreadableAnswerError    an answer that is not the gateway's
    └── AnswerError              the gateway said no: status, kind, field, every fault
        ├── InvalidRequestError  400, 413, 415, 422
        ├── UnauthorizedError    401, 403
        ├── NotFoundError        404
        ├── ConflictError        409, 410
        ├── OverloadedError      429
        └── ServerError          5xx

None of them carries the API key.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from tastemaker.errors import TastemakerError

_URN = "urn:tastemaker:problem:"


class ClientError(TastemakerError):
    """A call that gave no answer. `num_attempts` says how often it was tried."""

    num_attempts = 1


class UnreachableError(ClientError):
    """There is no connection, or it broke before the answer was whole."""


class LateError(UnreachableError):
    """No whole answer came within the time that the call had."""


class UnreadableAnswerError(ClientError):
    """The answer is not what the gateway says: something else listens there, or another version."""


class AnswerError(ClientError):
    """The gateway refused.

    Args:
        status: HTTP status.
        detail: What is wrong and what to do about it.
        kind: A stable word for programs, such as `invalid-request`; empty where it came from elsewhere.
        field: The field of the request that is at fault, where one is.
        faults: Every field at fault, and why.
        retry_after_seconds: How long to wait, where the gateway says it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        field: str | None = None,
        faults: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail, self.kind, self.field = status, detail, kind, field
        self.faults, self.retry_after_seconds = dict(faults or {}), retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (
            type(self), self.status, self.detail, self.kind, self.field, self.faults, self.retry_after_seconds,
        )  # fmt: skip


def _again(
    made: type[AnswerError],
    status: int,
    detail: str,
    kind: str,
    field: str | None,
    faults: Mapping[str, str],
    retry_after_seconds: float | None,
) -> AnswerError:
    return made(
        status, detail, kind=kind, field=field, faults=faults, retry_after_seconds=retry_after_seconds
    )


class InvalidRequestError(AnswerError):
    """The request cannot be answered as it is; `field` names what to mend."""


class UnauthorizedError(AnswerError):
    """The API key is missing, unknown, or lacks the scope."""


class NotFoundError(AnswerError):
    """What is asked about is unknown."""


class ConflictError(AnswerError):
    """What is asked does not go with what is there: a cursor that is over, a bundle without text search."""


class OverloadedError(AnswerError):
    """Too much is under way; try again after `retry_after_seconds`."""


class ServerError(AnswerError):
    """The gateway cannot answer now."""


_BY_STATUS: Mapping[int, type[AnswerError]] = {
    400: InvalidRequestError, 401: UnauthorizedError, 403: UnauthorizedError, 404: NotFoundError,
    409: ConflictError, 410: ConflictError, 413: InvalidRequestError, 415: InvalidRequestError,
    422: InvalidRequestError, 429: OverloadedError,
}  # fmt: skip


def answer_error(status: int, body: bytes, retry_after: str | None = None) -> AnswerError:
    """The error of an answer that is none.

    >>> refusal = answer_error(422, b'{"type": "urn:tastemaker:problem:invalid-request", "detail": "k is 0", "field": "k"}')
    >>> type(refusal).__name__, refusal.kind, refusal.field, str(refusal)
    ('InvalidRequestError', 'invalid-request', 'k', '422: k is 0')
    """
    problem = _object(body)
    made = _BY_STATUS.get(status, ServerError if status >= 500 else AnswerError)
    faults = problem.get("errors")
    return made(
        status,
        str(problem.get("detail") or "no reason was given: look whether this is a Tastemaker gateway")[:2000],
        kind=str(problem.get("type", "")).removeprefix(_URN)[:100],
        field=problem["field"] if isinstance(problem.get("field"), str) else None,
        faults={
            str(fault.get("field")): str(fault.get("detail"))
            for fault in (faults if isinstance(faults, list) else ())
            if isinstance(fault, dict)
        },
        retry_after_seconds=seconds_of(retry_after),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds_of(retry_after: str | None, now: datetime | None = None) -> float | None:
    """What a `Retry-After` header says, in seconds from now; None where it says nothing that is understood.

    >>> seconds_of("3"), seconds_of("soon")
    (3.0, None)
    >>> seconds_of("Wed, 25 Nov 2026 10:00:05 GMT", datetime(2026, 11, 25, 10, tzinfo=UTC))
    5.0
    """
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        then = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())
