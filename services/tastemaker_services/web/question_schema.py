"""The bodies of the questions beside recommendations: what is like an item, what fits a text, and why an item is shown or not."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from tastemaker.ids import Id
from tastemaker.strict import Strict
from tastemaker_services.web.schema import MAX_EXCLUDE, Assigned, Filters, RecommendationRequest, Text

MAX_TEXT = 1000


class _Ruled(Strict):
    """What keeps items out of a list that is not made for its user."""

    k: int = Field(10, ge=1, description="length of the list")
    user_id: Id | None = Field(
        None, description="leaves out what this user took, disliked or hid; empty: nobody's past counts"
    )
    context: dict[Text, Text] = Field(
        {}, max_length=32, description="country decides where items have regions; other keys are ignored"
    )
    exclude: tuple[Id, ...] = Field((), max_length=MAX_EXCLUDE, description="items that must not be listed")
    filters: Filters = Field(Filters(), description="hard rules")


class SimilarRequest(_Ruled):
    """Body of `POST /v1/items/similar`, and parameters of its GET."""

    item_id: Id = Field(description="the customer's own id")


class SearchRequest(_Ruled):
    """Body of `POST /v1/search`, and parameters of its GET."""

    q: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] = Field(description="words, or a sentence")
    personal: float = Field(
        0.0, ge=0, le=1, description="share of the user's own taste in what is looked for; needs user_id"
    )


class ExplainRequest(RecommendationRequest):
    """Body of `POST /v1/explain`, and parameters of its GET: a request for recommendations, and an item."""

    item_id: Id = Field(description="the item that is asked about, the customer's own id")


class SourceSaid(BaseModel):
    """One source and the item."""

    source: str
    score: float | None = Field(description="empty: the source has nothing to say of the item")
    rank: int | None = Field(description="among what the source proposed, from 1; empty: it did not")
    num_proposed: int = Field(description="how many items the source proposed")
    weight: float = Field(description="of the source in the merged score")


class ScoreSaid(BaseModel):
    """How the ranker came to its score of the item: `base`, all `features` and `rest` add up to `log_odds`."""

    base: float = Field(
        description="mean of the candidates that the item was ranked among, in log-odds of a click"
    )
    features: dict[str, float] = Field(
        description="what each feature adds to that, the largest first; those that add nothing are left out"
    )
    rest: float = Field(description="left over by the numerical sum; of trees 0 but for rounding")
    log_odds: float = Field(
        description="of a click, calibrated: the score is 1 / (1 + exp(-log_odds)) where it is of clicks alone"
    )


class ListSaid(BaseModel):
    """What becomes of the item in one variant's own list, of two whose picks one list is to hold; fields as in the whole answer."""

    variant: str
    bundle: str
    verdict: str = Field(description="as of the whole answer, or not-in-bundle")
    why: str
    rules: list[str]
    sources: list[SourceSaid]
    num_candidates: int
    stages: dict[str, dict[str, Any]]
    shown_rank: int | None = Field(description="in this list")
    features: dict[str, float]
    contributions: ScoreSaid | None = None


class ExplainResponse(BaseModel):
    """What happens to one item. Ranks count from 1; empty where the item was not there."""

    request_id: str
    item_id: str
    verdict: str = Field(
        description="shown, hard-rule, not-proposed, below-num-candidates, behind-k, or unknown"
    )
    why: str = Field(description="the same as a sentence")
    rules: list[str] = Field(description="hard rules that keep the item out")
    sources: list[SourceSaid]
    num_candidates: int = Field(description="that went from retrieval to ranking")
    stages: dict[str, dict[str, Any]] = Field(
        description="rank and score after each stage; for an item that was no candidate, what the ranker would have said"
    )
    shown_rank: int | None = Field(description="in the list")
    team: str | None = Field(
        None,
        description="of an interleaving: the variant whose pick it is; empty: nobody's, or not in the list",
    )
    lists: list[ListSaid] = Field(
        [], description="of an interleaving: the same of both variants' own lists, the control's first"
    )
    features: dict[str, float] = Field(description="what the ranker reads of the item")
    contributions: ScoreSaid | None = Field(
        None, description="how the features make the ranker's score; empty: no ranker ranked the item"
    )
    record_age_ms: int | None = Field(description="since the newest event that is known of the user")
    personalised: bool
    experiment: str | None
    variant: str | None
    assignments: list[Assigned] = Field([], description="one for each layer of experiments")
    bundle: str
    bundle_version: int
    degraded: list[str] = Field(description="parts that did not answer: what they would say is missing here")
