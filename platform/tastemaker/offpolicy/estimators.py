"""What a policy would have earned, estimated from choices that another one made and logged with their probabilities.

With w = policy(a | x) / propensity(a | x) of the logged choice a, r its reward and q(x, a) a model of rewards. All take
rewards to depend on the context and the choice alone, and all but the direct method need a propensity above 0 for whatever
the policy may choose (`support`). Without such support their value is of the supported part of the policy.

Shape letters: R rows, A actions, P distributions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Float64, Int64

SUM_TOLERANCE = 1e-6
_FEW = 16
"""So many distributions are gone through one by one, which copies none of them for each row."""


@dataclass(frozen=True, slots=True)
class Choices:
    """One logged choice a row.

    Args:
        action_R: What was chosen, from 0.
        reward_R: What came of it.
        propensity_R: Probability with which it was chosen, in (0, 1].
        policy_PA: Distributions of the evaluated policy over actions, each adding up to 1.
        policy_row_R: The distribution that holds for each row; unset, there is one for each row, or one for all.
        model_RA: Expected rewards by a model that has not seen the row, see `reward_model`.

    Raises:
        ExperimentError: Lengths differ, a probability is none, or a reward or expectation is not finite.
    """

    action_R: Int64
    reward_R: Float64
    propensity_R: Float64
    policy_PA: Float64
    policy_row_R: Int64 | None = None
    model_RA: Float64 | None = None

    def __post_init__(self) -> None:
        num, num_actions = len(self.action_R), self.policy_PA.shape[1]
        if not num:
            raise ExperimentError("logged choices", value=0, limit="at least 1", mend="wait for traffic")
        _same_length("rewards", len(self.reward_R), num)
        _same_length("propensities", len(self.propensity_R), num)
        if self.policy_row_R is not None:
            _same_length("rows of distributions", len(self.policy_row_R), num)
        elif len(self.policy_PA) not in (1, num):
            _same_length("distributions of the policy", len(self.policy_PA), num)
        if self.action_R.min() < 0 or self.action_R.max() >= num_actions:
            _refuse("a logged choice", int(self.action_R.max()), f"from 0 to {num_actions - 1}")
        if not (self.propensity_R.min() > 0 and self.propensity_R.max() <= 1):
            at = int(np.argmax(~((self.propensity_R > 0) & (self.propensity_R <= 1))))
            _refuse(f"propensity of row {at}", float(self.propensity_R[at]), "above 0, at most 1")
        if not np.isfinite(self.reward_R).all():
            _refuse("a reward", float(self.reward_R[~np.isfinite(self.reward_R)][0]), "finite")
        sum_P = self.policy_PA.sum(axis=1)
        if self.policy_PA.min() < 0 or not (np.abs(sum_P - 1) <= SUM_TOLERANCE).all():
            at = int(np.argmax(np.abs(sum_P - 1)))
            _refuse(f"the policy's distribution {at}: its sum", float(sum_P[at]), "1, of parts from 0 on")
        if self.model_RA is not None:
            _same_length("rows of the reward model", len(self.model_RA), num)
            if self.model_RA.shape[1] != num_actions or not np.isfinite(self.model_RA).all():
                _refuse("the reward model", self.model_RA.shape[1], f"finite for {num_actions} actions")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.action_R)

    @property
    def rows(self) -> Int64:
        """The distribution of each row."""
        if self.policy_row_R is not None:
            return self.policy_row_R
        return np.arange(len(self)) if len(self.policy_PA) == len(self) else np.zeros(len(self), np.int64)

    @property
    def weights(self) -> Float64:
        """Importance weights w."""
        weight_R: Float64 = self.policy_PA[self.rows, self.action_R] / self.propensity_R
        return weight_R

    @property
    def expected(self) -> Float64:
        """The model's expectation under the policy: the sum over a of policy(a | x) q(x, a)."""
        model_RA = self._model
        if len(self.policy_PA) > _FEW:
            each_RA = self.policy_PA if self.policy_row_R is None else self.policy_PA[self.policy_row_R]
            expected_R: Float64 = np.einsum("ra,ra->r", model_RA, each_RA)
            return expected_R
        expected_R, row_R = np.empty(len(self)), self.rows
        for row in range(len(self.policy_PA)):
            mine_R = row_R == row
            expected_R[mine_R] = model_RA[mine_R] @ self.policy_PA[row]
        return expected_R

    @property
    def chosen(self) -> Float64:
        """The model's expectation of what was chosen."""
        chosen_R: Float64 = self._model[np.arange(len(self)), self.action_R]
        return chosen_R

    @property
    def _model(self) -> Float64:
        if self.model_RA is None:
            raise ExperimentError(
                "the direct method and doubly robust estimates lack a reward model", mend="give model_RA"
            )
        return self.model_RA


