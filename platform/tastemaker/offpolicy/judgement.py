"""What a judgement says: values of the policy by each estimator beside what was logged, and the log's support for them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tastemaker.offpolicy.intervals import Interval, interval
from tastemaker.offpolicy.support import Support
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class Estimated:
    """One estimator's value of the policy, and how far it lies from what was logged, with their intervals."""

    estimator: str
    value: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class Judgement:
    """A policy judged from a log.

    `main` names the estimator to read. `rows` were used of `read` answers; `left_out` says why of the others. `weights` is a
    histogram of importance weights: upper ends of bins, and the share of rows in each. Of lists the first `depth` slots were judged
    alone, where it is not None.
    """

    policy: str
    metric: str
    unit: str
    level: float
    logged: Interval
    estimates: list[Estimated]
    main: str
    support: Support
    read: int
    rows: int
    left_out: Mapping[str, int]
    weights: tuple[list[float], list[float]]
    notes: list[str] = field(default_factory=list)
    depth: int | None = None

    @property
    def headline(self) -> Estimated:
        """The main estimator's."""
        return next(one for one in self.estimates if one.estimator == self.main)

    def as_json(self) -> dict[str, Any]:
        """All of it, JSON-able, with the supported share."""
        found = asdict(self)
        found["support"]["supported"] = self.support.supported
        return found

    @property
    def measured(self) -> str:
        """The metric, and of which slots."""
        if self.depth is None:
            return self.metric
        return f"{self.metric} of the first {'slot' if self.depth == 1 else f'{self.depth} slots'}"

    def advice(self) -> str:
        """What to make of it, in words."""
        one = self.headline
        share = f"{self.support.supported:.0%} of what the policy would do was tried"
        effective = (
            f"{self.support.effective_rows:,.0f} of {self.rows:,} answers count as many of equal weight"
        )
        verdict = "may have earned more than what was logged, or less"
        if one.difference.low > 0:
            verdict = "would have earned more than what was logged"
        elif one.difference.high < 0:
            verdict = "would have earned less than what was logged"
        return f"The policy {verdict}: {share}; {effective}."


def estimated(name: str, terms: Terms, logged: Terms, cluster_R: Int64, level: float, seed: int) -> Estimated:
    """A value and its difference to the logged one, whose interval knows that both come from the same rows."""
    against = Terms(-logged.numerator_RJ, logged.denominator_RJ)
    return Estimated(
        name,
        interval(terms, cluster_R, level, seed),
        interval(terms.plus(against), cluster_R, level, seed),
    )


def all_estimated(
    terms: Mapping[str, Terms], logged: Terms, cluster_R: Int64, level: float, seed: int
) -> list[Estimated]:
    """Each estimator's."""
    return [estimated(name, one, logged, cluster_R, level, seed) for name, one in terms.items()]


def histogram(weight_R: Float64, num_bins: int = 30) -> tuple[list[float], list[float]]:
    """Upper ends of bins between 0 and the largest weight, and the share of rows in each; zeros have a bin of their own.

    >>> histogram(np.array([0.0, 1.0, 2.0, 2.0]), 2)
    ([0.0, 1.0, 2.0], [0.25, 0.25, 0.5])
    """
    largest = float(weight_R.max(initial=0.0))
    positive = weight_R[weight_R > 0]
    ends = np.linspace(0, largest or 1.0, num_bins + 1)[1:]
    place = np.minimum(np.searchsorted(ends, positive * (1 - 1e-12)), num_bins - 1)
    share = np.bincount(place, minlength=num_bins) / max(1, len(weight_R))
    return [0.0, *ends.tolist()], [1 - len(positive) / max(1, len(weight_R)), *share.tolist()]


def calibration_note(support: Support, slack: float = 0.02) -> Sequence[str]:
    """A warning where the weights' mean is above 1 by more than luck: propensities that were logged are not those drawn by."""
    if support.mean_low <= 1 + slack:
        return ()
    return (
        f"importance weights have mean {support.mean_weight:.3f}, above 1 by more than luck: "
        "logged propensities are not those that choices were drawn by",
    )
