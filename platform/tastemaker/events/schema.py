"""What an event is, and which rows of a batch are none, each with its reason. Not for imported tables."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from tastemaker.events.row_faults import id_of, shape_fault, value_fault
from tastemaker.ids import Id
from tastemaker.strict import Kept
from tastemaker.types import MAX_ID_LENGTH, MAX_LOGGED_POSITION, ORIGINS, EventKind, Origin

FUTURE_LIMIT_MS = 5 * 60_000
"""How far a client's clock may run ahead of ours."""
MAX_CONTEXT_KEYS = 32
VALUE_RANGES: dict[str, tuple[float, float]] = {"rating": (-1000.0, 1000.0), "watch": (0.0, 30 * 86_400.0)}
"""Lowest and highest `value` of a kind; other kinds take any amount from 0 to 1e12."""
_ANY_AMOUNT = (0.0, 1e12)
_NEEDS_VALUE = frozenset({"rating", "watch"})

Text = Annotated[str, Field(max_length=MAX_ID_LENGTH)]


KeptId = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
"""An id in the log: of a release that knew fewer rules, or of ours."""


class Event(Kept):
    """Something that a user did with an item, or that was shown to them."""

    event_id: KeptId = Field(description="chosen by the client; the same id again is a duplicate")
    user_id: KeptId = Field(description="the customer's own id")
    item_id: KeptId = Field(description="the customer's own id")
    kind: EventKind = Field(description="what happened")
    timestamp_ms: int = Field(ge=0, lt=2**63, description="when, in ms since 1970 UTC, by the client's clock")
    value: float | None = Field(
        None, allow_inf_nan=False, description="rating, seconds watched, or amount paid"
    )
    request_id: KeptId | None = Field(None, description="of the recommendation that this answers")
    position: int | None = Field(
        None, ge=0, le=MAX_LOGGED_POSITION, description="rank of the item in that recommendation, from 0"
    )
    context: dict[Text, Text] | None = Field(
        None, max_length=MAX_CONTEXT_KEYS, description="device, country, …"
    )
    origin: Origin = Field("live", description="live, simulator or replay: training takes live only")


class GivenEvent(Event):
    """An event as clients may send it: its ids follow `ids.Id`, and it has no other keys."""

    model_config = ConfigDict(extra="forbid")

    event_id: Id = Field(description="chosen by the client; the same id again is a duplicate")
    user_id: Id = Field(description="the customer's own id")
    item_id: Id = Field(description="the customer's own id")
    request_id: Id | None = Field(None, description="of the recommendation that this answers")


_FIELDS = frozenset(Event.model_fields)


class Rejected(NamedTuple):
    """A row that is no event: its position in the batch, its id where it has one, and why."""

    position: int
    event_id: str | None
    reason: str


def parse_events(
    rows: Iterable[Any], now_ms: int, origins: Sequence[str] = ORIGINS
) -> tuple[list[Event], list[Rejected]]:
    """The events among `rows` (as read from JSON), in order, and the rows that are none or of other `origins`.

    An `event_id` that stands twice in the batch is rejected at its second place.

    >>> good = {"event_id": "e1", "user_id": "u", "item_id": "i", "kind": "click", "timestamp_ms": 5}
    >>> events, rejected = parse_events([good, good | {"event_id": "e2", "kind": "glance"}, good], now_ms=9)
    >>> len(events), [r.position for r in rejected]
    (1, [1, 2])
    """
    events: list[Event] = []
    rejected: list[Rejected] = []
    first_at: dict[str, int] = {}
    validate = GivenEvent.__pydantic_validator__.validate_python
    for position, row in enumerate(rows):
        if reason := _shapeless(row):
            rejected.append(Rejected(position, id_of(row, "event_id"), reason))
            continue
        try:
            event: Event = validate(row)
        except ValidationError as error:
            rejected.append(Rejected(position, id_of(row, "event_id"), value_fault(error)))
            continue
        reason = (
            _foreign(event, origins)
            or broken_rule(event, now_ms)
            or _duplicate(first_at.setdefault(event.event_id, position), position)
        )
        if reason is None:
            events.append(event)
        else:
            rejected.append(Rejected(position, event.event_id, reason))
    return events, rejected


def broken_rule(event: Event, now_ms: int) -> str | None:
    """Why an event of the right types is none all the same; None where it is one.

    `now_ms` is the clock that its time may run ahead of by `FUTURE_LIMIT_MS`.
    """
    if event.timestamp_ms > now_ms + FUTURE_LIMIT_MS:
        ahead = (event.timestamp_ms - now_ms) / 1000
        return (
            f"timestamp_ms lies {ahead:.0f} s in the future, at most {FUTURE_LIMIT_MS // 1000} s are allowed"
        )
    if event.value is None:
        return f"value is missing: a {event.kind} needs one" if event.kind in _NEEDS_VALUE else None
    low, high = VALUE_RANGES.get(event.kind, _ANY_AMOUNT)
    if not low <= event.value <= high:
        return f"value of a {event.kind} is {event.value:g}, must be from {low:g} to {high:g}"
    return None


def _foreign(event: Event, origins: Sequence[str]) -> str | None:
    return None if event.origin in origins else f"origin {event.origin} needs a key with scope admin"


def _duplicate(first: int, position: int) -> str | None:
    return None if first == position else f"event_id stands already at row {first} of this batch"


def _shapeless(row: Any) -> str | None:
    """Why a row cannot be an event, whatever its fields hold; says so before anyone looks at all of a huge one."""
    if fault := shape_fault(row, _FIELDS, "an event"):
        return fault
    context = row.get("context")
    if isinstance(context, dict) and len(context) > MAX_CONTEXT_KEYS:
        return f"context has {len(context)} keys, at most {MAX_CONTEXT_KEYS} are allowed"
    return None