def ips(choices: Choices) -> Terms:
    """Inverse propensity scores: mean of w r [Horvitz & Thompson 1952]. Unbiased; of high variance where weights are large.

    By hand: choices 0 and 1 by even luck with rewards 1 and 0, of a policy that takes 0 always: (2 * 1 + 0 * 0) / 2 = 1.

    >>> always = Choices(np.array([0, 1]), np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([[1.0, 0.0]]))
    >>> ips(always).value
    1.0
    """
    return Terms.mean(choices.weights * choices.reward_R)


def self_normalised(choices: Choices) -> Terms:
    """Self-normalised: sum of w r over the sum of w [Swaminathan & Joachims 2015]. Consistent, within the rewards' range.

    By hand: choices 0, 0, 1 by even luck with rewards 1, 0, 1, of a policy that takes 0: (2 + 0) / (2 + 2) = 1/2.

    >>> even = np.array([0.5, 0.5, 0.5])
    >>> self_normalised(Choices(np.array([0, 0, 1]), np.array([1.0, 0, 1]), even, np.array([[1.0, 0.0]]))).value
    0.5
    """
    weight_R = choices.weights
    return Terms.ratio(weight_R * choices.reward_R, weight_R)


def clipped(choices: Choices, limit: float) -> Terms:
    """Mean of min(w, limit) r [Ionides 2008]: less variance, too low where rewards are not negative.

    >>> always = Choices(np.array([0, 1]), np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([[1.0, 0.0]]))
    >>> clipped(always, 1.5).value
    0.75
    """
    return Terms.mean(np.minimum(choices.weights, limit) * choices.reward_R)


def direct(choices: Choices) -> Terms:
    """The direct method: mean of the model's expectation under the policy. As good as the model; needs no support.

    >>> q = np.array([[0.2, 0.4]])
    >>> one = Choices(np.array([0]), np.array([1.0]), np.array([0.5]), np.array([[0.5, 0.5]]), model_RA=q)
    >>> round(direct(one).value, 12)
    0.3
    """
    return Terms.mean(choices.expected)


def doubly_robust(choices: Choices) -> Terms:
    """Mean of q(x, policy) + w (r - q(x, a)) [Dudik, Langford & Li 2011]: unbiased where propensities or model are right.

    By hand: q(x, policy) = (.2 + .4) / 2 = .3, w = 1, r - q(x, a) = 1 - .2: .3 + .8 = 1.1.

    >>> q = np.array([[0.2, 0.4]])
    >>> one = Choices(np.array([0]), np.array([1.0]), np.array([0.5]), np.array([[0.5, 0.5]]), model_RA=q)
    >>> round(doubly_robust(one).value, 12)
    1.1
    """
    return _corrected(choices, choices.weights)


def self_normalised_doubly_robust(choices: Choices) -> Terms:
    """Mean of q(x, policy), and the self-normalised correction: sum of w (r - q(x, a)) over the sum of w."""
    weight_R = choices.weights
    left_R = choices.reward_R - choices.chosen
    return direct(choices).plus(Terms.ratio(weight_R * left_R, weight_R))


def switch_doubly_robust(choices: Choices, limit: float) -> Terms:
    """Doubly robust where w is at most the limit, the direct method elsewhere [Wang, Agarwal & Dudik 2017]."""
    weight_R = choices.weights
    return _corrected(choices, np.where(weight_R <= limit, weight_R, 0.0))


def shrunk_doubly_robust(choices: Choices, strength: float) -> Terms:
    """Doubly robust with w shrunk to strength w / (w^2 + strength) [Su et al. 2020, optimistic shrinkage]."""
    weight_R = choices.weights
    return _corrected(choices, strength * weight_R / (weight_R**2 + strength))


def _corrected(choices: Choices, weight_R: Float64) -> Terms:
    return Terms.mean(choices.expected + weight_R * (choices.reward_R - choices.chosen))


def _same_length(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        _refuse(what, found, f"{wanted}, one for each logged choice")


def _refuse(what: str, value: Any, limit: str) -> None:
    raise ExperimentError(what, value=value, limit=limit)
