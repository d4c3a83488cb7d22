"""Numbers of metrics: what each decision adds to a metric's numerator and denominator. Not what they say (`statistics`).

Shape letters: R decisions, K decisions that have a number already, D draws, U units, E events, V variants.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from tastemaker.experiments.metrics import RETURN_AFTER_MS, Metric
from tastemaker.experiments.reporting.joining import Touches
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.statistics.ratios import UnitTotals
from tastemaker.types import Bool, Float64, Int64

SESSION_GAP_MS: Final = 30 * 60_000
"""Silence after which a visit has ended."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's numerator and denominator, decision by decision; `row_K` are rows of the observations, rising.

    What is of a unit, a draw or a visit as a whole stands at its first decision.
    """

    row_K: Int64
    numerator_K: Float64
    denominator_K: Float64

    def take(self, keep_R: Bool) -> "Measured":
        """The decisions of a mask over the observations."""
        keep_K = keep_R[self.row_K]
        return Measured(self.row_K[keep_K], self.numerator_K[keep_K], self.denominator_K[keep_K])


def measure(seen: Observations, metric: Metric, attribution_window_ms: int) -> Measured:
    """The metric's numbers for the decisions whose window, as long as the metric's own, has closed.

    Args:
        seen: The observations.
        metric: Of kind "ratio" or "unit mean".
        attribution_window_ms: The experiment's.
    """
    assert metric.kind != "variant", metric.name
    window_ms = metric.window_of(attribution_window_ms)
    if metric.measure == "session":
        return _sessions(seen)
    if metric.measure == "return":
        return _returns(seen, window_ms)
    closed_R = seen.shown_ms_R + window_ms < seen.now_ms
    touches = seen.touches.within(metric.events, window_ms)
    numerator_R: Float64 = np.zeros(len(seen))
    denominator_R: Float64 = np.ones(len(seen))
    if metric.measure == "value":
        numerator_R = np.bincount(touches.row_E, weights=touches.value_E, minlength=len(seen)).astype(
            np.float64
        )
    elif metric.measure == "mean value":
        numerator_R, denominator_R = _last_values(seen, touches)
    elif metric.measure == "rungs":
        numerator_R = seen.degraded_R.astype(np.float64)
    elif metric.measure == "latency":
        denominator_R = np.isfinite(seen.latency_ms_R).astype(np.float64)
        numerator_R = np.nan_to_num(seen.latency_ms_R)
    else:
        numerator_R = _items(seen, touches, _tail(seen, touches) if metric.measure == "tail items" else None)
    if metric.measure == "any":
        numerator_R = (numerator_R > 0).astype(np.float64)
    if metric.per == "impression":
        denominator_R = count(seen, "impression", window_ms)
    row_K = np.flatnonzero(closed_R)
    found = Measured(row_K, numerator_R[row_K], denominator_R[row_K])
    return _per_draw(seen, found, most_one=metric.measure == "any") if metric.per == "unit" else found


def count(seen: Observations, kind: str, window_ms: int) -> Float64:
    """Of each decision the number of distinct items with an event of that kind within a window. Shape (R,)."""
    return _items(seen, seen.touches.within((kind,), window_ms), None)


def totals_of(seen: Observations, found: Measured, num_variants: int) -> UnitTotals:
    """Sums by unit and variant, each decision weighing 1 / its variant's propensity.

    Bandits need it, and so does a split whose weights changed while what is measured did. Under one split it changes no ratio.
    """
    weight_K = 1 / seen.own_propensities()[found.row_K]
    cell_K = seen.unit_R[found.row_K] * num_variants + seen.variant_R[found.row_K]

    def total(value_K: Float64) -> Float64:
        sums = np.bincount(cell_K, weights=value_K * weight_K, minlength=len(seen.units) * num_variants)
        return sums.astype(np.float64).reshape(len(seen.units), num_variants)

    return UnitTotals(total(found.numerator_K), total(found.denominator_K))


def _items(seen: Observations, touches: Touches, counted_I: Bool | None) -> Float64:
    """Of each decision the number of distinct items among its touches. Shape (R,)."""
    pairs = np.sort(seen.slates.keys(touches.row_E, touches.item_E))
    pairs = pairs[np.diff(pairs, prepend=-1) != 0]
    num_items = max(1, len(seen.slates.items))
    if counted_I is not None:
        pairs = pairs[counted_I[pairs % num_items]]
    return np.bincount(pairs // num_items, minlength=len(seen)).astype(np.float64)


def _last_values(seen: Observations, touches: Touches) -> tuple[Float64, Float64]:
    """Sum of the values and number of the rated items; an item that a list's reader rated twice has its last rating."""
    order = np.argsort(-touches.received_ms_E, kind="stable")
    _, newest = np.unique(seen.slates.keys(touches.row_E, touches.item_E)[order], return_index=True)
    last = order[newest]
    sums = np.bincount(touches.row_E[last], weights=touches.value_E[last], minlength=len(seen))
    counts = np.bincount(touches.row_E[last], minlength=len(seen))
    return sums.astype(np.float64), counts.astype(np.float64)


