"""A policy to be judged, as a file spells it out: other weights of an experiment's variants, another allocation, or other stages."""

from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import EpsilonGreedy, LinThompson, LinUcb, Thompson, Ucb1
from tastemaker.stages.policy import StagePolicy
from tastemaker.strict import Strict
from tastemaker.types import Float64, Int64, Strings

Weight = Annotated[float, Field(ge=0, le=1)]
Weights = Annotated[dict[str, Weight], Field(min_length=1, max_length=10)]
Learning = Annotated[EpsilonGreedy | Thompson | Ucb1 | LinUcb | LinThompson, Field(discriminator="kind")]
_TOLERANCE = 1e-9


class JudgedPolicy(Strict):
    """Of an experiment's variants `weights`, for all or by what a request says, or an `allocation` that learns; or `stages` of all lists."""

    weights: Weights | None = Field(
        None, description="share of each variant; they add up to 1, and variants that are not named get none"
    )
    by: Literal["device", "country"] | None = Field(
        None, description="what of a request `where` looks at; empty: all requests have the same weights"
    )
    where: dict[str, Weights] = Field(
        {}, description="weights of requests from a device or country; others have `weights`"
    )
    allocation: Learning | None = Field(
        None,
        description="a bandit as an experiment's `allocation`, which learns from the log as time goes on",
    )
    stages: dict[str, Any] | None = Field(
        None, description="stage policy of all lists, as a variant's `policy`; {} is the bundle's own stages"
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(one is not None for one in (self.weights, self.allocation, self.stages)) != 1:
            raise ValueError("a policy needs weights, an allocation or stages, one of them")
        if self.where and (self.by is None or self.weights is None):
            raise ValueError("where needs by (device or country) and weights of the others")
        for name, weights in {"weights": self.weights, **self.where}.items():
            if weights is not None and abs(sum(weights.values()) - 1) > _TOLERANCE:
                raise ValueError(f"{name} must add up to 1, add up to {sum(weights.values()):g}")
        StagePolicy.of(self.stages, "stages")
        return self

    def distributions(self, variants: tuple[str, ...], asked_R: Strings) -> tuple[Float64, Int64]:
        """The policy's distributions over variants, (P, V), and which of them holds for each request, (R,).

        Args:
            variants: Of the experiment, in order.
            asked_R: What each request says of `by`.

        Raises:
            ExperimentError: It names a variant that the experiment does not have.
        """
        assert self.weights is not None, "a policy of weights"
        every = [self.weights, *self.where.values()]
        if unknown := sorted({name for weights in every for name in weights} - set(variants)):
            raise ExperimentError(
                "variant of the policy", value=unknown[0], limit=f"one of: {', '.join(variants)}"
            )
        weight_PV = np.array([[weights.get(name, 0.0) for name in variants] for weights in every])
        row_R = np.zeros(len(asked_R), np.int64)
        for row, value in enumerate(self.where, 1):
            row_R[asked_R == value] = row
        return weight_PV, row_R
