"""A user's profile: demographics, place, onboarding answers and whether lists may be personal; all of it optional.

It is kept by parts, each JSON, so that a row changes what it names and leaves the rest. Not for what a user did: that is
the record's and the history's matter.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Final, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from tastemaker.errors import CompatibilityError
from tastemaker.events.schema import Text
from tastemaker.ids import Id
from tastemaker.strict import Strict

SCHEMA: Final = 1
PARTS: Final = ("demographics", "location", "onboarding", "personalise")
"""What a row may name beside its user, and what is kept each for itself."""
SINCE: Final = "since_ms"
"""Part that says since when a user who had opted out is in again."""
INTEREST: Final = "interest"
"""Part that we make ourselves: the vector of the free text, see `Interest`."""
MOST_BYTES: Final = 32_768
"""Of one part as kept."""
DEMOGRAPHIC: Final = "demographic"
"""Key of a request's context that only the gateway sets: `demographic_group`."""
AGE_BANDS: Final = ((18, "under-18"), (25, "18-24"), (35, "25-34"), (45, "35-44"), (55, "45-54"))
"""First age beyond each band, and its name; beyond the last it is `OLDEST_BAND`."""
OLDEST_BAND: Final = "55-plus"
Word = Annotated[str, Field(min_length=1, max_length=64)]


class Demographics(Strict):
    """What a user is, as far as told."""

    age: int | None = Field(None, ge=0, le=130, description="years; or birth_year, which does not grow old")
    birth_year: int | None = Field(None, ge=1880, le=2100, description="year of birth")
    gender: Word | None = Field(None, description="in the customer's own words, the same for all users")
    more: dict[Word, Text] = Field({}, max_length=32, description="whatever else the customer keeps")

    @model_validator(mode="after")
    def _one_age(self) -> Self:
        if self.age is not None and self.birth_year is not None:
            raise ValueError("age or birth_year, not both")
        return self


class Location(Strict):
    """A place on earth, in degrees."""

    lat: float = Field(ge=-90, le=90, allow_inf_nan=False, description="north")
    lon: float = Field(ge=-180, le=180, allow_inf_nan=False, description="east")


class Onboarding(Strict):
    """What a user answered when asked; `tastemaker questions` says what to ask."""

    liked: tuple[Id, ...] = Field((), max_length=200, strict=False, description="items, the best liked last")
    disliked: tuple[Id, ...] = Field((), max_length=200, strict=False, description="items, never to be shown")
    categories: tuple[Text, ...] = Field(
        (), max_length=50, strict=False, description="categories of interest"
    )
    tags: tuple[Text, ...] = Field((), max_length=50, strict=False, description="tags of interest")
    text: str = Field("", max_length=2000, description="interests in the user's own words")


class ProfileRow(Strict):
    """One user of `PUT /v1/users`. A part that is left out stays as it was, one that is null goes."""

    user_id: Id = Field(description="the customer's own id")
    demographics: Demographics | None = Field(None, description="age or birth year, gender, …")
    location: Location | None = Field(None, description="where the user is at home")
    onboarding: Onboarding | None = Field(None, description="answers of a new user")
    personalise: bool | None = Field(
        None, description="false: nothing of the user's past is used or kept any more"
    )

    def parts(self) -> dict[str, str | None]:
        """JSON of each part that the row names, None where the part goes."""
        return {name: _json(getattr(self, name)) for name in PARTS if name in self.model_fields_set}


class Interest(Strict):
    """A user's free text as a vector of a content space, which `fingerprint` names."""

    fingerprint: str = Field(description="of the content space")
    vector: tuple[float, ...] = Field(
        strict=False, description="unit vector, empty where the text says nothing"
    )


@dataclass(frozen=True, slots=True)
class Profile:
    """What is kept of a user. `updated_ms` is when a part last changed; 0 of one of whom nothing is kept."""

    demographics: Demographics = field(default_factory=Demographics)
    location: Location | None = None
    onboarding: Onboarding = field(default_factory=Onboarding)
    personalise: bool = True
    interest: Interest | None = None
    updated_ms: int = 0

    @classmethod
    def decode(cls, kept: Mapping[str, str]) -> Self:
        """The profile of the parts as kept; none is a user of whom nothing is known.

        Raises:
            CompatibilityError: A newer release wrote it, or it is damaged.
        """
        if not kept:
            return cls()
        try:
            if (schema := int(kept.get("schema", 0))) > SCHEMA:
                raise _foreign(f"schema {schema}")
            interest, place = kept.get(INTEREST), kept.get("location")
            return cls(
                Demographics.model_validate_json(kept.get("demographics", "{}")),
                None if place is None else Location.model_validate_json(place),
                Onboarding.model_validate_json(kept.get("onboarding", "{}")),
                _flag(kept.get("personalise", "true")),
                None if interest is None else Interest.model_validate_json(interest),
                int(kept.get("updated_ms", 0)),
            )
        except (ValidationError, ValueError) as error:
            raise _foreign(str(error)[:120]) from error

    def as_dict(self) -> dict[str, object]:
        """JSON-able, by part, without what we made of it."""
        parts = {name: getattr(self, name) for name in PARTS}
        plain = {
            name: part.model_dump(mode="json", exclude_defaults=True) if isinstance(part, BaseModel) else part
            for name, part in parts.items()
        }
        return {name: part for name, part in plain.items() if part is not None} | {
            "updated_ms": self.updated_ms
        }


def demographic_group(demographics: Demographics, now_ms: int) -> str | None:
    """The segment of a user: age band and gender, `?` for what is unknown; None where both are.

    >>> demographic_group(Demographics(birth_year=1990, gender="f"), 1_750_000_000_000)
    '35-44/f'
    >>> demographic_group(Demographics(gender="f"), 0), demographic_group(Demographics(), 0)
    ('?/f', None)
    """
    age = age_at(demographics, now_ms)
    if age is None and demographics.gender is None:
        return None
    return f"{'?' if age is None else age_band(age)}/{demographics.gender or '?'}"


def age_at(demographics: Demographics, now_ms: int) -> int | None:
    """The age in years as of a moment, to the year; None where it is unknown. An age that was told does not grow.

    >>> age_at(Demographics(birth_year=1990), 1_750_000_000_000), age_at(Demographics(age=7), 0)
    (35, 7)
    """
    if demographics.birth_year is None:
        return demographics.age
    return datetime.fromtimestamp(now_ms / 1000, UTC).year - demographics.birth_year


def age_band(age: int) -> str:
    """The band of an age in years.

    >>> [age_band(age) for age in (17, 18, 54, 55)]
    ['under-18', '18-24', '45-54', '55-plus']
    """
    return next((name for beyond, name in AGE_BANDS if age < beyond), OLDEST_BAND)


def _json(part: object) -> str | None:
    if part is None:
        return None
    return part.model_dump_json(exclude_defaults=True) if isinstance(part, BaseModel) else json.dumps(part)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(f"personalise is {text[:20]!r}")
    return text == "true"


def _foreign(found: object) -> CompatibilityError:
    return CompatibilityError(
        "a user's profile", value=found, limit=f"schema {SCHEMA}", mend="put the user again, or upgrade"
    )
