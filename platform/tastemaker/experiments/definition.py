"""What an experiment is, and where they are kept. Not how units are assigned (assignment, bandits)."""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

import redis
from pydantic import Field, model_validator

from tastemaker.config import Strict
from tastemaker.errors import ExperimentError
from tastemaker.stages.policy import StagePolicy
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Origin

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class Variant(Strict):
    """One arm: a bundle's alias and how its stages are set."""

    name: Name = Field(description="as logged and reported")
    alias: str = Field(min_length=1, description="alias of the bundle that answers")
    policy: dict[str, Any] | None = Field(
        None, description="stage policy over the bundle's own, see `stages.policy`; empty keeps that"
    )


class Fixed(Strict):
    """Shares that stay; assignment is a pure hash of the unit."""

    kind: Literal["fixed"] = Field("fixed", description="fixed")
    weights: tuple[float, ...] = Field(
        description="share of units of each variant, in order; they add up to 1"
    )


class Thompson(Strict):
    """Shares that follow the probability of being best; a unit keeps its draw for an epoch."""

    kind: Literal["thompson"] = Field("thompson", description="thompson")
    floor: float = Field(0.05, gt=0, le=0.5, description="least share of each variant")
    epoch_seconds: int = Field(86_400, ge=1, description="how long a unit keeps its draw")
    prior: tuple[float, float] = Field(
        (1.0, 1.0), description="Beta prior: pseudo-counts of success and failure"
    )


class Experiment(Strict):
    """Variants, how units are spread, how long a click counts. The first variant is the control."""

    name: Name = Field(description="unique in its catalogue")
    hypothesis: str = Field(min_length=1, description="what is expected, written down before")
    layer: Name = Field("default", description="at most one experiment runs per layer and origin")
    salt: str = Field(min_length=1, max_length=64, description="makes this experiment's hash its own")
    unit: Literal["user"] = Field("user", description="what is assigned, and what variances are clustered by")
    origin: Origin = Field("live", description="only requests of this origin take part")
    variants: tuple[Variant, ...] = Field(min_length=2, max_length=10, description="the first is the control")
    allocation: Fixed | Thompson = Field(discriminator="kind", description="how units are spread")
    attribution_window_seconds: float = Field(
        1800.0, gt=0, description="how long a click counts for its request"
    )
    state: Literal["running", "stopped"] = Field("running", description="only a running one assigns units")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError(f"variants' names must differ, are {names}")
        if "\0" in self.salt:
            raise ValueError("salt must not contain NUL")
        allocation = self.allocation
        if isinstance(allocation, Fixed):
            if len(allocation.weights) != len(names) or min(allocation.weights) <= 0:
                raise ValueError(f"weights must be {len(names)} positive numbers")
            if abs(sum(allocation.weights) - 1) > 1e-9:
                raise ValueError(f"weights must add up to 1, add up to {sum(allocation.weights):g}")
        elif allocation.floor * len(names) > 1 or min(allocation.prior) <= 0:
            raise ValueError(f"floor must be at most 1/{len(names)} and the prior positive")
        return self

    @property
    def variant_names(self) -> tuple[str, ...]:
        """In order; the control first."""
        return tuple(variant.name for variant in self.variants)

    @property
    def attribution_window_ms(self) -> int:
        """`attribution_window_seconds` in milliseconds."""
        return round(self.attribution_window_seconds * 1000)

    def policy_hash(self, variant: str) -> str:
        """16 hexadecimal digits that change whenever a variant's alias or policy does."""
        chosen = next(v for v in self.variants if v.name == variant)
        canonical = json.dumps([chosen.alias, chosen.policy], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class ExperimentStore:
    """The experiments of a catalogue, in Redis/Valkey."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys

    def create(self, experiment: Experiment) -> None:
        """Keeps and thereby starts an experiment.

        Raises:
            ConfigError: A variant's policy has an unknown key or a wrong value.
            ExperimentError: Its name is taken, or another runs in its layer for its origin.
        """
        for variant in experiment.variants:
            StagePolicy.of(variant.policy, f"policy of variant {variant.name}")
        with state_errors(f"create experiment {experiment.name}"):
            self._client.transaction(lambda pipe: self._put_new(pipe, experiment), self._keys.experiments)

    def _put_new(self, pipe: Any, experiment: Experiment) -> None:
        others = decode_experiments(pipe.hgetall(self._keys.experiments))
        if any(other.name == experiment.name for other in others):
            raise ExperimentError(f"experiment {experiment.name} exists", mend="choose another name")
        for other in others:
            same_place = (other.layer, other.origin) == (experiment.layer, experiment.origin)
            if same_place and "running" == other.state == experiment.state:
                raise ExperimentError(
                    f"experiment {other.name} runs in layer {other.layer} for origin {other.origin}",
                    mend="stop it first, or use another layer",
                )
        pipe.multi()
        pipe.hset(self._keys.experiments, experiment.name, experiment.model_dump_json())

    def get(self, name: str) -> Experiment:
        """The experiment of that name.

        Raises:
            ExperimentError: There is none.
        """
        with state_errors(f"read experiment {name}"):
            text = self._client.hget(self._keys.experiments, name)
        if text is None:
            known = ", ".join(sorted(e.name for e in self.list())) or "none"
            raise ExperimentError(f"no experiment {name}", limit=f"one of: {known}", mend="correct the name")
        return Experiment.model_validate_json(str(text))

    def list(self) -> tuple[Experiment, ...]:
        """All of them, running or stopped, by name."""
        with state_errors("list experiments"):
            return decode_experiments(self._client.hgetall(self._keys.experiments))

    def stop(self, name: str) -> Experiment:
        """Ends assignment; rewards of decisions made before still join. A stopped one stays in the list."""
        stopped = self.get(name).model_copy(update={"state": "stopped"})
        with state_errors(f"stop experiment {name}"):
            self._client.hset(self._keys.experiments, name, stopped.model_dump_json())
        return stopped


def decode_experiments(fields: Any) -> tuple[Experiment, ...]:
    """The experiments in the reply to HGETALL, by name."""
    return tuple(Experiment.model_validate_json(text) for _, text in sorted(fields.items()))
