"""The features of users and items by name: views of them, as Feast, serving and training call them alike.

A view's values are kept as of its first feature, the time of the record's newest event; `ViewRows.at` brings them to
another moment. Not what fills them from records (`view_rows`), nor Feast's objects (`feast_repo`).

Shape letters: N rows, F numbers of a view, W windows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

import numpy as np

from tastemaker.features.counters import ROWS, WINDOWS_MS, decay
from tastemaker.features.user_state import AFFINITY_WINDOW_MS, SESSION_GAP_MS
from tastemaker.types import Float64, Int64

Entity = Literal["user", "item"]
ENTITIES: Final[tuple[Entity, ...]] = get_args(Entity)
COUNT_WINDOWS: Final = tuple(window for window in WINDOWS_MS if window != "all")
RATES: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "clicks_per_impression": (("click",), ("impression",)),
    "purchases_per_click": (("purchase",), ("click",)),
    "refusals_per_impression": (("skip", "dislike", "hide"), ("impression",)),
}
"""Kinds over kinds, at most 1. Both fade alike, so that a rate stays what it is; 0 where there is nothing under it."""
MOST_TASTES: Final = 5
SERVICE: Final = "ranker"
"""Name of the feature service that has all of `VIEWS`."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One named value. An amount is exp(-elapsed / `window_ms`) of itself later, and nothing after `lasts_ms`."""

    name: str
    about: str
    kind: Literal["float64", "int64", "string"] = "float64"
    window_ms: float = np.inf
    lasts_ms: float = np.inf


@dataclass(frozen=True)
class View:
    """Features that are written together. The first is the time in ms of which the others are.

    `pushed` ones follow the event stream; others change with the catalogue's items and with profiles.
    """

    name: str
    entity: Entity
    about: str
    features: tuple[Feature, ...]
    pushed: bool = True

    @cached_property
    def numbers(self) -> tuple[Feature, ...]:
        """Features that are numbers, in order; the time is the first."""
        return tuple(feature for feature in self.features if feature.kind != "string")

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Names of the features that are texts."""
        return tuple(feature.name for feature in self.features if feature.kind == "string")

    @cached_property
    def position(self) -> Mapping[str, int]:
        """The place of each number by its name."""
        return {feature.name: f for f, feature in enumerate(self.numbers)}

    def left(self, elapsed_ms_N: Float64) -> Float64:
        """The share (N, F) that is left of each number after some time."""
        window_W, of_F = self._windows
        left_NW = decay(elapsed_ms_N, window_W)
        lasts_F = np.array([feature.lasts_ms for feature in self.numbers])
        if np.isfinite(lasts_F).any():
            return left_NW[:, of_F] * (elapsed_ms_N[:, None] <= lasts_F)
        return left_NW[:, of_F]

    @cached_property
    def _windows(self) -> tuple[Float64, Int64]:
        """The view's windows, each once, and which of them each number has."""
        return np.unique([feature.window_ms for feature in self.numbers], return_inverse=True)


@dataclass(frozen=True)
class ViewRows:
    """N rows of a view: its numbers in its order, NaN where unknown, and its texts by name, empty where unknown."""

    view: View
    value_NF: Float64
    texts: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return len(self.value_NF)

    def at(self, now_ms: float) -> Float64:
        """The numbers (N, F) as of a moment; what they were where that lies before them."""
        found: Float64 = self.value_NF * self.view.left(now_ms - self.value_NF[:, 0])
        return found

    def row(self, n: int, value_NF: Float64 | None = None) -> dict[str, object]:
        """One row by name, whole numbers as such and None for unknown.

        Args:
            n: Which.
            value_NF: Numbers to show in place of the kept ones, as `at` gives them.
        """
        numbers = dict(
            zip(self.view.position, (self.value_NF if value_NF is None else value_NF)[n], strict=True)
        )
        return {
            feature.name: self.texts[feature.name][n] if feature.kind == "string"
            else None if np.isnan(numbers[feature.name])
            else int(numbers[feature.name]) if feature.kind == "int64"
            else float(numbers[feature.name])
            for feature in self.view.features
        }  # fmt: skip


