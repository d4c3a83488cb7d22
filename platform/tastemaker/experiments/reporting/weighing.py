"""How an experiment's observations are made into values of variants.

Shape letters: R decisions, K decisions that have a number already, V variants.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from tastemaker.experiments.definition import Experiment, Fixed
from tastemaker.experiments.metrics import Metric
from tastemaker.experiments.reporting.measures import Measured, measure, totals_of
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.statistics.influence import Influence
from tastemaker.experiments.statistics.ratios import ratio_influence
from tastemaker.experiments.statistics.sequential import Boundary, cumulative_totals
from tastemaker.types import Int64

NUM_LOOKS: Final = 20
EFFECT: Final = 0.2
"""Relative change that always-valid intervals are tuned to where the experiment does not say which it wants to find.

Rather large: of effects that are found with less error intervals are up to a tenth wider than they could be, of rare events
much narrower than if they were tuned to small effects.
"""


@dataclass(frozen=True, slots=True)
class Weighing:
    """How an experiment's numbers are made into values: level of intervals, effect that they are tuned to, size of the catalogue."""

    experiment: Experiment
    level: float
    num_items: int

    @property
    def num_variants(self) -> int:
        """V."""
        return len(self.experiment.variants)

    @property
    def learns(self) -> bool:
        """Whether shares follow what units did, so that nothing of a unit may be adjusted for."""
        return not isinstance(self.experiment.allocation, Fixed)

    def boundary(self, metric: Metric) -> Boundary:
        """Of the always-valid intervals of a metric's lifts."""
        effect = self.effect(metric) or EFFECT
        return Boundary.for_effect(float(np.log1p(effect)), level=self.level)

    def effect(self, metric: Metric) -> float | None:
        """Relative change of the metric that is worth finding, where the experiment says one."""
        mine = metric.name == self.experiment.metric
        return self.experiment.minimum_detectable_effect if mine else None

    def measured(self, seen: Observations, metric: Metric) -> Measured:
        """The metric's numbers by decision."""
        return measure(seen, metric)

    def influence(self, seen: Observations, found: Measured) -> Influence:
        """Values by variant of a metric's numbers."""
        return ratio_influence(totals_of(seen, found, self.num_variants))


def influences(
    seen: Observations, found: Measured, weighing: Weighing, num_looks: int = NUM_LOOKS
) -> Iterator[tuple[int, Influence]]:
    """The metric after equal parts of its decisions: the end of each part, in ms of the log's clock, and all up to it.

    One at a time: each is as large as all units.
    """
    row_K = found.row_K
    if len(row_K) == 0:
        return
    shown_ms_K = seen.shown_ms_R[row_K]
    ends = np.unique(np.quantile(shown_ms_K, np.linspace(0, 1, num_looks + 1)[1:]).astype(np.int64) + 1)
    yield from _up_to(seen, found, weighing, shown_ms_K, ends.tolist())


def newest(seen: Observations, found: Measured, weighing: Weighing) -> Influence | None:
    """The last of `influences`; None where there is none."""
    shown_ms_K = seen.shown_ms_R[found.row_K]
    ends = [int(shown_ms_K.max()) + 1] if len(shown_ms_K) else []
    return next((one for _, one in _up_to(seen, found, weighing, shown_ms_K, ends)), None)


def _up_to(
    seen: Observations, found: Measured, weighing: Weighing, shown_ms_K: Int64, ends: list[int]
) -> Iterator[tuple[int, Influence]]:
    row_K = found.row_K
    totals = cumulative_totals(
        seen.rows.unit_R[row_K], seen.rows.variant_R[row_K], found.numerator_K, found.denominator_K, weighing.num_variants,
        shown_ms_K, ends, propensity_R=seen.own_propensities()[row_K],
    )  # fmt: skip
    for end, one in zip(ends, totals, strict=True):
        yield end, ratio_influence(one)
