"""How units are spread over an experiment's variants: the settings of every policy, and what it makes of rewards so far.

A policy turns statistics into a weight `w_i` of each of n variants; a unit draws variant i with probability
`p_i = f + (1 - n f) w_i`, with f the floor, so that every propensity is at least f, as off-policy estimates need. The
policies themselves are in `experiments.policies`, where they know nothing of experiments.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Protocol, TypeVar

from pydantic import Field

from tastemaker.experiments.forgetting import Forgetting, HalfLife, Window
from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.context import ContextFeature, Encoding, active_places
from tastemaker.experiments.policies.greedy import epsilon_greedy_weights
from tastemaker.experiments.policies.linear import LinearPosterior
from tastemaker.experiments.policies.thompson import beta_weights, normal_weights
from tastemaker.experiments.policies.ucb import ucb1_weights
from tastemaker.strict import Strict

MOST_EPOCHS, MOST_SUMS = 100, 4500
"""Of a window: each epoch has sums of its own, which every router reads each second; `MOST_SUMS` of a variant are those of a half life's
two eras at the largest dimension."""


class Fixed(Strict):
    """Shares that stay; assignment is a pure hash of the unit."""

    kind: Literal["fixed"] = Field("fixed", description="fixed")
    weights: tuple[float, ...] = Field(
        description="share of units of each variant, in order; they add up to 1"
    )


class Interleaving(Strict):
    """No split: every request gets the picks of both variants in one list, see `interleaving`."""

    kind: Literal["interleaving"] = Field("interleaving", description="interleaving")


class Adaptive(Strict):
    """What all policies that learn have in common."""

    floor: float = Field(0.05, gt=0, le=0.5, description="least share of each variant")
    epoch_seconds: int = Field(86_400, ge=1, description="how long a unit keeps its draw")
    half_life_seconds: float | None = Field(
        None, ge=60, description="age at which a reward counts half; empty: all count the same for ever"
    )
    window_seconds: int | None = Field(
        None,
        ge=1,
        description="whole epochs, the one under way included, whose rewards count; instead of a half life",
    )

    @property
    def forgetting(self) -> Forgetting | None:
        """How old rewards are forgotten; None where they are not."""
        if self.window_seconds is not None:
            return Window(self.epoch_seconds, self.window_seconds // self.epoch_seconds)
        return None if self.half_life_seconds is None else HalfLife(self.half_life_seconds)


class EpsilonGreedy(Adaptive):
    """The variant of the best mean so far, but for a share `epsilon` that is spread evenly."""

    kind: Literal["epsilon-greedy"] = Field("epsilon-greedy", description="epsilon-greedy")
    epsilon: float = Field(0.1, ge=0, le=1, description="share of draws that is spread evenly")


class NormalPrior(Strict):
    """Normal-Inverse-Gamma: variance ~ InverseGamma(shape, scale), mean ~ Normal(mean, variance / observations)."""

    mean: float = Field(0.0, description="expected reward before any is seen, in the metric's unit")
    observations: float = Field(0.01, gt=0, description="how many rewards that expectation is worth")
    shape: float = Field(1.0, gt=0, description="half of how many rewards the scale is worth")
    scale: float = Field(
        1.0, gt=0, description="prior sum of squared deviations, halved; in the unit squared"
    )


class Thompson(Adaptive):
    """Shares that follow the probability of being best; a unit keeps its draw for an epoch."""

    kind: Literal["thompson"] = Field("thompson", description="thompson")
    reward: Literal["binary", "real"] = Field(
        "binary", description="binary: success or not, by Beta; real: a number, by Normal-Inverse-Gamma"
    )
    prior: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field(
        (1.0, 1.0), description="Beta prior: pseudo-counts of success and failure"
    )
    normal_prior: NormalPrior = Field(NormalPrior(), description="prior where the reward is a number")
    sharpness: float = Field(
        1.0, ge=0.1, le=10, description="how often each reward counts: 1 as published, above explores less"
    )


class Ucb1(Adaptive):
    """The variant of the highest upper confidence bound."""

    kind: Literal["ucb1"] = Field("ucb1", description="ucb1")
    exploration: float = Field(1.0, gt=0, description="width of the bounds; 1 is UCB1 as published")
    reward_range: float = Field(
        1.0, gt=0, description="largest reward less the smallest; 1 for success or not"
    )


class Contextual(Adaptive):
    """What both policies on a request's context have in common: a ridge regression per variant."""

    features: tuple[ContextFeature, ...] = Field(
        ("device", "country", "hour", "user"), min_length=1, description="what of the request is looked at"
    )
    dimension: int = Field(
        16, ge=2, le=64, description="places that features are brought to; place 0 is constant"
    )
    encoding: Encoding = Field(
        2,
        description="how values become places: 1 hashes all of them, as releases did before 2 had places of its own for known ones",
    )
    ridge: float = Field(1.0, gt=0, description="how much weights are held near 0")