def _tail(seen: Observations, clicks: Touches) -> Bool:
    """Which items are unexpected: all but the short head, the fewest items that hold half of what the units took up.

    That is of the time before the experiment; of its own clicks, all variants together, where there was nothing before.
    A recommender of the popular would show the head alone [Murakami, Mori & Orihara 2008]. Shape (I,).
    """
    taken_I = seen.past.interactions_I
    if taken_I.sum() == 0:
        taken_I = np.bincount(clicks.item_E, minlength=len(seen.slates.items))
    tail_I = np.ones(len(taken_I), np.bool_)
    order = np.argsort(-taken_I, kind="stable")
    tail_I[order[: int(np.searchsorted(np.cumsum(taken_I[order]), taken_I.sum() / 2)) + 1]] = False
    return tail_I


def _per_draw(seen: Observations, found: Measured, *, most_one: bool) -> Measured:
    """With 1 as the denominator of each draw's first decision and 0 of its others."""
    draw_K = seen.draws()[found.row_K]
    _, first, draw_K = np.unique(draw_K, return_index=True, return_inverse=True)
    denominator_K = np.zeros(len(draw_K))
    denominator_K[first] = 1
    if not most_one:
        return Measured(found.row_K, found.numerator_K, denominator_K)
    numerator_K = np.zeros(len(draw_K))
    numerator_K[first] = np.bincount(draw_K, weights=found.numerator_K, minlength=len(first)) > 0
    return Measured(found.row_K, numerator_K, denominator_K)


def _returns(seen: Observations, window_ms: int) -> Measured:
    first = seen.first_exposures()
    first = first[seen.shown_ms_R[first] + window_ms < seen.now_ms]
    moments = _Moments.of(seen)
    unit_D, shown_ms_D = seen.unit_R[first], seen.shown_ms_R[first]
    came_D = moments.up_to(unit_D, shown_ms_D + window_ms) > moments.up_to(
        unit_D, shown_ms_D + RETURN_AFTER_MS - 1
    )
    return Measured(first, came_D.astype(np.float64), np.ones(len(first)))


@dataclass(frozen=True, slots=True)
class _Moments:
    """All signs of life, by unit and then by time, as numbers that rise."""

    moment_A: Int64
    first_ms: int
    span: int

    @classmethod
    def of(cls, seen: Observations) -> "_Moments":
        first_ms = int(seen.activity_ms_A.min())
        span = max(int(seen.activity_ms_A.max()), seen.now_ms) - first_ms + 2
        return cls(np.sort(seen.activity_unit_A * span + seen.activity_ms_A - first_ms), first_ms, span)

    def up_to(self, unit: Int64, time_ms: Int64) -> Int64:
        """How many lie at or before a moment of a unit, those of smaller units included."""
        offset = np.clip(time_ms - self.first_ms, 0, self.span - 1)
        return np.searchsorted(self.moment_A, unit * self.span + offset, side="right")


def _sessions(seen: Observations) -> Measured:
    """Visits that have ended, at their first decision: its numerator is how long the visit took in s, its denominator 1."""
    order = np.lexsort((seen.activity_ms_A, seen.activity_unit_A))
    unit_A, ms_A = seen.activity_unit_A[order], seen.activity_ms_A[order]
    new_A = np.r_[True, (np.diff(unit_A) != 0) | (np.diff(ms_A) > SESSION_GAP_MS)]
    session_A = np.cumsum(new_A) - 1
    start = np.flatnonzero(new_A)
    end_ms = ms_A[np.r_[start[1:], len(ms_A)] - 1]
    seconds = (end_ms - ms_A[start]) / 1000
    place_A = np.empty(len(order), np.int64)
    place_A[order] = session_A
    session_R = place_A[: len(seen)]  # decisions come first among the signs of life
    by_time = np.lexsort((np.arange(len(seen)), seen.shown_ms_R))
    sessions, first = np.unique(session_R[by_time], return_index=True)
    row, ended = by_time[first], end_ms[sessions] + SESSION_GAP_MS < seen.now_ms
    row, seconds = row[ended], seconds[sessions][ended]
    rising = np.argsort(row)
    return Measured(row[rising], seconds[rising], np.ones(len(row)))
