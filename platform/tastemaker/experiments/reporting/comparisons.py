"""One metric of an experiment: each variant's value, and each against the control, with intervals of every kind.

Shape letters: U units, V variants.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from tastemaker.data.schema import POSITIVE_KINDS
from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import Better, Metric
from tastemaker.experiments.reporting.coverage import coverage
from tastemaker.experiments.reporting.measures import Measured, totals_of
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.reporting.weighing import Weighing, influences
from tastemaker.experiments.statistics.adaptive import adaptive_influence
from tastemaker.experiments.statistics.bayes import best_of
from tastemaker.experiments.statistics.cuped import cuped
from tastemaker.experiments.statistics.influence import Influence, Lift, difference, estimate, lift
from tastemaker.experiments.statistics.sequential import Boundary, Looks, always_valid_lift
from tastemaker.strict import Strict
from tastemaker.types import Bool, Float64


class Interval(Strict):
    """A value and where it may lie; null where it is not defined yet."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


class Comparison(Strict):
    """A variant against the control; `reason` says why there is no lift.

    `lift` holds at the one moment that was fixed before, `always_valid` at every moment that anyone looks, `adjusted` is the
    first with what the units did before the experiment taken out (CUPED) and `variance_removed` how much of the variance
    that was; it is of fixed splits. `weighted` is of policies that learn: doubly robust, with weights that even out what rare
    draws do (`adaptive`). All these are relative to the control, `difference` is in the metric's unit. `p_value` and `always_valid_p_value` are of no
    lift; `corrected_p_value` is the first with the other comparisons of the report in mind.
    """

    variant: str
    lift: Interval = Interval()
    always_valid: Interval = Interval()
    adjusted: Interval = Interval()
    variance_removed: float | None = None
    weighted: Interval = Interval()
    difference: Interval = Interval()
    p_value: float | None = None
    always_valid_p_value: float | None = None
    corrected_p_value: float | None = None
    reason: str | None = None


class MetricReport(Strict):
    """A metric; lists run over the variants in order, comparisons over all but the control.

    `decisions` is how many count, those whose window is still open left out. `probability_best` and `expected_loss` (what one loses on average by
    choosing the variant, in the metric's unit) are null where a variant has no value yet, or all its units have the same.
    """

    name: str
    text: str
    unit: str
    better: Better
    decisions: int
    values: tuple[Interval, ...]
    comparisons: tuple[Comparison, ...]
    probability_best: tuple[float, ...] | None = None
    expected_loss: tuple[float, ...] | None = None


def compare(seen: Observations, metric: Metric, weighing: Weighing) -> MetricReport:
    """The metric's values and comparisons, so far as they are defined."""
    measured: Measured | None = None
    watched: dict[int, Lift] = {}
    others = range(1, weighing.num_variants)
    try:
        if metric.kind == "variant":
            decisions = len(seen)
            influence = coverage(seen, weighing.num_variants, weighing.num_items, weighing.level)
        else:
            measured = weighing.measured(seen, metric)
            decisions, influence = len(measured.row_K), weighing.influence(seen, measured)
            watched = _watched(influences(seen, measured, weighing), others, weighing.boundary(metric))
    except ExperimentError as error:
        return _nothing(metric, weighing.experiment, str(error))
    comparisons = [_comparison(influence, watched.get(v), v, metric, weighing) for v in others]
    if measured is not None and weighing.learns:
        comparisons = _weighted(comparisons, seen, measured, weighing.level)
    if measured is not None and not weighing.learns:
        member_UV = _members(seen, measured, weighing.num_variants)
        comparisons = _adjusted(comparisons, influence, _covariate(seen, metric), member_UV, weighing.level)
    best = None
    if np.isfinite(influence.value_V).all() and (influence.influence_UV != 0).any(axis=0).all():
        sign = 1.0 if metric.better == "higher" else -1.0
        best = best_of(Influence(sign * influence.value_V, sign * influence.influence_UV, influence.units_V))
    return MetricReport(
        name=metric.name,
        text=metric.text,
        unit=metric.unit,
        better=metric.better,
        decisions=decisions,
        values=tuple(_value(influence, v, metric, weighing.level) for v in range(weighing.num_variants)),
        comparisons=tuple(comparisons),
        probability_best=None if best is None else tuple(best.probability_V.tolist()),
        expected_loss=None if best is None else tuple(best.expected_loss_V.tolist()),
    )


def interval(found: Lift) -> Interval:
    """The same as a part of a report; bounds that are endless are null."""
    if not np.isfinite(found.high - found.low):
        return Interval(value=found.value)
    return Interval(value=found.value, low=found.low, high=found.high)


class Compared(Protocol):
    """A report with comparisons: of a metric, or of a metric in a segment."""

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All but the control's."""

    def model_copy(self, *, update: dict[str, Any]) -> Self:
        """The report with other fields."""


C = TypeVar("C", bound=Compared)


def corrected(reports: Sequence[C], p_values: Sequence[float]) -> tuple[C, ...]:
    """The reports with `p_values` as their comparisons' corrected ones: one for each comparison that has a p-value, in order."""
    left = iter(p_values)
    return tuple(
        report.model_copy(
            update={
                "comparisons": tuple(
                    one if one.p_value is None else one.model_copy(update={"corrected_p_value": next(left)})
                    for one in report.comparisons
                )
            }
        )
        for report in reports
    )


