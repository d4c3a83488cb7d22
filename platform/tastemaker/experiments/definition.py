"""What an experiment is: data that a file or the admin API spells out. Where they are kept, `store` says; how units are assigned, `router`."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import Allocation, Fixed, Interleaving, Thompson, problem
from tastemaker.experiments.eligibility import Eligibility, UnitKind
from tastemaker.experiments.layers import SLOTS, WHOLE, Ranges, num_slots
from tastemaker.strict import Strict
from tastemaker.types import Origin

__all__ = [
    "Allocation", "Course", "Experiment", "Fixed", "Guardrail", "Interleaving", "Name", "RampStep", "Thompson", "Variant",
]  # fmt: skip

INTERLEAVED = "interleaved"
"""Stands for the variant where a list holds both variants' picks."""
VERSION_ALIAS = "version:"
"""What stands before a number in `Variant.alias`."""
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
MetricName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Share = Annotated[float, Field(gt=0, le=1)]


class Variant(Strict):
    """One arm: which bundle answers and how its stages are set."""

    name: Name = Field(description="as logged and reported")
    alias: str = Field(
        pattern=r"^\S{1,255}$",
        description="alias of the bundle that answers, or `version:7` for whichever alias names version 7",
    )
    policy: dict[str, Any] | None = Field(
        None, description="stage policy over the bundle's own, see `stages.policy`; empty keeps that"
    )

    @model_validator(mode="after")
    def _version_is_a_number(self) -> Self:
        if self.alias.startswith(VERSION_ALIAS) and self.bundle_version is None:
            raise ValueError(f"alias must be a name or {VERSION_ALIAS}7, is {self.alias!r}")
        return self

    @property
    def bundle_version(self) -> int | None:
        """Number in the registry of the bundle that it names; None where it names an alias."""
        return version_in(self.alias)


class Guardrail(Strict):
    """A metric that no variant may worsen by more than a margin."""

    metric: MetricName = Field(description="name of a metric")
    direction: Literal["higher", "lower"] | None = Field(
        None, description="which way is better; empty: as the metric says"
    )
    margin: float = Field(
        0.0, ge=0, le=1, description="relative worsening against the control that is still accepted"
    )


class RampStep(Strict):
    """A share of traffic from a moment on: so long after the start, or at a time."""

    traffic: Share = Field(description="share of the layer's units that take part from then on")
    after_seconds: float | None = Field(
        None, ge=0, description="since the start, without the time that it was stopped"
    )
    at: AwareDatetime | None = Field(None, description="time, with its zone")

    @model_validator(mode="after")
    def _one_moment(self) -> Self:
        if (self.after_seconds is None) == (self.at is None):
            raise ValueError("a ramp step needs after_seconds or at, one of them")
        return self

    def begins_ms(self, started_ms: int) -> int:
        """When it begins, ms since 1970 UTC, of an experiment that began at `started_ms`."""
        if self.at is not None:
            return _ms(self.at)
        return started_ms + round(1000 * (self.after_seconds or 0.0))


class Course(Strict):
    """How it went so far. The platform keeps it; what a file says of it is not looked at."""

    ranges: Ranges | None = Field(None, description="slots of its layer; empty: all of them")
    started_ms: int = Field(
        0, ge=0, description="first start, moved on by the time that it was stopped; 0: never started"
    )
    stopped_ms: int = Field(0, ge=0, description="last stop; 0: never stopped")
    generation: int = Field(
        0, ge=0, description="grows when units are assigned anew: draws kept before are void"
    )
    reassigned_ms: int = Field(
        0, ge=0, description="when that was; what was decided before is another experiment"
    )


