"""What the gateway answers, as models. Keys that a newer gateway adds are ignored. Field by field: the gateway's `/docs`."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class Recommended(_Answer):
    """One item of a list."""

    item_id: str
    score: float = Field(description="higher is better; comparable within one answer only")
    rank: int = Field(description="1 is the first")
    sources: list[str]
    reason: str
    because: str | None = None
    source_scores: dict[str, float] | None = Field(None, description="with `explain` only")
    ranks: dict[str, int] | None = Field(None, description="with `explain` only")
    team: str | None = Field(None, description="with `explain` only: whose pick it is, of an interleaving")
    team_ranks: dict[str, int] | None = Field(None, description="with `explain` only, of an interleaving")
    features: dict[str, float] | None = Field(None, description="with `explain` only")


class Assigned(_Answer):
    """A variant that the request got."""

    layer: str
    experiment: str
    variant: str
    forced: bool = Field(description="a tester asked for it: the answer counts in no experiment")


class Recommendations(_Answer):
    """A list. Send its `request_id` with the events that answer it, and each item's position in it (`rank` - 1)."""

    request_id: str
    items: list[Recommended]
    experiment: str | None = None
    variant: str | None = None
    assignments: list[Assigned] = Field([], description="one for each layer of experiments")
    bundle: str
    bundle_version: int
    degraded: list[str] = Field(description="fallbacks that were used; empty when all went well")
    notes: list[str] = Field([], description="`nothing-fits` where filters and rules leave no item")
    forced: str | None = None
    cached: bool = False
    cached_from: str | None = None
    next_cursor: str | None = None
    timings_ms: dict[str, float]


class ScoreContributions(_Answer):
    """How the ranker came to a score: `base`, all `features` and `rest` add up to `log_odds`, of a click."""

    base: float
    features: dict[str, float]
    rest: float
    log_odds: float


class _Way(_Answer):
    """What becomes of an item in one list. Ranks count from 1."""

    verdict: str
    why: str
    rules: list[str]
    sources: list[dict[str, Any]]
    num_candidates: int
    stages: dict[str, dict[str, Any]]
    shown_rank: int | None = None
    features: dict[str, float]
    contributions: ScoreContributions | None = None


class ListExplanation(_Way):
    """What becomes of the item in one variant's own list, of an interleaving's two."""

    variant: str
    bundle: str


class Explanation(_Way):
    """Why an item is in a user's list, or why it is not. Ranks count from 1."""

    request_id: str
    item_id: str
    team: str | None = Field(None, description="whose pick it is, of an interleaving")
    lists: list[ListExplanation] = Field([], description="of an interleaving, both variants' own")
    record_age_ms: int | None = None
    personalised: bool
    experiment: str | None = None
    variant: str | None = None
    assignments: list[Assigned] = Field([], description="one for each layer of experiments")
    bundle: str
    bundle_version: int
    degraded: list[str]


class Rejected(_Answer):
    """A row that was not taken: its position among the rows of the call, and why."""

    position: int
    reason: str
    event_id: str | None = None
    item_id: str | None = None
    user_id: str | None = None


class EventsTaken(_Answer):
    """What became of events. `duplicate` are those that had come before, by a try whose answer was lost."""

    accepted: int
    duplicate: int
    spooled: int
    rejected: int
    rejections: list[Rejected]


class ItemsTaken(_Answer):
    """What became of put items."""

    accepted: int
    unchanged: int
    rejected: int
    rejections: list[Rejected]


class ItemDeleted(_Answer):
    """What became of a deletion: 0 where there was nothing to delete."""

    deleted: int


class UsersTaken(_Answer):
    """What became of put users."""

    accepted: int
    rejected: int
    rejections: list[Rejected]


class UserKept(BaseModel):
    """What is kept of a user: every key of the gateway's answer, see `docs/api.md`."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    user_id: str


class UsersMerged(_Answer):
    """What became of a merge."""

    into_user_id: str
    state: str


class ErasureNoted(_Answer):
    """That a user will be erased; `receipt` names what says when it is done."""

    receipt: str
    see: str


class Erasure(BaseModel):
    """How far an erasure is: `under way`, or `done` with what it removed among the other keys."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    state: str
