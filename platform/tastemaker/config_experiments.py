"""What there is to set about experiments and promotion."""

from typing import Literal

from pydantic import (
    Field,
    field_validator,
)

from tastemaker.strict import Strict


class CanaryGuardrail(Strict):
    """A metric of experiments that a version's first users must not see worsen."""

    metric: str = Field(description="its name")
    margin: float = Field(
        ge=0, le=1, description="most that it may worsen, as a share of the champion's value"
    )


class CanarySettings(Strict):
    """A version's first users: an experiment against the champion that `tastemaker promote` starts and waits for."""

    steps: tuple[float, ...] = Field(
        (), description="share of users in each step, growing, such as 0.01, 0.05, 0.2; empty: no canary"
    )
    hours: float = Field(1.0, ge=0, description="least time that a step lasts")
    requests: int = Field(500, ge=1, description="fewest requests of the version that a step is judged by")
    window_seconds: float = Field(
        300.0, gt=0, description="how long a click counts for its request; a request is judged after that"
    )
    guardrails: tuple[CanaryGuardrail, ...] = Field(
        (
            CanaryGuardrail(metric="rewarded_requests", margin=0.1),
            CanaryGuardrail(metric="degraded_requests", margin=1.0),
            CanaryGuardrail(metric="latency_ms", margin=0.5),
        ),
        min_length=1,
        description="what must not become worse",
    )

    @field_validator("steps")
    @classmethod
    def _growing(cls, steps: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < step <= 0.5 for step in steps) or list(steps) != sorted(set(steps)):
            raise ValueError(f"shares up to 0.5 that grow; not {list(steps)}")
        return steps


class PromotionSettings(Strict):
    """What a version must pass before an alias may name it. Losses are shares of the champion's value."""

    valid_hours: float = Field(
        24.0, ge=0, description="a gate that passed is not asked again for so long, the same things given"
    )
    metric: str = Field("ndcg@10", description="of the users held out, which versions are compared by")
    users: int = Field(30, ge=2, description="fewest users of a comparison, and of a segment")
    sample_users: int = Field(
        1000, ge=2, description="most users of a comparison that is made where the champion is of other data"
    )
    loss: float = Field(0.01, ge=0, lt=1, description="that all users together may have")
    segment_loss: float = Field(0.1, ge=0, lt=1, description="that any segment of users may have")
    exposure_loss: float = Field(
        0.5, ge=0, lt=1, description="that the exposure of the long tail or a category may have"
    )
    calibration_error: float = Field(
        0.05, gt=0, le=1, description="most expected calibration error of the ranker's probabilities"
    )
    recall: float = Field(
        0.9, gt=0, le=1, description="least recall at 10 of an approximate index; an exact one has 1"
    )
    latency_ms: float | None = Field(
        None, gt=0, description="most that 95 of 100 recorded requests may take; empty: gateway.deadline_ms"
    )
    latency_ratio: float = Field(
        2.0, ge=1, description="most of the champion's time on the same requests, once they take over 10 ms"
    )
    off_policy_loss: float = Field(
        0.05, ge=0, lt=1, description="of what was logged, that the estimate's lower bound may have"
    )
    off_policy_days: float = Field(1.0, gt=0, description="how far back the log is judged from")
    origin: Literal["live", "simulator"] = Field(
        "live", description="whose requests the gates of off-policy, shadow and canary look at"
    )
    shadow_hours: float = Field(24.0, gt=0, description="how far back shadow traffic is looked at")
    shadow_pairs: int = Field(100, ge=1, description="fewest answers that the shadow gate is judged by")
    shadow_failed: float = Field(0.01, ge=0, le=1, description="most of a shadow's answers that failed")
    shadow_overlap: float = Field(
        0.05, ge=0, le=1, description="least share of shown items that the shadow has too"
    )
    canary: CanarySettings = Field(default_factory=CanarySettings, description="a version's first users")


class ExperimentSettings(Strict):
    """How running experiments are watched."""

    guardrail_seconds: float = Field(
        60.0,
        ge=1,
        description="how often guardrails are looked at; rarer where a look takes over a twentieth of that",
    )