def _time(name: str) -> Feature:
    return Feature(name, "time of the newest event, ms; the row's values are of then", "int64")


def _counted(entity: Entity) -> tuple[Feature, ...]:
    counts = [
        Feature(f"{entity}_{kind}_{window}", f"{kind}, decayed over {window}", window_ms=WINDOWS_MS[window])
        for kind in ROWS
        for window in COUNT_WINDOWS
    ]
    rates = [
        Feature(f"{entity}_{rate}_{window}", f"{rate.replace('_', ' ')}, over {window}")
        for rate in RATES
        for window in COUNT_WINDOWS
    ]
    return (_time(f"{entity}_last_ms"), *counts, *rates)


def _tastes() -> tuple[Feature, ...]:
    """The strongest categories, each with its weight."""
    places = range(1, MOST_TASTES + 1)
    return tuple(
        feature
        for place in places
        for feature in (
            Feature(f"taste_{place}", f"category number {place} by weight", "string"),
            Feature(
                f"taste_{place}_weight", "its weight, a tenth less each day", window_ms=AFFINITY_WINDOW_MS
            ),
        )
    )


VIEWS: Final = (
    View("user_counters", "user", "what a user did, by kind and window", _counted("user")),
    View(
        "user_taste", "user", "the categories that a user's events weigh most for",
        (
            _time("taste_last_ms"), *_tastes(),
            Feature("taste_total", "weight of all categories", window_ms=AFFINITY_WINDOW_MS),
            Feature("taste_num_categories", "categories with any weight", "int64"),
        ),
    ),
    View(
        "user_session", "user", "what a user took until half an hour of silence",
        (
            Feature("session_last_ms", "time of the newest item taken, ms; the row's values are of then", "int64"),
            Feature("session_length", "items taken in the session", "int64", lasts_ms=SESSION_GAP_MS),
            Feature("session_started_ms", "time of its first item, ms", "int64"),
            Feature("session_last_item", "newest item taken", "string"),
        ),
    ),
    View(
        "user_profile", "user", "what was told of a user",
        (
            Feature("profile_last_ms", "when it was last told, ms", "int64"),
            Feature("user_age", "age then, in years", "int64"),
            Feature("user_gender", "gender, in the customer's words", "string"),
            Feature("user_lat", "where the user is at home, degrees north"),
            Feature("user_lon", "the same, degrees east"),
        ),
        pushed=False,
    ),
    View("item_counters", "item", "what users did with an item, by kind and window", _counted("item")),
    View(
        "item_popularity", "item", "sums of the weights of an item's events",
        (
            _time("popularity_last_ms"),
            Feature("popularity_all", "all that ever was"),
            Feature("popularity_30d", "decayed over 30 days", window_ms=WINDOWS_MS["30d"]),
            Feature("trend_7d", "decayed over 7 days", window_ms=WINDOWS_MS["7d"]),
            Feature("trend_1d", "decayed over a day", window_ms=WINDOWS_MS["1d"]),
        ),
    ),
    View(
        "item_attributes", "item", "what the catalogue says of an item",
        (
            Feature("attributes_last_ms", "when the catalogue said it, ms", "int64"),
            Feature("item_category", "category", "string"),
            Feature("item_created_ms", "when the item came to be, ms", "int64"),
            Feature("item_price", "price, in the catalogue's currency"),
        ),
        pushed=False,
    ),
    View(
        "item_content", "item", "which text of an item is encoded, and by what",
        (
            Feature("content_last_ms", "when the catalogue said it, ms", "int64"),
            Feature("content_sha256", "SHA-256 of title and description as they are encoded", "string"),
            Feature("content_space", "fingerprint of the champion's content space", "string"),
        ),
        pushed=False,
    ),
)  # fmt: skip
VIEW: Final[Mapping[str, View]] = {view.name: view for view in VIEWS}


def join_key(entity: Entity) -> str:
    """Name of an entity's id.

    >>> join_key("user")
    'user_id'
    """
    return f"{entity}_id"


def views_of(entity: Entity) -> tuple[View, ...]:
    """The views that an entity's rows are in."""
    return tuple(view for view in VIEWS if view.entity == entity)
