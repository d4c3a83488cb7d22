"""What can be asked of a gateway, each as a `Call` that nobody has sent yet. Both clients send the same ones.

Ids go in bodies where the gateway allows it: addresses end up in access logs.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import tastemaker.client.answers as said
from tastemaker.client.errors import InvalidRequestError, UnreadableAnswerError

MAX_BATCH: Final = 1000
"""Rows in one request: the gateway's `gateway.max_batch` where nobody changed it."""
MAX_BATCH_BYTES: Final = 3 * 2**20
"""Of one request's rows; the gateway refuses bodies over 4 MiB."""

AnswerT = TypeVar("AnswerT", bound=BaseModel)
EventKind = Literal[
    "impression", "view", "click", "like", "purchase", "rating", "watch", "skip", "dislike", "hide"
]


class RuleOptions(TypedDict, total=False):
    """What keeps items out of a list."""

    user_id: str
    context: Mapping[str, str]
    exclude: Sequence[str]
    filters: Mapping[str, Any]


class SearchOptions(RuleOptions, total=False):
    """The same, and how much the user's own taste counts."""

    personal: float


class RecommendOptions(TypedDict, total=False):
    """What a request for recommendations may say beside user and number."""

    context: Mapping[str, str]
    session: Sequence[str]
    exclude: Sequence[str]
    filters: Mapping[str, Any]
    explain: bool
    personalise: bool
    paged: bool
    cursor: str
    deadline_ms: float
    priority: Literal["interactive", "batch"]
    visitor_id: str
    session_id: str


