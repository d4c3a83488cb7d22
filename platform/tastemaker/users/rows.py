"""Which rows of `PUT /v1/users` are none, each with its reason: a bad row never stops its neighbours."""

import reprlib
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from tastemaker.events.rows import Repeating
from tastemaker.types import MAX_ID_LENGTH
from tastemaker.users.profile import MOST_BYTES, ProfileRow

_FIELDS: Final = frozenset(ProfileRow.model_fields)
_REPR = reprlib.Repr()  # whatever a client nests or lengthens, a look at it stays short
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 120


class RejectedUser(NamedTuple):
    """A row that is no user: its position in the batch, its id where it has one, and why."""

    position: int
    user_id: str | None
    reason: str


def parse_users(rows: Iterable[Any]) -> tuple[list[ProfileRow], list[RejectedUser]]:
    """The users among `rows` (as read from JSON), in order, and the rows that are none.

    A user who stands twice in the batch is rejected at the second place.

    >>> good, bad = parse_users([{"user_id": "a", "personalise": False}, {"user_id": "b", "age": 3}, 7])
    >>> [row.user_id for row in good], [(row.position, row.reason) for row in bad]
    (['a'], [(1, 'age is no field of a user'), (2, 'the row is a int, must be an object')])
    """
    users: list[ProfileRow] = []
    rejected: list[RejectedUser] = []
    first_at: dict[str, int] = {}
    for position, row in enumerate(rows):
        if reason := _shapeless(row):
            rejected.append(RejectedUser(position, _id_of(row), reason))
            continue
        try:
            user = ProfileRow.model_validate(row)
        except ValidationError as error:
            rejected.append(RejectedUser(position, _id_of(row), _reason(error)))
            continue
        if reason := _oversized(user) or _repeated(first_at.setdefault(user.user_id, position), position):
            rejected.append(RejectedUser(position, user.user_id, reason))
        else:
            users.append(user)
    return users, rejected


def _shapeless(row: Any) -> str | None:
    if not isinstance(row, dict):
        shown = str(row) if isinstance(row, Repeating) else f"a {type(row).__name__}"
        return f"the row is {shown}, must be an object"
    unknown = next((key for key in row if key not in _FIELDS), None)
    return None if unknown is None else f"{_printable(unknown)} is no field of a user"


def _oversized(user: ProfileRow) -> str | None:
    for name, part in user.parts().items():
        if part is not None and (size := len(part.encode())) > MOST_BYTES:
            return f"{name} has {size} bytes, at most {MOST_BYTES} are allowed"
    return None


def _repeated(first: int, position: int) -> str | None:
    return None if first == position else f"user_id stands already at row {first} of this batch"


def _id_of(row: Any) -> str | None:
    user_id = row.get("user_id") if isinstance(row, dict) else None
    return _printable(user_id[:MAX_ID_LENGTH]) if isinstance(user_id, str) else None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    key = _printable(".".join(str(part) for part in first["loc"])[:80]) or "a field"
    match first["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"{key} is unknown"
        case _:
            return f"{key} is {_short(first['input'])}: {first['msg']}"


def _printable(text: str) -> str:
    return text.encode(errors="replace").decode()


def _short(value: Any) -> str:
    text = _REPR.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 60 else f"{text[:57]}..."
