"""Other weights of an experiment's variants, judged from its log: what each variant's propensity was logged for.

Shape letters: R decisions, V variants, D draws (a unit's in an epoch).
"""

from typing import Final

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
    if metric.kind == "variant":
        raise ExperimentError(
            f"metric {metric.name}", value="of a variant as a whole", limit="of requests or units", mend="choose another"
        )  # fmt: skip
    variants = experiment.variant_names
    weight_PV, row_R = policy.distributions(variants, _asked(seen, policy))
    unsupported = _unsupported(weight_PV[row_R], seen.propensity_RV, variants)
    found = measure(seen, metric, experiment.attribution_window_ms)
    if not len(found.row_K):
        raise ExperimentError(
            f"decisions whose window of {metric.name} has closed", value=0, limit="at least 1", mend="wait"
        )
    row_K = found.row_K
    own_K = seen.own_propensities()[row_K]
    weight_K = weight_PV[row_R[row_K], seen.variant_R[row_K]] / own_K
    cluster_K = np.unique(seen.unit_R[row_K], return_inverse=True)[1].astype(np.int64)
    first_D = seen.first_exposures()
    weight_D = weight_PV[row_R[first_D], seen.variant_R[first_D]] / seen.own_propensities()[first_D]
    cluster_D = np.unique(seen.unit_R[first_D], return_inverse=True)[1].astype(np.int64)
    support = support_of(weight_D, cluster_D, unsupported)
    require_support(support, least_effective)
    terms = {MAIN: Terms.ratio(weight_K * found.numerator_K, weight_K * found.denominator_K)}
    if metric.per == "request" and metric.reward is not None:
        terms |= _of_requests(seen, found, weight_PV, row_R[row_K], cluster_K, seed)
    logged = Terms.ratio(found.numerator_K, found.denominator_K)
    return Judgement(
        policy=name, metric=metric.name, unit=metric.unit, level=level,
        logged=interval(logged, cluster_K, level, seed),
        estimates=all_estimated(terms, logged, cluster_K, level, seed), main=MAIN, support=support,
        read=len(seen) + seen.num_open, rows=len(row_K),
        left_out={"attribution window still open": seen.num_open + len(seen) - len(row_K)},
        weights=histogram(weight_D), notes=[*calibration_note(support)],
    )  # fmt: skip


def _of_requests(
    seen: Observations, found: Measured, weight_PV: Float64, row_K: Int64, cluster_K: Int64, seed: int
) -> dict[str, Terms]:
    """Estimates that take each request for a choice of a variant."""
    num_variants = weight_PV.shape[1]
    action_K = seen.variant_R[found.row_K]
    model_KV = None
    if len(np.unique(cluster_K)) >= NUM_FOLDS:
        context_KX = np.hstack([_one_hot(seen.device_R[found.row_K]), _one_hot(seen.country_R[found.row_K])])
        model_KV = expected_rewards(
            context_KX, action_K, found.numerator_K, np.eye(num_variants), cluster_K, seed=seed
        )
    choices = Choices(
        action_K, found.numerator_K, seen.own_propensities()[found.row_K], weight_PV, row_K, model_KV
    )
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


def _one_hot(value_R: Strings) -> Float64:
    """Columns of the most frequent values; the others have a row of zeros."""
    values, counts = np.unique(value_R.astype(str), return_counts=True)
    kept = values[np.argsort(-counts, kind="stable")][:_MOST_VALUES]
    found_RX: Float64 = (value_R.astype(str)[:, None] == kept).astype(np.float64)
    return found_RX