class Event(BaseModel):
    """Something that a user did with an item, or that was shown to them.

    Its id is made here, once: sent again, by us or by you, the event counts once. Keep the object, or its id, to send it again.

    >>> Event("u7", "50", "rating", value=4.0).event_id != Event("u7", "50", "rating", value=4.0).event_id
    True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    user_id: str
    item_id: str
    kind: EventKind
    value: float | None = Field(None, description="rating, seconds watched, or amount paid")
    request_id: str | None = Field(None, description="of the list that this answers")
    position: int | None = Field(None, description="of the item in that list, from 0: its rank - 1")
    context: dict[str, str] | None = None
    origin: Literal["live", "simulator", "replay"] | None = Field(
        None, description="needs scope admin; empty: live"
    )
    timestamp_ms: int = Field(
        default_factory=lambda: time.time_ns() // 1_000_000, description="ms since 1970 UTC"
    )
    event_id: str = Field(default_factory=lambda: uuid.uuid4().hex)

    def __init__(self, user_id: str, item_id: str, kind: str, **more: Any) -> None:
        super().__init__(user_id=user_id, item_id=item_id, kind=kind, **more)


@dataclass(frozen=True, slots=True)
class Call(Generic[AnswerT]):
    """One request, and what its answer is.

    Args:
        method: Of HTTP.
        path: Below the gateway's address.
        answer: What a body of the answer is read as.
        query: Parameters of the address.
        body: Keys of the JSON body; None sends none.
    """

    method: str
    path: str
    answer: type[AnswerT]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None

    def content(self) -> bytes | None:
        """The body's bytes.

        Raises:
            InvalidRequestError: JSON or UTF-8 cannot hold it: NaN, half of a surrogate pair, an object of another type.
        """
        if self.body is None:
            return None
        try:
            return json.dumps(self.body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequestError(
                422, f"the body cannot be sent: {error}", kind="invalid-request", field="body"
            ) from error

    def read(self, body: bytes) -> AnswerT:
        """The answer that a body says.

        Raises:
            UnreadableAnswerError: It says none.
        """
        try:
            return self.answer.model_validate_json(body)
        except ValidationError as error:
            raise UnreadableAnswerError(
                f"the answer of {self.method} {self.path}", value=body[:80].decode(errors="replace"),
                limit=f"of type {self.answer.__name__}", mend="look whether a Tastemaker gateway listens there",
            ) from error  # fmt: skip


def recommend(user_id: str, k: int | None, options: Mapping[str, Any]) -> Call[said.Recommendations]:
    """`POST /v1/recommendations`."""
    body = {"user_id": user_id} | _k(k) | _listed(options)
    return Call("POST", "/v1/recommendations", said.Recommendations, body=body)


def similar(item_id: str, k: int | None, options: Mapping[str, Any]) -> Call[said.Recommendations]:
    """`POST /v1/items/similar`."""
    body = {"item_id": item_id} | _k(k) | _listed(options)
    return Call("POST", "/v1/items/similar", said.Recommendations, body=body)


def search(text: str, k: int | None, options: Mapping[str, Any]) -> Call[said.Recommendations]:
    """`POST /v1/search`."""
    return Call("POST", "/v1/search", said.Recommendations, body={"q": text} | _k(k) | _listed(options))


def explain(user_id: str, item_id: str, k: int | None, options: Mapping[str, Any]) -> Call[said.Explanation]:
    """`POST /v1/explain`."""
    body = {"user_id": user_id, "item_id": item_id} | _k(k) | _listed(options)
    return Call("POST", "/v1/explain", said.Explanation, body=body)


def send_events(events: Sequence[Event]) -> Call[said.EventsTaken]:
    """`POST /v1/events`."""
    rows = [event.model_dump(exclude_none=True) for event in events]
    return Call("POST", "/v1/events", said.EventsTaken, body={"events": rows})


def put_items(items: Sequence[Mapping[str, Any]]) -> Call[said.ItemsTaken]:
    """`PUT /v1/items`."""
    return Call("PUT", "/v1/items", said.ItemsTaken, body={"items": list(items)})


def delete_item(item_id: str) -> Call[said.ItemDeleted]:
    """`DELETE /v1/items`."""
    return Call("DELETE", "/v1/items", said.ItemDeleted, {"item_id": item_id})


def put_users(users: Sequence[Mapping[str, Any]]) -> Call[said.UsersTaken]:
    """`PUT /v1/users`."""
    return Call("PUT", "/v1/users", said.UsersTaken, body={"users": list(users)})


def user(user_id: str) -> Call[said.UserKept]:
    """`GET /v1/users`."""
    return Call("GET", "/v1/users", said.UserKept, {"user_id": user_id})


def merge_users(from_user_id: str, into_user_id: str) -> Call[said.UsersMerged]:
    """`POST /v1/users/merge`."""
    body = {"from_user_id": from_user_id, "into_user_id": into_user_id}
    return Call("POST", "/v1/users/merge", said.UsersMerged, body=body)


def erase_user(user_id: str) -> Call[said.ErasureNoted]:
    """`DELETE /v1/users`."""
    return Call("DELETE", "/v1/users", said.ErasureNoted, {"user_id": user_id})


def erasure(receipt: str) -> Call[said.Erasure]:
    """`GET /v1/erasures/{receipt}`."""
    return Call("GET", f"/v1/erasures/{quote(receipt, safe='')}", said.Erasure)


RowT = TypeVar("RowT", Event, Mapping[str, Any])
TakenT = TypeVar("TakenT", said.EventsTaken, said.ItemsTaken, said.UsersTaken)


def batches(
    rows: Sequence[RowT], most: int = MAX_BATCH, most_bytes: int = MAX_BATCH_BYTES
) -> Iterator[Sequence[RowT]]:
    """The rows in order, cut such that the gateway takes each part; a row that is too large alone stays alone.

    >>> [len(part) for part in batches([{"item_id": str(n)} for n in range(5)], most=2)]
    [2, 2, 1]
    """
    part: list[RowT] = []
    num_bytes = 0
    for row in rows:
        size = _size(row)
        if part and (len(part) == most or num_bytes + size > most_bytes):
            yield part
            part, num_bytes = [], 0
        part.append(row)
        num_bytes += size
    if part:
        yield part


def together(parts: Sequence[TakenT], sizes: Sequence[int], empty: TakenT) -> TakenT:
    """What became of all parts: counts summed, positions those among all rows; `empty` where there are no parts."""
    if not parts:
        return empty
    rejections, first = [], 0
    for part, size in zip(parts, sizes, strict=True):
        rejections += [row.model_copy(update={"position": row.position + first}) for row in part.rejections]
        first += size
    counts = [name for name in type(empty).model_fields if name != "rejections"]
    summed = {name: sum(getattr(part, name) for part in parts) for name in counts}
    return empty.model_copy(update=summed | {"rejections": rejections})


NO_EVENTS: Final = said.EventsTaken(accepted=0, duplicate=0, spooled=0, rejected=0, rejections=[])
NO_ITEMS: Final = said.ItemsTaken(accepted=0, unchanged=0, rejected=0, rejections=[])
NO_USERS: Final = said.UsersTaken(accepted=0, rejected=0, rejections=[])


def _size(row: Event | Mapping[str, Any]) -> int:
    """An estimate from above of the bytes that a row takes."""
    if isinstance(row, Event):
        return len(row.model_dump_json(exclude_none=True)) * 4
    try:
        return len(json.dumps(row, ensure_ascii=False)) * 4
    except (TypeError, ValueError, RecursionError):
        return 0  # it cannot be sent: `Call.content` says why


def _k(k: int | None) -> dict[str, int]:
    return {} if k is None else {"k": k}


def _listed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON takes them: sequences are lists."""
    return {
        key: list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else value
        for key, value in options.items()
    }
