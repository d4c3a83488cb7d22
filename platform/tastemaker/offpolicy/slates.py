"""What a policy's lists would have earned, estimated from lists that were drawn with logged probabilities.

Three beliefs about where a slot's reward comes from, from none to strong, give three weights of a slot [Li et al. 2018;
McInerney et al. 2020]. With p and e the logged and the evaluated probability of each slot's item:

    whole list           any slot of the list: the product over all slots of e / p, of each item given those above it
    reward interaction   this slot and those above it, as in a cascade: the product down to the slot
    item and position    this slot alone: e / p, of the item in that slot whatever is above it (marginal probabilities)

The value of a list is the sum of its slots' rewards.

Shape letters: S lists, K slots.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Bool, Float64

Belief = Literal["whole-list", "reward-interaction", "item-position"]
BELIEFS: Final[tuple[Belief, ...]] = get_args(Belief)


@dataclass(frozen=True, slots=True)
class Slates:
    """Lists, filled up at their ends to K slots.

    Args:
        reward_SK: Of each slot; what lies behind a list's end counts nothing.
        propensity_SK: Logged probability of each slot's item, above 0: given those above it, or marginal for
            `item-position`.
        policy_SK: The evaluated policy's probability of the same item in the same sense, 0 to 1.
        filled_SK: Which slots a list has.

    Raises:
        ExperimentError: Shapes differ or a probability is none.
    """

    reward_SK: Float64
    propensity_SK: Float64
    policy_SK: Float64
    filled_SK: Bool

    def __post_init__(self) -> None:
        shape = self.reward_SK.shape
        if not len(self.reward_SK):
            raise ExperimentError("logged lists", value=0, limit="at least 1", mend="wait for traffic")
        for what in (self.propensity_SK, self.policy_SK, self.filled_SK):
            if what.shape != shape:
                raise ExperimentError("lists and slots", value=what.shape, limit=f"{shape}, as the rewards")
        logged, policy = self.propensity_SK[self.filled_SK], self.policy_SK[self.filled_SK]
        if len(logged) and not (logged.min() > 0 and logged.max() <= 1 + 1e-9):
            raise ExperimentError(
                "a slot's propensity", value=float(logged.min() if logged.min() <= 0 else logged.max()), limit="above 0, at most 1"
            )  # fmt: skip
        if len(policy) and not (policy.min() >= 0 and policy.max() <= 1 + 1e-9):
            raise ExperimentError("a probability of the policy", value=float(policy.max()), limit="0 to 1")
        if not np.isfinite(self.reward_SK[self.filled_SK]).all():
            raise ExperimentError("a slot's reward", limit="finite")

    @property
    def slot_ratios(self) -> Float64:
        """Of each slot e / p; 1 behind a list's end."""
        return np.divide(
            self.policy_SK, self.propensity_SK, out=np.ones_like(self.reward_SK), where=self.filled_SK
        )

    def weights(self, belief: Belief) -> Float64:
        """The weight of each slot's reward; 0 behind a list's end.

        >>> one = Slates(np.ones((1, 2)), np.array([[0.5, 0.25]]), np.ones((1, 2)), np.ones((1, 2), bool))
        >>> [one.weights(belief).tolist() for belief in BELIEFS]
        [[[8.0, 8.0]], [[2.0, 8.0]], [[2.0, 4.0]]]
        """
        ratio_SK = self.slot_ratios
        if belief == "reward-interaction":
            ratio_SK = ratio_SK.cumprod(axis=1)
        elif belief == "whole-list":
            ratio_SK = np.broadcast_to(ratio_SK.prod(axis=1, keepdims=True), ratio_SK.shape)
        return np.where(self.filled_SK, ratio_SK, 0.0)

    def weights_above(self, belief: Belief) -> Float64:
        """The weight of what a belief takes for given at each slot: by interaction that of the slots above it, else 1; 0 behind the end.

        >>> one = Slates(np.ones((1, 2)), np.array([[0.5, 0.25]]), np.ones((1, 2)), np.ones((1, 2), bool))
        >>> [one.weights_above(belief).tolist() for belief in BELIEFS]
        [[[1.0, 1.0]], [[1.0, 2.0]], [[1.0, 1.0]]]
        """
        above_SK = np.ones_like(self.reward_SK)
        if belief == "reward-interaction":
            above_SK[:, 1:] = self.slot_ratios[:, :-1].cumprod(axis=1)
        return np.where(self.filled_SK, above_SK, 0.0)


