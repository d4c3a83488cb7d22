"""The bodies of `/v1`: what a client may send, and what it gets. Unknown keys of a request are refused.

Within /v1 keys are only ever added.
"""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from tastemaker.config import Strict
from tastemaker.types import MAX_ID_LENGTH

MAX_SESSION = 500
MAX_EXCLUDE = 5000
CONTEXT_KEYS = frozenset({"device", "country", "local_time", "page", "language"})
"""Context keys that every bundle knows; others are known where a bundle has such segments."""

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
Text = Annotated[str, Field(max_length=MAX_ID_LENGTH)]


class Filters(Strict):
    """Hard rules of one request: only items that meet all of them are recommended."""

    categories: tuple[Text, ...] = Field(
        (), max_length=100, description="the item's category is one of these"
    )
    tags: tuple[Text, ...] = Field((), max_length=100, description="the item has at least one of these")
    max_maturity: int | None = Field(
        None, ge=0, le=99, description="items for an older audience are left out; empty: none are"
    )


class RecommendationRequest(Strict):
    """Body of `POST /v1/recommendations`."""

    user_id: Id = Field(description="the customer's own id; an unknown one gets what is popular")
    k: int = Field(10, ge=1, description="length of the list")
    context: dict[Text, Text] = Field(
        {},
        max_length=32,
        description="device, country, local_time (ISO 8601), …; unknown keys are ignored",
    )
    session: tuple[Id, ...] = Field(
        (),
        max_length=MAX_SESSION,
        description="items of the visit so far, oldest first; unknown ones are ignored",
    )
    exclude: tuple[Id, ...] = Field(
        (), max_length=MAX_EXCLUDE, description="items that must not be recommended"
    )
    filters: Filters = Field(Filters(), description="hard rules")
    explain: bool = Field(False, description="add each source's own score to the items; needs scope explain")
    deadline_ms: float | None = Field(
        None, gt=0, le=60_000, description="time that the answer may take; empty takes the gateway's"
    )


class SimilarRequest(Strict):
    """Parameters of `GET /v1/items/similar`."""

    item_id: Id = Field(description="the customer's own id")
    k: int = Field(10, ge=1, description="length of the list")


class EraseRequest(Strict):
    """Parameters of `DELETE /v1/users`."""

    user_id: Id = Field(description="the customer's own id")


class EventsRequest(Strict):
    """Body of `POST /v1/events`. Rows are checked one by one: a bad one does not stop the others."""

    events: list[Any] = Field(min_length=1, description="events, each an object")


class Recommended(BaseModel):
    """One item of an answer."""

    item_id: str = Field(description="the customer's own id")
    score: float = Field(description="higher is better; comparable within one answer only")
    rank: int = Field(description="1 is the first")
    sources: list[str] = Field(description="what proposed the item")
    reason: str = Field(description="why, in one phrase")
    source_scores: dict[str, float] | None = Field(None, description="with `explain` only")


class RecommendationResponse(BaseModel):
    """An answer."""

    request_id: str = Field(description="send it with the events that answer this list")
    items: list[Recommended]
    experiment: str | None = Field(description="the experiment that the user takes part in")
    variant: str | None
    bundle: str = Field(description="id of the bundle that answered")
    bundle_version: int = Field(description="its version in the registry")
    degraded: list[str] = Field(description="fallbacks that were used; empty when all went well")
    cached: bool = Field(description="the list was made for an earlier request")
    cached_from: str | None = Field(description="that request's id")
    timings_ms: dict[str, float] = Field(description="time in each stage, and in total")


class Rejection(BaseModel):
    """A row that is no event."""

    position: int = Field(description="in the batch, from 0")
    event_id: str | None
    reason: str


class EventsResponse(BaseModel):
    """What became of a batch."""

    accepted: int
    duplicate: int = Field(description="already received, by event_id")
    spooled: int = Field(
        description="accepted ones on the gateway's disk: duplicates among them are found later"
    )
    rejected: int
    rejections: list[Rejection]


class ProblemResponse(BaseModel):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    errors: list[dict[str, str]] = []
