"""Other weights of an experiment's variants, judged from its log: what each variant's propensity was logged for.

Shape letters: R decisions, K of them whose number is known, V variants, D draws (a unit's in an epoch), P distributions.
"""

from typing import Final, NamedTuple

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import Metric
from tastemaker.experiments.reporting.measures import Measured, measure
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.offpolicy import estimators
from tastemaker.offpolicy.estimators import Choices
from tastemaker.offpolicy.intervals import interval
from tastemaker.offpolicy.judgement import Judgement, all_estimated, calibration_note, histogram
from tastemaker.offpolicy.policies import JudgedPolicy
from tastemaker.offpolicy.reward_model import NUM_FOLDS, expected_rewards
from tastemaker.offpolicy.support import LEAST_EFFECTIVE, require_support, support_of, unsupported_mass
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Bool, Float64, Int64, Strings

MAIN: Final = "self-normalised"
_MOST_VALUES: Final = 20
_MOST_UNSUPPORTED: Final = 1e-9


class Shares(NamedTuple):
    """What a policy gives: distributions over variants (P, V), which holds for each decision (R,), and the decisions that draw (D,)."""

    weight_PV: Float64
    row_R: Int64
    first_D: Int64


def judge_weights(
    seen: Observations,
    experiment: Experiment,
    metric: Metric,
    policy: JudgedPolicy,
    *,
    name: str = "policy",
    level: float = 0.95,
    least_effective: float = LEAST_EFFECTIVE,
    seed: int = 0,
) -> Judgement:
    """What the experiment's traffic would have earned under other weights.

    The main estimate is the metric's weighted numerators over its weighted denominators, a Hájek ratio, by units: right also
    where a variant changes how often its users come back. Metrics of requests are estimated in further ways.

    Args:
        seen: The experiment's decisions.
        experiment: Theirs.
        metric: Of kind "ratio" or "unit mean".
        policy: Of weights.
        name: Of the policy, in the judgement.
        level: Of intervals.
        least_effective: See `support.require_support`.
        seed: Of the bootstrap.

    Raises:
        ExperimentError: The metric is of no decision or unit, or the log does not support the policy.
    """
    shares = Shares(
        *policy.distributions(experiment.variant_names, _asked(seen, policy)), seen.first_exposures()
    )
    return judge_shares(
        seen, experiment, metric, shares, name=name, level=level, least_effective=least_effective, seed=seed
    )


def judge_shares(
    seen: Observations,
    experiment: Experiment,
    metric: Metric,
    shares: Shares,
    *,
    name: str,
    level: float,
    least_effective: float,
    seed: int,
) -> Judgement:
    """What the experiment's traffic would have earned, had each decision's variant been drawn by other shares.

    Raises:
        ExperimentError: The metric is of no decision or unit, or the log does not support the shares.
    """
    if metric.kind == "variant":
        raise ExperimentError(
            f"metric {metric.name}", value="of a variant as a whole", limit="of requests or units", mend="choose another"
        )  # fmt: skip
    weight_RV = shares.weight_PV[shares.row_R]
    unsupported = _unsupported(weight_RV, seen.propensity_RV, experiment.variant_names)
    found = measure(seen, metric)
    if not len(found.row_K):
        raise ExperimentError(
            f"decisions whose window of {metric.name} has closed", value=0, limit="at least 1", mend="wait"
        )
    weight_R = weight_RV[np.arange(len(seen)), seen.variant_R] / seen.own_propensities()
    cluster_K, cluster_D = (_numbered(seen.unit_R[rows]) for rows in (found.row_K, shares.first_D))
    support = support_of(weight_R[shares.first_D], cluster_D, unsupported)
    require_support(support, least_effective)
    weight_K = weight_R[found.row_K]
    terms = {MAIN: Terms.ratio(weight_K * found.numerator_K, weight_K * found.denominator_K)}
    if metric.per == "request" and metric.reward is not None:
        terms |= _of_requests(seen, found, shares, cluster_K, seed)
    logged = Terms.ratio(found.numerator_K, found.denominator_K)
    return Judgement(
        policy=name, metric=metric.name, unit=metric.unit, level=level,
        logged=interval(logged, cluster_K, level, seed),
        estimates=all_estimated(terms, logged, cluster_K, level, seed), main=MAIN, support=support,
        read=len(seen) + seen.num_open, rows=len(found.row_K),
        left_out={"attribution window still open": seen.num_open + len(seen) - len(found.row_K)},
        weights=histogram(weight_R[shares.first_D]), notes=[*calibration_note(support)],
    )  # fmt: skip


def _of_requests(
    seen: Observations, found: Measured, shares: Shares, cluster_K: Int64, seed: int
) -> dict[str, Terms]:
    """Estimates that take each request for a choice of a variant."""
    num_variants = shares.weight_PV.shape[1]
    action_K = seen.variant_R[found.row_K]
    model_KV = None
    if len(np.unique(cluster_K)) >= NUM_FOLDS:
        context_KX = np.hstack([_one_hot(seen.device_R[found.row_K]), _one_hot(seen.country_R[found.row_K])])
        model_KV = expected_rewards(
            context_KX, action_K, found.numerator_K, np.eye(num_variants), cluster_K, seed=seed
        )
    choices = Choices(
        action_K, found.numerator_K, seen.own_propensities()[found.row_K], shares.weight_PV,
        shares.row_R[found.row_K], model_KV,
    )  # fmt: skip
    terms = {"ips": estimators.ips(choices)}
    if model_KV is not None:
        terms |= {
            "direct": estimators.direct(choices),
            "doubly robust": estimators.doubly_robust(choices),
            "self-normalised doubly robust": estimators.self_normalised_doubly_robust(choices),
        }
    return terms


def _asked(seen: Observations, policy: JudgedPolicy) -> Strings:
    return seen.country_R if policy.by == "country" else seen.device_R


def _unsupported(policy_RV: Float64, logged_RV: Float64, variants: tuple[str, ...]) -> float:
    """See `unsupported_mass`; refuses at once where a variant is wanted that some requests could never get."""
    mass = unsupported_mass(policy_RV, logged_RV)
    if mass > _MOST_UNSUPPORTED:
        lacking_RV: Bool = (policy_RV > 0) & (logged_RV <= 0)
        names = [name for v, name in enumerate(variants) if lacking_RV[:, v].any()]
        raise ExperimentError(
            f"the policy gives requests to {', '.join(names)} that could never get it: of its mass, the share that lacks support",
            value=round(mass, 4), limit="0", mend="give every variant a share or a floor, and judge from the log of that time",
        )  # fmt: skip
    return mass


def _numbered(value_R: Int64) -> Int64:
    """Values as numbers from 0, without gaps."""
    return np.unique(value_R, return_inverse=True)[1].astype(np.int64)


def _one_hot(value_R: Strings) -> Float64:
    """Columns of the most frequent values; the others have a row of zeros."""
    values, counts = np.unique(value_R.astype(str), return_counts=True)
    kept = values[np.argsort(-counts, kind="stable")][:_MOST_VALUES]
    found_RX: Float64 = (value_R.astype(str)[:, None] == kept).astype(np.float64)
    return found_RX