class LinUcb(Contextual):
    """The variant of the highest upper confidence bound in the request's context."""

    kind: Literal["lin-ucb"] = Field("lin-ucb", description="lin-ucb")
    exploration: float = Field(1.0, ge=0, description="width of the bounds in standard errors")


class LinThompson(Contextual):
    """Shares that follow the probability of being best in the request's context."""

    kind: Literal["lin-thompson"] = Field("lin-thompson", description="lin-thompson")
    deviation: float = Field(0.5, gt=0, description="standard deviation of one reward around its expectation")


Allocation = Annotated[
    Fixed | Interleaving | EpsilonGreedy | Thompson | Ucb1 | LinUcb | LinThompson,
    Field(discriminator="kind"),
]
"""How units are spread: any of the policies, told apart by `kind`."""
AnyAllocation = Fixed | Interleaving | Adaptive
AnySpread = TypeVar("AnySpread", bound=AnyAllocation)


class Statistics(Protocol):
    """What is known of rewards: `experiments.posterior.Posterior`."""

    def arms(self, names: Sequence[str], forgetting: Forgetting | None) -> tuple[Arm, ...]:
        """Counts and sums of each variant, of what is not forgotten."""

    def regression(
        self, names: Sequence[str], forgetting: Forgetting | None, dimension: int, ridge: float
    ) -> LinearPosterior:
        """Ridge regressions of all variants, of what is not forgotten."""


def problem(allocation: AnyAllocation, num_variants: int) -> str | None:
    """Why an experiment of `num_variants` variants cannot be spread like this; None where it can."""
    if isinstance(allocation, Interleaving):
        return None if num_variants == 2 else f"interleaving takes 2 variants, there are {num_variants}"
    if isinstance(allocation, Fixed):
        weights = allocation.weights
        if len(weights) != num_variants or min(weights) <= 0:
            return f"weights must be {num_variants} positive numbers"
        if abs(sum(weights) - 1) > 1e-9:
            return f"weights must add up to 1, add up to {sum(weights):g}"
        return None
    if allocation.floor * num_variants > 1:
        return f"floor must be at most 1/{num_variants}, is {allocation.floor:g}"
    return _window_problem(allocation)