@dataclass(frozen=True, slots=True)
class SlotModel:
    """A model of slots' rewards that has not seen the list, see `slot_rewards`. What lies behind a list's end counts nothing.

    By interaction the best model is of a slot's reward and those below it together [Kiyohara et al. 2022, Sec. 3.1]; any is right.

    Args:
        chosen_SK: Expected of each slot with the items that were shown down to it.
        expected_SK: The same with the slot's item drawn by the evaluated policy, given what was shown above; by item and
            position and as a whole, given nothing.
    """

    chosen_SK: Float64
    expected_SK: Float64


def slate_value(slates: Slates, belief: Belief) -> Terms:
    """Mean over lists of the weighted rewards. Unbiased where the belief holds and there is support.

    By hand: one list with rewards 1 and 1, drawn with 1/2 and 1/4 and certain under the policy: 2 * 1 + 8 * 1 = 10 by
    interaction, 8 + 8 as a whole, 2 + 4 by slot.

    >>> one = Slates(np.ones((1, 2)), np.array([[0.5, 0.25]]), np.ones((1, 2)), np.ones((1, 2), bool))
    >>> [slate_value(one, belief).value for belief in BELIEFS]
    [16.0, 10.0, 6.0]
    """
    reward_SK = np.where(slates.filled_SK, slates.reward_SK, 0.0)
    return Terms.mean(np.einsum("sk,sk->s", slates.weights(belief), reward_SK))


def doubly_robust_slate_value(slates: Slates, belief: Belief, model: SlotModel) -> Terms:
    """Mean over lists of the sum over slots of v E[q] + w (r - q), with v the weight above: unbiased whatever the model.

    By interaction it is Cascade-DR [Kiyohara et al. 2022, Sec. 3.1]; by item and position, doubly robust slot by slot.

    By hand, with q = .5 for all: (.5 + 2 (1 - .5)) + (2 * .5 + 8 (1 - .5)) = 1.5 + 5 by interaction.

    >>> one = Slates(np.ones((1, 2)), np.array([[0.5, 0.25]]), np.ones((1, 2)), np.ones((1, 2), bool))
    >>> half = SlotModel(np.full((1, 2), 0.5), np.full((1, 2), 0.5))
    >>> [doubly_robust_slate_value(one, belief, half).value for belief in BELIEFS]
    [9.0, 6.5, 4.0]

    Raises:
        ExperimentError: The model's shape is another, or it is not finite.
    """
    for part_SK in (model.chosen_SK, model.expected_SK):
        if part_SK.shape != slates.reward_SK.shape or not np.isfinite(part_SK[slates.filled_SK]).all():
            raise ExperimentError(
                "the model of slots", value=part_SK.shape, limit=f"finite, of shape {slates.reward_SK.shape}"
            )
    weight_SK, above_SK = slates.weights(belief), slates.weights_above(belief)
    gained_SK = above_SK * model.expected_SK + weight_SK * (slates.reward_SK - model.chosen_SK)
    return Terms.mean(np.where(slates.filled_SK, gained_SK, 0.0).sum(axis=1))


def self_normalised_slate_value(slates: Slates, belief: Belief) -> Terms:
    """Of each slot the weighted rewards over the weights, added up over slots, each by the share of lists that have it.

    Consistent where `slate_value` is unbiased, with less variance; its value stays within the rewards' range.
    """
    weight_SK = slates.weights(belief)
    reward_SK = np.where(slates.filled_SK, slates.reward_SK, 0.0)
    share_K = slates.filled_SK.mean(axis=0)
    return Terms(weight_SK * reward_SK * share_K, weight_SK)