class Experiment(Strict):
    """Who takes part, what they get, how it is judged. The first variant is the control."""

    name: Name = Field(description="unique in its catalogue, for ever")
    hypothesis: str = Field(min_length=1, description="what is expected, written down before")
    layer: Name = Field("default", description="within a layer a unit is in one experiment at most")
    salt: str = Field(min_length=1, max_length=64, description="makes this experiment's hash its own")
    unit: UnitKind = Field("user", description="what is assigned, and what variances are clustered by")
    origin: Origin = Field("live", description="only requests of this origin take part")
    eligibility: Eligibility | None = Field(None, description="which requests take part; empty: all")
    variants: tuple[Variant, ...] = Field(min_length=2, max_length=10, description="the first is the control")
    allocation: Allocation = Field(description="how units are spread")
    traffic: Share = Field(1.0, description="share of the layer's units that take part from the start on")
    ramp: tuple[RampStep, ...] = Field((), max_length=20, description="more traffic as time goes on")
    starts: AwareDatetime | None = Field(None, description="assigns nobody before, though it runs")
    ends: AwareDatetime | None = Field(None, description="assigns nobody from then on")
    metric: MetricName = Field("clicks_per_request", description="the primary metric")
    reward: MetricName = Field("rewarded_requests", description="metric that bandits learn from")
    guardrails: tuple[Guardrail, ...] = Field((), max_length=20, description="what must not become worse")
    minimum_detectable_effect: float | None = Field(
        None, gt=0, description="relative change of the primary metric that is worth finding, for planning"
    )
    attribution_window_seconds: float = Field(
        1800.0, gt=0, description="how long a click counts for its request"
    )
    testers: dict[str, Name] = Field(
        {},
        max_length=100,
        description="user id -> variant that it gets whatever is drawn; its requests are not counted",
    )
    state: Literal["draft", "running", "stopped"] = Field(
        "running", description="only a running one assigns units"
    )
    version: int = Field(0, ge=0, description="grows with every change; the platform counts it")
    course: Course = Field(Course(), description="how it went so far; the platform keeps it")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = self.variant_names
        if len(set(names)) < len(names):
            raise ValueError(f"variants' names must differ, are {list(names)}")
        if "\0" in self.salt:
            raise ValueError("salt must not contain NUL")
        if self.interleaves and self.guardrails:
            raise ValueError("guardrails must be empty: every unit of an interleaving gets both variants")
        if self.interleaves and INTERLEAVED in names:
            raise ValueError(f"a variant of an interleaving must not be named {INTERLEAVED}")
        if (reason := problem(self.allocation, len(names))) is not None:
            raise ValueError(reason)
        if unknown := sorted(set(self.testers.values()) - set(names)):
            raise ValueError(f"a tester gets variant {unknown[0]}, must be one of {', '.join(names)}")
        self._check_times()
        return self

    def _check_times(self) -> None:
        shares = (self.traffic, *(step.traffic for step in self.ramp))
        if fine := [
            share for share in shares if abs(share * SLOTS - num_slots(share)) > 1e-6 or share * SLOTS < 1
        ]:
            raise ValueError(f"traffic must be a multiple of {1 / SLOTS:g}, is {fine[0]:g}")
        if list(shares) != sorted(shares):
            raise ValueError(
                f"traffic must not shrink along the ramp, is {', '.join(f'{s:g}' for s in shares)}"
            )
        if self.starts is not None and self.ends is not None and self.starts >= self.ends:
            raise ValueError(f"ends must be after starts, is {self.ends.isoformat()}")

    @property
    def variant_names(self) -> tuple[str, ...]:
        """In order; the control first."""
        return tuple(variant.name for variant in self.variants)

    @property
    def interleaves(self) -> bool:
        """Whether every request of a unit gets both variants' picks in one list."""
        return isinstance(self.allocation, Interleaving)

    @property
    def attribution_window_ms(self) -> int:
        """`attribution_window_seconds` in milliseconds."""
        return round(self.attribution_window_seconds * 1000)

    @property
    def has_started(self) -> bool:
        """Whether units may have been assigned."""
        return self.state != "draft" or self.course.started_ms > 0

    @property
    def ranges(self) -> Ranges:
        """The slots of its layer that it holds while it runs, in the order in which they are filled."""
        return WHOLE if self.course.ranges is None else self.course.ranges

    @property
    def peak_traffic(self) -> float:
        """The largest share that it will ever have."""
        return max(self.traffic, *(step.traffic for step in self.ramp), 0.0)

    def is_open(self, now_ms: int) -> bool:
        """Whether it assigns units at a moment."""
        begun = self.starts is None or _ms(self.starts) <= now_ms
        return self.state == "running" and begun and (self.ends is None or now_ms < _ms(self.ends))

    def traffic_at(self, now_ms: int) -> float:
        """Share of the layer's units that take part at a moment, if it is open then; it never shrinks."""
        begun_ms = max(self.course.started_ms, 0 if self.starts is None else _ms(self.starts))
        reached = (step.traffic for step in self.ramp if step.begins_ms(begun_ms) <= now_ms)
        return max(self.traffic, *reached, 0.0)

    def variant(self, name: str) -> Variant:
        """The variant of that name.

        Raises:
            ExperimentError: There is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ExperimentError(
            f"variant of experiment {self.name}", value=name, limit=f"one of: {', '.join(self.variant_names)}"
        )

    def policy_hash(self, variant: str) -> str:
        """16 hexadecimal digits that change whenever a variant's alias or policy does."""
        chosen = self.variant(variant)
        canonical = json.dumps([chosen.alias, chosen.policy], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def version_in(alias: str) -> int | None:
    """The number that stands for an alias.

    >>> version_in("version:7"), version_in("version:x"), version_in("champion")
    (7, None, None)
    """
    number = alias.removeprefix(VERSION_ALIAS)
    return int(number) if number != alias and number.isascii() and number.isdigit() else None


def _ms(moment: AwareDatetime) -> int:
    return round(moment.timestamp() * 1000)