def p_values_of(reports: Sequence[Compared]) -> list[float]:
    """P-values of all comparisons that have one, in the order that `corrected` takes them."""
    return [one.p_value for report in reports for one in report.comparisons if one.p_value is not None]


def _members(seen: Observations, found: Measured, num_variants: int) -> Bool:
    return totals_of(seen, found, num_variants).denominator_UV > 0


def _covariate(seen: Observations, metric: Metric) -> Float64:
    """What a unit did in the 14 days before, in all and in the metric's own kind of event; NaN of new units. Shape (U, 2)."""
    before_UC = np.column_stack(
        [
            seen.past.per_unit(POSITIVE_KINDS, values=False),
            seen.past.per_unit(metric.events, values=metric.measure == "value"),
        ]
    )
    return np.where(seen.past.interactions_U[:, None] > 0, before_UC, np.nan)


def _value(influence: Influence, variant: int, metric: Metric, level: float) -> Interval:
    try:
        found = estimate(influence, variant, level)
    except ExperimentError:
        return Interval()
    low = found.low if metric.measure == "mean value" else max(0.0, found.low)  # a rating may be negative
    high = min(1.0, found.high) if metric.kind == "variant" else found.high  # a share of the catalogue
    return Interval(value=found.value, low=low, high=high)


def _comparison(
    influence: Influence, watched: Lift | None, variant: int, metric: Metric, weighing: Weighing
) -> Comparison:
    name = weighing.experiment.variants[variant].name
    try:
        absolute = difference(influence, 0, variant, weighing.level)
    except ExperimentError as error:
        return Comparison(variant=name, reason=str(error))
    apart = Interval(value=absolute.value, low=absolute.low, high=absolute.high)
    try:
        fixed = lift(influence, 0, variant, weighing.level)
        valid = watched or always_valid_lift(influence, 0, variant, weighing.boundary(metric))
    except ExperimentError as error:
        return Comparison(variant=name, difference=apart, reason=str(error))
    return Comparison(
        variant=name,
        lift=interval(fixed),
        always_valid=interval(valid),
        difference=apart,
        p_value=fixed.p_value,
        always_valid_p_value=valid.p_value,
    )


def _watched(
    looks: Iterable[tuple[int, Influence]], variants: Iterable[int], boundary: Boundary
) -> dict[int, Lift]:
    """Lifts with intervals that hold whenever they are looked at, also of units that return; without variants that have no value at any look."""
    watching = {variant: Looks(boundary, 0, variant) for variant in variants}
    found: dict[int, Lift] = {}
    for _, influence in looks:
        for variant, one in watching.items():
            try:
                seen = one.look(influence)
            except ExperimentError:
                continue  # a variant has no value yet
            assert isinstance(seen, Lift)
            found[variant] = seen
    return found


def _adjusted(
    comparisons: Sequence[Comparison],
    influence: Influence,
    covariate_UC: Float64,
    member_UV: Bool,
    level: float,
) -> list[Comparison]:
    if not np.nan_to_num(covariate_UC).any() or not np.isfinite(influence.value_V).all():
        return list(comparisons)
    try:
        less = cuped(influence, covariate_UC, member_UV)
    except ExperimentError:
        return list(comparisons)  # units that met several variants: their past is no longer from before
    found = []
    for v, one in enumerate(comparisons, 1):
        if one.lift.value is None:
            found.append(one)
            continue
        adjusted = interval(lift(less.influence, 0, v, level))
        found.append(
            one.model_copy(update={"adjusted": adjusted, "variance_removed": less.variance_reduction})
        )
    return found


def _weighted(
    comparisons: Sequence[Comparison], seen: Observations, found: Measured, level: float
) -> list[Comparison]:
    """With the doubly robust lifts of what was done in each draw."""
    draws_K = seen.draws()[found.row_K]
    _, first, draw_K = np.unique(draws_K, return_index=True, return_inverse=True)
    row_D = found.row_K[first]
    numerator_D = np.bincount(draw_K, weights=found.numerator_K, minlength=len(first)).astype(np.float64)
    denominator_D = np.bincount(draw_K, weights=found.denominator_K, minlength=len(first)).astype(np.float64)
    in_time = np.argsort(seen.shown_ms_R[row_D], kind="stable")
    rows = row_D[in_time]
    try:
        influence = adaptive_influence(
            seen.unit_R[rows],
            seen.variant_R[rows],
            seen.propensity_RV[rows],
            numerator_D[in_time],
            denominator_D[in_time],
        )
    except ExperimentError:
        return list(comparisons)
    weighted = []
    for v, one in enumerate(comparisons, 1):
        try:
            weighted.append(one.model_copy(update={"weighted": interval(lift(influence, 0, v, level))}))
        except ExperimentError:
            weighted.append(one)  # no value yet
    return weighted


def _nothing(metric: Metric, experiment: Experiment, reason: str) -> MetricReport:
    return MetricReport(
        name=metric.name,
        text=metric.text,
        unit=metric.unit,
        better=metric.better,
        decisions=0,
        values=tuple(Interval() for _ in experiment.variants),
        comparisons=tuple(Comparison(variant=v.name, reason=reason) for v in experiment.variants[1:]),
    )
