"""Other lists judged from the log of drawn ones: of another bundle, of other stages, of any policy that can tell its list.

The judged policy shows one list for sure. A logged list speaks for it as far down as both agree (reward interaction), only
where they agree as a whole, or slot by slot (item and position); by the logged propensities the others' share is made up for.

Shape letters: S lists, K slots.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.metrics import Metric
from tastemaker.offpolicy.intervals import interval
from tastemaker.offpolicy.judgement import Judgement, all_estimated, calibration_note, histogram
from tastemaker.offpolicy.logged_lists import LoggedLists
from tastemaker.offpolicy.slates import (
    Belief,
    Slates,
    SlotModel,
    doubly_robust_slate_value,
    self_normalised_slate_value,
    slate_value,
)
from tastemaker.offpolicy.slot_chances import SlotChances
from tastemaker.offpolicy.slot_rewards import slot_model
from tastemaker.offpolicy.support import LEAST_EFFECTIVE, LEAST_MASS, Support, require_support, support_of
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Float64, Int64

NAMES: Final[Mapping[Belief, str]] = {
    "whole-list": "whole list",
    "reward-interaction": "reward interaction",
    "item-position": "item and position",
}
"""What estimators are called by belief."""
_CERTAIN: Final = 1 - 1e-9


def judge_lists(
    logged: LoggedLists,
    judged: Sequence[Sequence[str]],
    metric: Metric,
    *,
    belief: Belief = "reward-interaction",
    chances: SlotChances | None = None,
    name: str = "policy",
    level: float = 0.95,
    least_effective: float = LEAST_EFFECTIVE,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Judgement:
    """What the logged requests would have earned with other lists.

    Args:
        logged: What was shown, with probabilities and rewards.
        judged: The policy's list for each of the same requests.
        metric: The rewards'.
        belief: About where a slot's rewards come from, see `slates`.
        chances: Of the judged items in their slots, which `item-position` asks for and nothing else does.
        name: Of the policy, in the judgement.
        level: Of intervals.
        least_effective: See `support.require_support`.
        seed: Of the bootstrap.
        notes: To go into the judgement.

    Raises:
        ExperimentError: The log does not support the policy.
    """
    if len(judged) != len(logged):
        raise ExperimentError("lists of the policy", value=len(judged), limit=f"{len(logged)}, one a request")
    policy_SK = agreement(logged, judged)
    propensity_SK = logged.propensity_SK
    if belief == "item-position":
        assert chances is not None, "item-position asks for chances of slots"
        propensity_SK = chances.marginal_SK
    slates = Slates(logged.reward_SK, propensity_SK, policy_SK, logged.filled_SK)
    if chances is not None and belief == "item-position":
        weight_S, support = _slot_support(logged, slates, chances)
    else:
        weight_S = _deepest(slates.weights(belief), logged)
        support = support_of(weight_S, logged.cluster_S, unsupported_lists(logged, policy_SK))
    require_support(support, least_effective)
    model = slot_model(
        logged.items, judged, logged.reward_SK, logged.filled_SK, logged.cluster_S, belief, seed=seed
    )
    terms = _terms(slates, belief, model)
    earned = Terms.mean(np.where(logged.filled_SK, logged.reward_SK, 0.0).sum(axis=1))
    return Judgement(
        policy=name, metric=metric.name, unit=metric.unit, level=level,
        logged=interval(earned, logged.cluster_S, level, seed),
        estimates=all_estimated(terms, earned, logged.cluster_S, level, seed), main=f"{NAMES[belief]}, doubly robust", support=support,
        read=logged.num_read, rows=len(logged), left_out=logged.left_out,
        weights=histogram(weight_S), notes=[*notes, *calibration_note(support)],
    )  # fmt: skip


def _terms(slates: Slates, belief: Belief, model: SlotModel) -> dict[str, Terms]:
    """The estimates of one belief, the main one first, and of a weaker one that has the same support."""
    name = NAMES[belief]
    terms = {
        f"{name}, doubly robust": doubly_robust_slate_value(slates, belief, model),
        name: slate_value(slates, belief),
        f"{name}, self-normalised": self_normalised_slate_value(slates, belief),
    }
    if belief == "reward-interaction":
        terms[NAMES["whole-list"]] = slate_value(slates, "whole-list")
    return terms


def _slot_support(logged: LoggedLists, slates: Slates, chances: SlotChances) -> tuple[Float64, Support]:
    """Weights of the slot that fewest answers speak for, (S,), and its support; a list that has no such slot lacks nothing."""
    weight_SK, found = slates.weights("item-position"), []
    for k in range(logged.filled_SK.shape[1]):
        filled_S = logged.filled_SK[:, k]
        lacking = float((filled_S & ~chances.possible_SK[:, k]).mean())
        missing_S = (~filled_S).astype(np.float64)
        found.append((weight_SK[:, k], support_of(weight_SK[:, k], logged.cluster_S, lacking, missing_S)))
    return min(found, key=lambda one: (one[1].supported >= LEAST_MASS, one[1].effective_rows))


def agreement(logged: LoggedLists, judged: Sequence[Sequence[str]]) -> Float64:
    """Whether each logged slot has the judged list's item, (S, K): the policy's probability of it given agreement above."""
    policy_SK = np.ones(logged.filled_SK.shape)
    for s, (shown, wanted) in enumerate(zip(logged.items, judged, strict=True)):
        for k, item in enumerate(shown):
            policy_SK[s, k] = float(k < len(wanted) and wanted[k] == item)
    return policy_SK


def unsupported_lists(logged: LoggedLists, policy_SK: Float64) -> float:
    """Share of the requests where the judged list differs first in a slot whose logged item was certain.

    There nothing else could have been shown: the policy's list has no support. Where the logged item was one of several the
    judged item may have been another of them, or not; the weights' mean tells.
    """
    differs_SK = (policy_SK == 0) & logged.filled_SK
    first_S = differs_SK.argmax(axis=1)
    certain_S = logged.propensity_SK[np.arange(len(logged)), first_S] >= _CERTAIN
    return float((differs_SK.any(axis=1) & certain_S).mean())


def _deepest(weight_SK: Float64, logged: LoggedLists) -> Float64:
    """The weight of each list's last slot, (S,): it varies most, and support for it is support for those above."""
    last_S: Int64 = logged.filled_SK.sum(axis=1) - 1
    return weight_SK[np.arange(len(last_S)), last_S]
