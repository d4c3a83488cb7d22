"""Which rows of `PUT /v1/users` are none, each with its reason: a bad row never stops its neighbours."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from tastemaker.events.row_faults import id_of, shape_fault, value_fault
from tastemaker.users.profile import MOST_BYTES, ProfileRow

_FIELDS: Final = frozenset(ProfileRow.model_fields)


class RejectedUser(NamedTuple):
    """A row that is no user: its position in the batch, its id where it has one, and why."""

    position: int
    user_id: str | None
    reason: str


def parse_users(rows: Iterable[Any]) -> tuple[list[ProfileRow], list[RejectedUser]]:
    """The users among `rows` (as read from JSON), in order, and the rows that are none.

    A user who stands twice in the batch is rejected at the second place.

    >>> good, bad = parse_users([{"user_id": "a", "personalise": False}, {"user_id": "b", "age": 3}, 7])
    >>> [row.user_id for row in good], [(row.position, row.reason[:25]) for row in bad]
    (['a'], [(1, 'age is no field of a user'), (2, 'the row is a int, must be')])
    """
    users: list[ProfileRow] = []
    rejected: list[RejectedUser] = []
    first_at: dict[str, int] = {}
    for position, row in enumerate(rows):
        if reason := shape_fault(row, _FIELDS, "a user"):
            rejected.append(RejectedUser(position, id_of(row, "user_id"), reason))
            continue
        try:
            user = ProfileRow.model_validate(row)
        except ValidationError as error:
            rejected.append(RejectedUser(position, id_of(row, "user_id"), value_fault(error)))
            continue
        if reason := _oversized(user) or _repeated(first_at.setdefault(user.user_id, position), position):
            rejected.append(RejectedUser(position, user.user_id, reason))
        else:
            users.append(user)
    return users, rejected


def _oversized(user: ProfileRow) -> str | None:
    for name, part in user.parts().items():
        if part is not None and (size := len(part.encode())) > MOST_BYTES:
            return f"{name} has {size} bytes, at most {MOST_BYTES} are allowed"
    return None


def _repeated(first: int, position: int) -> str | None:
    return None if first == position else f"user_id stands already at row {first} of this batch"
