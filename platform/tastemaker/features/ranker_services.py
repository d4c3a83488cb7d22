"""Which of Feast's views a ranker's features come from: a released ranker's feature service. Not Feast's objects (`feast_repo`)."""

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import Field

from tastemaker.features.request_features import CROSSES, DISTANCE, chosen
from tastemaker.features.views import VIEWS
from tastemaker.strict import Strict

_OF_CROSSES: Final[Mapping[str, tuple[str, ...]]] = {
    **dict.fromkeys(("taste_weight", "taste_share", "taste_strongest", "novelty"), ("user_taste", "item_attributes")),
    **dict.fromkeys(("session_share", "in_session"), ("user_session", "item_attributes")),
    "taste_times_popularity": ("user_taste", "item_attributes", "item_popularity"),
    "popularity_among_candidates": ("item_popularity",),
    "times_shown": (),  # of the user's record alone
    "refused": (),
}  # fmt: skip
_OF_OTHERS: Final[Mapping[str, tuple[str, ...]]] = {
    "item_growth": ("item_popularity",),
    "item_age_days": ("item_attributes",),
    "user_idle_days": ("user_counters",),
    **dict.fromkeys(DISTANCE, ()),  # of the catalogue and the request
}
assert set(_OF_CROSSES) == set(CROSSES), "every cross says what it comes from"


class RankerService(Strict):
    """What a released ranker reads of Feast's views."""

    recipe: str = Field(description="that the ranker was trained by")
    features: tuple[str, ...] = Field(description="of the request, in order")

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that they come from, in the order of `VIEWS`."""
        wanted = {view for name in chosen(self.features) for view in _views_of(name)}
        return tuple(view.name for view in VIEWS if view.name in wanted)


def service_name(bundle_id: str) -> str:
    """Name of the feature service of a bundle's ranker; a bundle never changes, and so its service does not.

    >>> service_name("0123456789ab")
    'ranker_0123456789ab'
    """
    return f"ranker_{bundle_id}"


def _views_of(feature: str) -> Sequence[str]:
    known = {**_OF_CROSSES, **_OF_OTHERS}.get(feature)
    if known is None:
        return [view.name for view in VIEWS if feature in view.position]
    return known
