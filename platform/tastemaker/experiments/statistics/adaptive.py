"""Values of a bandit's variants: doubly robust scores of each draw, weighted so that rare arms do not rule the error.

Shape letters: E draws (unit and epoch, in the order of time), U units, V variants.
"""

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import Influence
from tastemaker.experiments.statistics.ratios import Units, unit_codes
from tastemaker.types import Float64, Int64


def adaptive_influence(
    unit_E: Units,
    variant_E: Int64,
    propensity_EV: Float64,
    numerator_E: Float64,
    denominator_E: Float64 | None = None,
) -> Influence:
    """Values of adaptively drawn variants by augmented inverse-propensity weights [Hadad, Hirshberg, Zhan, Wager & Athey 2021].

    The score of a draw is m + [drawn] (y - m) / p with m the variant's mean over earlier draws: given what came before it
    expects the variant's value, whatever p was learned from. The weighted mean of scores is normal for large E where p
    stays above a floor, clustered by unit. Draws weigh (sum over variants of 1 / p)^-1/2, which evens out the variance of
    differences. A departure: the paper's weights are each arm's own, which compares arms over different times wherever
    visitors or items change; these are common to all arms.

    With denominators the values are ratios of two such means.

    By hand: two draws at 1/2 of the first variant, 4 and 2. Its scores: 0 + (4 - 0) 2 = 8 and 4 + (2 - 4) 2 = 0; mean 4.

    >>> found = adaptive_influence(["u", "w"], np.array([0, 0]), np.full((2, 2), 0.5), np.array([4.0, 2.0]))
    >>> found.value_V.tolist(), found.units_V.tolist()
    ([4.0, nan], [2, 0])

    Args:
        unit_E: Ids, or numbers of units.
        variant_E: What was drawn, from 0.
        propensity_EV: Of every variant at that draw, above 0.
        numerator_E: What the unit did in the epoch, such as clicks.
        denominator_E: Such as requests; unset, the value is the mean by draw.

    Raises:
        ExperimentError: No draws, or a propensity of 0.
    """
    if len(variant_E) == 0:
        raise ExperimentError("no unit was assigned yet", mend="wait for traffic")
    if propensity_EV.min() <= 0:
        raise ExperimentError(
            "a propensity", value=float(propensity_EV.min()), limit="above 0", mend="give the policy a floor"
        )
    num_units, code_E = unit_codes(unit_E)
    drawn_EV = np.eye(propensity_EV.shape[1])[variant_E]
    weight_E = (1 / propensity_EV).sum(axis=1) ** -0.5
    weight_E /= weight_E.sum()
    units_V = np.array([len(np.unique(code_E[variant_E == v])) for v in range(drawn_EV.shape[1])])
    value_V, error_EV = _mean(drawn_EV, propensity_EV, numerator_E, weight_E)
    if denominator_E is not None:
        below_V, below_EV = _mean(drawn_EV, propensity_EV, denominator_E, weight_E)
        with np.errstate(divide="ignore", invalid="ignore"):
            value_V = np.where(below_V > 0, value_V / below_V, np.nan)
            error_EV = np.where(below_V > 0, (error_EV - value_V * below_EV) / below_V, 0.0)
    influence_UV = np.zeros((num_units, drawn_EV.shape[1]))
    np.add.at(influence_UV, code_E, error_EV)
    known_V = units_V >= 2
    return Influence(
        np.where(known_V, value_V, np.nan),
        np.where(known_V, influence_UV, 0.0) * np.sqrt(num_units / max(num_units - 1, 1)),
        units_V,
    )


def _mean(
    drawn_EV: Float64, propensity_EV: Float64, value_E: Float64, weight_E: Float64
) -> tuple[Float64, Float64]:
    """Weighted mean of the scores, and each draw's part in its error."""
    before_EV = np.cumsum(drawn_EV, axis=0) - drawn_EV
    sum_EV = np.cumsum(drawn_EV * value_E[:, None], axis=0) - drawn_EV * value_E[:, None]
    model_EV = np.divide(sum_EV, before_EV, out=np.zeros_like(sum_EV), where=before_EV > 0)
    score_EV = model_EV + drawn_EV * (value_E[:, None] - model_EV) / propensity_EV
    mean_V = weight_E @ score_EV
    return mean_V, weight_E[:, None] * (score_EV - mean_V)
