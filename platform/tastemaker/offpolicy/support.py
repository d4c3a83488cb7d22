"""Whether a log can carry an estimate: how much of the evaluated policy it never tries, and how few rows decide.

Under full support importance weights have mean 1 (a control variate that costs nothing): a mean that lies below 1 by more
than luck is mass of the evaluated policy that the logging policy cannot choose, and no estimate knows what it would earn.

Shape letters: R rows, C clusters.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.offpolicy.intervals import interval
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Float64, Int64

LEAST_EFFECTIVE: Final = 100.0
LEAST_MASS: Final = 0.95
"""Of the policy's mass that the log must be able to show; known exactly or within the mean weight's interval."""
MASS_LEVEL: Final = 0.99
"""Of the interval of the mean weight: of policies that are supported whole, at most one in 200 is refused."""
_TINY: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Support:
    """What the weights of an estimate say about it.

    `effective_rows` is Kish's (sum of w)^2 / (sum of w^2): so many rows of equal weight vary as little. `largest_share` is
    the part of all weight that one row has. `mean_weight`, from `mean_low` to `mean_high` at 99%, estimates the supported
    share of the policy's mass; `unsupported` is what is known to lack it, from distributions that are logged whole.
    """

    num_rows: int
    num_used: int
    num_clusters: int
    effective_rows: float
    largest_weight: float
    largest_share: float
    mean_weight: float
    mean_low: float
    mean_high: float
    unsupported: float

    @property
    def supported(self) -> float:
        """Share of the policy's mass that the log may show, at most: known, and within the luck of the weights' mean."""
        return max(0.0, min(1.0 - self.unsupported, self.mean_high, 1.0))


def support_of(
    weight_R: Float64, cluster_R: Int64, unsupported: float = 0.0, known_R: Float64 | None = None
) -> Support:
    """Diagnostics of importance weights.

    By hand: weights 2, 2, 0, 0: effective rows 4^2 / 8 = 2, the largest has half of the weight, the mean is 1.

    >>> found = support_of(np.array([2.0, 2, 0, 0]), np.arange(4))
    >>> found.effective_rows, found.largest_share, found.mean_weight, found.num_used
    (2.0, 0.5, 1.0, 2)

    Args:
        weight_R: Of each row; for lists, of the slot whose weights vary most.
        cluster_R: See `intervals.interval`.
        unsupported: Share of the policy's mass that is known to lack support.
        known_R: What is known to be missing from the mean of each row's weight under full support; unset, nothing.

    Raises:
        ExperimentError: Fewer than two clusters.
    """
    total, squares = float(weight_R.sum()), float((weight_R**2).sum())
    whole_R = weight_R if known_R is None else weight_R + known_R
    mean = interval(Terms.mean(whole_R), cluster_R, MASS_LEVEL)
    largest = float(weight_R.max(initial=0.0))
    return Support(
        num_rows=len(weight_R),
        num_used=int((weight_R > 0).sum()),
        num_clusters=len(np.unique(cluster_R)),
        effective_rows=total**2 / squares if squares else 0.0,
        largest_weight=largest,
        largest_share=largest / total if total else 0.0,
        mean_weight=mean.value,
        mean_low=mean.low,
        mean_high=mean.high,
        unsupported=unsupported,
    )


def unsupported_mass(policy_RA: Float64, logged_RA: Float64) -> float:
    """Mean share of the policy's mass on actions that the logging policy never takes.

    >>> unsupported_mass(np.array([[0.25, 0.75]]), np.array([[1.0, 0.0]]))
    0.75
    """
    return float(np.where(logged_RA > 0, 0.0, policy_RA).sum(axis=1).mean())


def require_support(
    support: Support, least_effective: float = LEAST_EFFECTIVE, least_mass: float = LEAST_MASS
) -> None:
    """Refuses an estimate that the log cannot carry.

    Raises:
        ExperimentError: Too much of the policy's mass lacks support, or too few rows decide.
    """
    if support.supported < least_mass - _TINY:
        raise ExperimentError(
            f"what the policy would do lacks support in the log: of its mass, {1 - support.supported:.1%} is on what was never "
            f"tried, and {support.num_used:,} of {support.num_rows:,} answers agree with it; supported share",
            value=round(support.supported, 4), limit=f"at least {least_mass:g}",
            mend="judge a policy nearer to what was logged or fewer slots (--depth), or let more traffic explore (reranking.sampling, an allocation's floor)",
        )  # fmt: skip
    if support.effective_rows < least_effective:
        raise ExperimentError(
            f"the estimate would rest on few answers: those of equal weight among {support.num_rows:,}",
            value=round(support.effective_rows, 1), limit=f"at least {least_effective:g}",
            mend="log more days, or judge a policy nearer to what was logged or fewer slots (--depth)",
        )  # fmt: skip
