"""The bodies of `/v1`: what a client may send, and what it gets. Unknown keys of a request are refused.

Within /v1 keys are only ever added.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from tastemaker.ids import Id
from tastemaker.strict import Strict
from tastemaker.types import MAX_ID_LENGTH

MAX_SESSION = 500
MAX_EXCLUDE = 10_000
CONTEXT_KEYS = frozenset({"device", "country", "local_time", "page", "language", "location"})
"""Context keys that every bundle knows; others are known where a bundle has such segments."""

Priority = Literal["interactive", "batch", "background"]
"""Highest first; the last is of simulated and replayed requests."""
Text = Annotated[str, Field(max_length=MAX_ID_LENGTH)]
Cursor = Annotated[str, Field(min_length=1, max_length=64)]


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
        description="device, country, local_time (ISO 8601), location (52.52,13.41), …; unknown keys are ignored",
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
    explain: bool = Field(
        False,
        description="add to each item its sources' scores, its rank after each stage and telling features; needs scope explain",
    )
    personalise: bool = Field(
        True,
        description="false: nothing that is kept of the user is read, nor the session; as for who opted out",
    )
    paged: bool = Field(
        False,
        description="make a long list once, answer its first k items, and give a cursor to those behind",
    )
    cursor: Cursor | None = Field(
        None,
        description="`next_cursor` of an earlier answer: the next k items of that list; goes with user_id and k",
    )
    deadline_ms: float | None = Field(
        None, gt=0, le=60_000, description="time that the answer may take; empty takes the gateway's"
    )
    priority: Literal["interactive", "batch"] = Field(
        "interactive",
        description="batch, for prefetching and mails, gives way first where there is much load",
    )
    visitor_id: Id | None = Field(
        None, description="what stays when a visitor logs in or out, for experiments whose unit is that"
    )
    session_id: Id | None = Field(None, description="of the visit, for experiments whose unit is that")


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
    because: str | None = Field(
        None, description="the item of the user's past or visit that speaks most for this one, where any does"
    )
    source_scores: dict[str, float] | None = Field(None, description="with `explain` only")
    ranks: dict[str, int] | None = Field(
        None, description="with `explain` only: the rank after each stage that answered"
    )
    team: str | None = Field(
        None,
        description="with `explain` only, of an interleaving: the variant whose pick it is; empty: nobody's",
    )
    team_ranks: dict[str, int] | None = Field(
        None, description="with `explain` only, of an interleaving: the rank in each variant's own list"
    )
    features: dict[str, float] | None = Field(
        None,
        description="with `explain` only: of what the ranker read, the values furthest from the list's mean",
    )


class Assigned(BaseModel):
    """A variant that a request got."""

    layer: str
    experiment: str
    variant: str
    forced: bool = Field(description="a tester asked for it: the answer counts in no experiment")


class RecommendationResponse(BaseModel):
    """An answer."""

    request_id: str = Field(description="send it with the events that answer this list")
    items: list[Recommended]
    experiment: str | None = Field(description="the experiment that the user takes part in")
    variant: str | None
    assignments: list[Assigned] = Field(
        [], description="one for each layer of experiments that the request takes part in"
    )
    bundle: str = Field(description="id of the bundle that answered")
    bundle_version: int = Field(description="its version in the registry")
    degraded: list[str] = Field(description="fallbacks that were used; empty when all went well")
    notes: list[str] = Field(
        [],
        description="what the client should know of the list: nothing-fits where filters, exclusions and rules leave none",
    )
    forced: str | None = Field(
        None, description="the rung that the operators hold all answers to; empty: none"
    )
    cached: bool = Field(description="the list was made for an earlier request")
    cached_from: str | None = Field(description="that request's id")
    next_cursor: str | None = Field(
        None, description="of a paged list: send it for the next items; empty at the end"
    )
    timings_ms: dict[str, float] = Field(
        description="time in each stage as the gateway sees it, and in total; NAME_work: of it, what the stage's own process took"
    )


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


class EraseResponse(BaseModel):
    """That an erasure was noted."""

    receipt: str = Field(description="its name")
    see: str = Field(description="path of what says how far it is")


class ErasureResponse(BaseModel):
    """How far an erasure is; beside `state` and `receipt` only when it is done."""

    state: str = Field(description="under way, or done")
    receipt: str
    catalogue: str | None = None
    user_sha256: str | None = Field(None, description="of the id, which is not kept")
    done: str | None = Field(None, description="when, UTC")
    removed: dict[str, int] | None = Field(None, description="number of records by kind")
    bundles: list[int] | None = Field(None, description="versions that may have learned of the user")


class UserResponse(BaseModel):
    """What is kept of a user."""

    user_id: str
    profile: dict[str, Any] = Field(description="demographics, location, answers, whether lists are personal")
    history: list[str] = Field(description="items that were taken, the newest last")
    merged_into: str | None = Field(None, description="who the user is by now, where that is another")
    refused: list[str] | None = Field(None, description="items that were disliked or hidden")
    last_event_ms: int | None = Field(None, description="time of the newest event, ms since 1970 UTC")


class ProblemResponse(BaseModel):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    errors: list[dict[str, str]] = []
