"""Who an experiment is about: a filter over what is known of a request when its unit is assigned.

What is unknown of a request meets no condition on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from tastemaker.features.context import LOCAL_TIME, local_time_ms
from tastemaker.strict import Strict

UnitKind = Literal["user", "visitor", "session"]
AGE: Final = "age"
"""Attribute in years, as text."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a request is from, as far as assignment looks at it.

    `context` is the request's, `attributes` are the user's (gender, age, whatever the customer keeps), `is_known` says
    whether anything is known of what the user did, None where that could not be read or must not be looked at. `forced`
    names variants by experiment that a tester asked for.
    """

    user_id: str
    visitor_id: str | None = None
    session_id: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_known: bool | None = None
    forced: Mapping[str, str] = field(default_factory=dict)

    def features(self) -> dict[str, str]:
        """What a policy on context may look at: device and country, hour of the user's clock, new or known; where known."""
        local_time = self.context.get(LOCAL_TIME)
        found = {name: self.context.get(name, "") for name in ("device", "country")}
        if local_time is not None:
            found["hour"] = str(local_time_ms(local_time) // 3_600_000 % 24)
        if self.is_known is not None:
            found["user"] = "known" if self.is_known else "new"
        return {name: value for name, value in found.items() if value}

    def unit(self, kind: UnitKind) -> str | None:
        """The id of what is assigned; None where the request does not say it."""
        if kind == "user":
            return self.user_id
        return self.visitor_id if kind == "visitor" else self.session_id


class Eligibility(Strict):
    """Requests for which every condition holds that is given; one of the words of a list is enough."""

    devices: tuple[str, ...] = Field((), description="`device` of the request's context")
    countries: tuple[str, ...] = Field((), description="`country` of the request's context, in any case")
    context: dict[str, tuple[str, ...]] = Field(
        {}, max_length=16, description="other keys of the context, each with the values that are meant"
    )
    users: Literal["new", "known"] | None = Field(
        None, description="new: nothing is known of what they did; a unit leaves as soon as that changes"
    )
    min_age: int | None = Field(None, ge=0, le=130, description="years, of the user's demographics")
    max_age: int | None = Field(None, ge=0, le=130, description="years, of the user's demographics")
    attributes: dict[str, tuple[str, ...]] = Field(
        {}, max_length=16, description="`gender` or a key of `more` of the demographics, with its values"
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.min_age is not None and self.max_age is not None and self.min_age > self.max_age:
            raise ValueError(f"min_age {self.min_age} is above max_age {self.max_age}: nobody is meant")
        words = (self.context | self.attributes).items()
        if empty := sorted(name for name, values in words if not values):
            raise ValueError(f"{empty[0]} has no values: nobody is meant")
        return self

    def holds(self, subject: Subject) -> bool:
        """Whether a request is one of these."""
        context = subject.context
        return (
            (not self.devices or context.get("device") in self.devices)
            and (not self.countries or _folded(context.get("country")) in map(_folded, self.countries))
            and all(context.get(key) in values for key, values in self.context.items())
            and (self.users is None or subject.is_known is (self.users == "known"))
            and self._age_holds(subject.attributes.get(AGE))
            and all(subject.attributes.get(key) in values for key, values in self.attributes.items())
        )

    def _age_holds(self, age: str | None) -> bool:
        if self.min_age is None and self.max_age is None:
            return True
        if age is None:
            return False
        low = 0 if self.min_age is None else self.min_age
        return low <= int(age) and (self.max_age is None or int(age) <= self.max_age)


def _folded(text: str | None) -> str | None:
    return None if text is None else text.upper()
