"""CUPED: what units did before the experiment explains part of how they differ, and is taken out of the comparison.

Shape letters: U units, V variants, C covariates.

r_adjusted = r - theta (mean of x over the variant's units - mean of x over all units). Assignment cannot have changed what lay
before it, so that the adjusted value expects the same as r, and its variance is smaller by the factor 1 - rho^2
[Deng, Xu, Kohavi & Walker 2013]. For ratio metrics the same is done to the units' influences
[Deng, Knoblich & Lu 2018]. Only for fixed splits: a bandit's shares may depend on what units did before.
"""

from dataclasses import dataclass

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.statistics.influence import Influence
from tastemaker.types import Bool, Float64


@dataclass(frozen=True, slots=True)
class Cuped:
    """The adjusted values; `variance_reduction` is the share of the variance between units that the covariates took out."""

    influence: Influence
    variance_reduction: float


def cuped(influence: Influence, covariate_UC: Float64, member_UV: Bool) -> Cuped:
    """Values adjusted for covariates of the time before the experiment.

    Units without a past (NaN) are told apart by a column of their own, so that they are adjusted by nothing but how many of
    them each variant has. Theta is fitted within variants, one for all.

    By hand: values 1, 3 against 5, 7 with covariates 0, 2 against 1, 3. Within variants y rises by 1 with x, so theta is 1
    and nothing varies any more; the variants' covariates are half above and below the mean of all, 1.5, so 2 and 6 become 2.5
    and 5.5.

    >>> values = np.array([[1.0, 0], [3, 0], [0, 5], [0, 7]])
    >>> member = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
    >>> influence = Influence(np.array([2.0, 6.0]), np.where(member, values - [2, 6], 0) / 2 * 2**0.5, np.array([2, 2]))
    >>> found = cuped(influence, np.array([[0.0], [2], [1], [3]]), member)
    >>> found.influence.value_V.tolist(), round(found.variance_reduction, 12)
    ([2.5, 5.5], 1.0)

    Args:
        influence: As the experiment itself tells.
        covariate_UC: Of the time before; NaN where the unit has none.
        member_UV: Whether a unit met a variant; at most one each.

    Raises:
        ExperimentError: A unit met several variants, or shapes differ.
    """
    if covariate_UC.ndim != 2 or len(covariate_UC) != len(member_UV):
        raise ExperimentError(
            "covariates' shape", value=covariate_UC.shape, limit=f"({len(member_UV)}, covariates)"
        )
    if (member_UV.sum(axis=1) > 1).any():
        raise ExperimentError(
            "a unit met several variants", mend="compare bandits without CUPED: their shares may follow a unit's past"
        )  # fmt: skip
    member_U: Bool = np.any(member_UV, axis=1)
    units_V = member_UV.sum(axis=0)
    scale_V = np.sqrt(
        np.maximum(units_V * (units_V - 1), 1)
    )  # from a unit's influence on a mean to its own residual
    column_UC = _columns(covariate_UC, member_U)
    mean_VC = (member_UV.T @ column_UC) / np.maximum(units_V, 1)[:, None]
    within_UC = np.where(member_U[:, None], column_UC - member_UV @ mean_VC, 0.0)
    residual_U = (influence.influence_UV * member_UV * scale_V).sum(axis=1)
    theta_C, _, rank, _ = np.linalg.lstsq(within_UC, residual_U, rcond=None)
    free = units_V.sum() - (units_V > 0).sum()
    left_U = (residual_U - within_UC @ theta_C) * np.sqrt(free / max(free - rank, 1))
    before, after = float(residual_U @ residual_U), float(left_U @ left_U)
    # What is fitted once for all is known from all units: their mean moves each variant's value alike.
    shared_U = column_UC @ theta_C / max(int(member_UV.sum()), 1)
    adjusted = Influence(
        influence.value_V - mean_VC @ theta_C,
        np.where(member_UV, left_U[:, None], 0.0) / scale_V + shared_U[:, None],
        influence.units_V,
    )
    return Cuped(adjusted, 1 - after / before if before > 0 else 0.0)


def ratio_covariate(numerator_U: Float64, denominator_U: Float64) -> Float64:
    """The covariate (U, 1) of a ratio metric's own past: n - r d with r over all units; NaN where d is 0 (no past).

    >>> ratio_covariate(np.array([2.0, 1, 0]), np.array([2.0, 4, 0])).ravel().tolist()  # r = 3/6
    [1.0, -1.0, nan]
    """
    total = denominator_U.sum()
    value = numerator_U.sum() / total if total > 0 else 0.0
    return np.where(denominator_U > 0, numerator_U - value * denominator_U, np.nan)[:, None]


def _columns(covariate_UC: Float64, member_U: Bool) -> Float64:
    """Covariates with mean 0 over members, 0 where absent, and which were absent; 0 for units that met no variant."""
    absent_UC = np.isnan(covariate_UC)
    known_UC = ~absent_UC & member_U[:, None]
    mean_C = np.where(known_UC, covariate_UC, 0.0).sum(axis=0) / np.maximum(known_UC.sum(axis=0), 1)
    value_UC = np.where(known_UC, covariate_UC - mean_C, 0.0)
    patterns = {
        column_U.tobytes(): column_U for column_U in (absent_UC & member_U[:, None]).T if column_U.any()
    }
    lacking = [
        np.where(member_U, column_U - column_U[member_U].mean(), 0.0) for column_U in patterns.values()
    ]
    return np.column_stack([value_UC, *lacking])
