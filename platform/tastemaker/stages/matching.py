"""Which items and which requests a rule is about.

Shape letters: I catalogue, K candidates.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tastemaker.features.context import DEVICE, query_rows
from tastemaker.features.traits import ItemTraits
from tastemaker.stages.signals import RowOf
from tastemaker.strict import Strict
from tastemaker.types import DEVICES, Bool, Int32, Query

COUNTRY: Final = "country"
"""Key of the request's context."""
WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SEASONS: Final = ("dec-feb", "mar-may", "jun-aug", "sep-nov")
"""By months, which mean different seasons on the two halves of the earth."""
_DAY_MS: Final = 86_400_000.0
Words = tuple[str, ...]


class Match(Strict):
    """Items for which every condition holds that is given; one of the words of a list is enough.

    An item whose price or age is unknown meets no condition on it.
    """

    item_ids: Words = Field((), max_length=10_000, description="the customer's own ids")
    categories: Words = Field((), description="its category is one of these")
    tags: Words = Field((), description="it has one of these")
    franchises: Words = Field((), description="its franchise is one of these")
    min_price: float | None = Field(None, description="it costs at least this")
    max_price: float | None = Field(None, description="it costs at most this")
    min_age_days: float | None = Field(None, description="it came to be at least so long before the request")
    max_age_days: float | None = Field(None, description="it came to be at most so long before the request")
    max_interactions: float | None = Field(
        None, ge=0, description="so many took it at most, as of the training; 0 for items that came later"
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self == type(self).model_construct():
            raise ValueError("a match needs a condition: it would be about every item")
        return self


class When(Strict):
    """Requests for which every condition holds that is given. What is unknown of a request meets no condition on it."""

    hours: tuple[int, ...] = Field((), description="of the user's clock, 0 to 23; UTC without `local_time`")
    weekdays: tuple[
        Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"], ...
    ] = Field((), description="of the user's clock")
    seasons: tuple[Literal["dec-feb", "mar-may", "jun-aug", "sep-nov"], ...] = Field(
        (), description="months of the user's clock"
    )
    devices: tuple[Literal["mobile", "tablet", "desktop", "tv", "other"], ...] = Field(
        (), description="`device` of the request's context"
    )
    countries: Words = Field((), description="`country` of the request's context, ISO 3166-1 alpha-2")

    @model_validator(mode="after")
    def _hours_of_a_day(self) -> Self:
        if any(not 0 <= hour <= 23 for hour in self.hours):
            raise ValueError("hours must be 0 to 23")
        return self

    def holds(self, query: Query) -> bool:
        """Whether a request is one of these."""
        row = {table: int(rows[0]) for table, rows in query_rows([query]).items()}
        country = query.context.get(COUNTRY, "").upper()
        return (
            _in(row["hours"], [hour + 1 for hour in self.hours])
            and _in(row["weekdays"], [WEEKDAYS.index(day) + 1 for day in self.weekdays])
            and _in(row["seasons"], [SEASONS.index(months) + 1 for months in self.seasons])
            and (not self.devices or DEVICE in query.context)
            and _in(row["devices"], [DEVICES.index(device) + 1 for device in self.devices])
            and (not self.countries or country in {name.upper() for name in self.countries})
        )


def _in(row: int, rows: list[int]) -> bool:
    return not rows or row in rows


def holds(when: When | None, query: Query) -> bool:
    """Whether a rule that may say when applies to a request."""
    return when is None or when.holds(query)


@dataclass(frozen=True)
class ItemMatcher:
    """Finds the items that a match is about, among those of one moment of a catalogue."""

    traits: ItemTraits
    row_of: RowOf

    def among(self, match: Match, rows_K: Int32, now_ms: int) -> Bool:
        """Which of the items at `rows_K` it is about (K,)."""
        of = self.traits
        holds_K: Bool = np.ones(len(rows_K), bool)
        if match.item_ids:
            holds_K &= np.isin(rows_K, self.rows(match))
        if match.categories:
            holds_K &= of.category.any_of(match.categories, rows_K)
        if match.tags:
            holds_K &= of.tags.any_of(match.tags, rows_K)
        if match.franchises:
            holds_K &= of.franchise.any_of(match.franchises, rows_K)
        holds_K &= _between(of.price_I, rows_K, match.min_price, match.max_price)
        newest, oldest = _moment(now_ms, match.min_age_days), _moment(now_ms, match.max_age_days)
        holds_K &= _between(of.created_ms_I, rows_K, oldest, newest)
        holds_K &= _between(of.interactions_I, rows_K, None, match.max_interactions)
        return holds_K

    def rows(self, match: Match) -> Int32:
        """Rows of the ids that it names, in their order; unknown ones are left out."""
        found = [self.row_of(item_id) for item_id in match.item_ids]
        return np.array([row for row in found if row is not None and row < len(self.traits)], np.int32)


def _between(value_I: np.ndarray, rows_K: Int32, low: float | None, high: float | None) -> Bool:
    inside_K: Bool = np.ones(len(rows_K), bool)
    if low is not None:
        inside_K &= value_I[rows_K] >= low  # NaN is not
    if high is not None:
        inside_K &= value_I[rows_K] <= high
    return inside_K


def _moment(now_ms: int, days_ago: float | None) -> float | None:
    return None if days_ago is None else now_ms - days_ago * _DAY_MS