def _window_problem(allocation: Adaptive) -> str | None:
    seconds, epoch = allocation.window_seconds, allocation.epoch_seconds
    if seconds is None:
        return None
    if allocation.half_life_seconds is not None:
        return "window_seconds and half_life_seconds are two ways to forget: leave one out"
    most = min(MOST_EPOCHS, MOST_SUMS // _num_sums(allocation))
    if seconds % epoch or seconds > most * epoch:
        return f"window_seconds must be 1 to {most} times epoch_seconds ({epoch}), is {seconds}"
    return None


def _num_sums(allocation: Adaptive) -> int:
    """How many sums a variant has at most in an epoch: count, sum and squares, of D places D and D (D + 1) / 2 more.

    >>> [_num_sums(LinUcb(dimension=dimension)) for dimension in (2, 16, 64)], _num_sums(Thompson())
    ([8, 155, 2147], 3)
    """
    places = allocation.dimension if isinstance(allocation, Contextual) else 0
    return 3 + places + places * (places + 1) // 2


def reward_problem(allocation: AnyAllocation, reward: Literal["binary", "real"]) -> str | None:
    """Why a policy cannot learn from rewards of that kind; None where it can."""
    if isinstance(allocation, Thompson) and allocation.reward != reward:
        return f"allocation.reward is {allocation.reward}, but the metric to learn from is {reward}"
    return None


def needs_context(allocation: AnyAllocation) -> bool:
    """Whether shares depend on the request's context."""
    return isinstance(allocation, Contextual)


def encoded_as(allocation: AnySpread, other: AnyAllocation) -> AnySpread:
    """An allocation that encodes context as another does, unless it says itself how.

    >>> old = LinUcb(encoding=1)
    >>> encoded_as(LinUcb(), old) == old, encoded_as(LinUcb(encoding=2), old) == old
    (True, False)
    """
    if not isinstance(allocation, Contextual) or not isinstance(other, Contextual):
        return allocation
    if "encoding" in allocation.model_fields_set:
        return allocation
    return allocation.model_copy(update={"encoding": other.encoding})


def arm_context(allocation: AnyAllocation, features: Mapping[str, str]) -> tuple[int, ...]:
    """The places of a request's features, as a policy on context sees and the decision log keeps them; else empty."""
    if not isinstance(allocation, Contextual):
        return ()
    return active_places(features, allocation.features, allocation.dimension, allocation.encoding)


def shares(
    allocation: Fixed | Adaptive,
    statistics: Statistics,
    names: Sequence[str],
    context: Sequence[int] = (),
) -> tuple[float, ...]:
    """Probability with which each variant is drawn, in order; at least the floor each, adding up to 1.

    All are exact: those of Thompson sampling are integrals, not counts of simulated draws.

    Args:
        allocation: The policy.
        statistics: Rewards so far.
        names: The variants.
        context: What `arm_context` gave, for policies on context.
    """
    if isinstance(allocation, Fixed):
        return allocation.weights
    weights = _weights(allocation, statistics, names, context)
    return with_floor(weights, allocation.floor)


def with_floor(weights: Sequence[float], floor: float) -> tuple[float, ...]:
    """`p_i = f + (1 - n f) w_i`.

    >>> [round(p, 6) for p in with_floor((5 / 6, 1 / 6), 0.1)]
    [0.766667, 0.233333]
    """
    free = 1 - len(weights) * floor
    total = sum(weights)
    return tuple(round(floor + free * float(weight) / total, 12) for weight in weights)


def _weights(
    allocation: Adaptive, statistics: Statistics, names: Sequence[str], context: Sequence[int]
) -> Sequence[float]:
    forgetting = allocation.forgetting
    if isinstance(allocation, Contextual):
        posterior = statistics.regression(names, forgetting, allocation.dimension, allocation.ridge)
        if isinstance(allocation, LinUcb):
            return posterior.ucb_weights(context, allocation.exploration)
        assert isinstance(allocation, LinThompson)
        return posterior.thompson_weights(context, allocation.deviation)
    return _plain_weights(allocation, statistics.arms(names, forgetting))


def _plain_weights(allocation: Adaptive, arms: tuple[Arm, ...]) -> Sequence[float]:
    match allocation:
        case EpsilonGreedy():
            return epsilon_greedy_weights(arms, allocation.epsilon)
        case Ucb1():
            return ucb1_weights(arms, allocation.exploration, allocation.reward_range)
        case Thompson():
            return _thompson_weights(allocation, tuple(arm.times(allocation.sharpness) for arm in arms))
    raise AssertionError(f"no policy {allocation}")


def _thompson_weights(allocation: Thompson, arms: tuple[Arm, ...]) -> Sequence[float]:
    if allocation.reward == "binary":
        return beta_weights(arms, allocation.prior)
    prior = allocation.normal_prior
    return normal_weights(arms, (prior.mean, prior.observations, prior.shape, prior.scale))
