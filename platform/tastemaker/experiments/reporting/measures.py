"""Numbers of metrics: what each decision adds to a metric's numerator and denominator. Not what they say (`statistics`).

Shape letters: R decisions, K decisions that have a number already, D draws, U units, E clicks, I items, V variants.
"""

from dataclasses import dataclass

import numpy as np

from tastemaker.experiments.metrics import RETURN_AFTER_MS, Metric
from tastemaker.experiments.reporting.earned import Tally, tallies_of
from tastemaker.experiments.reporting.narrow import wide
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.statistics.ratios import UnitTotals
from tastemaker.features.user_state import SESSION_GAP_MS
from tastemaker.types import Bool, EventKind, Float64, Int64


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


def measure(seen: Observations, metric: Metric) -> Measured:
    """The metric's numbers for the decisions whose window, as long as the metric's own, has closed.

    Args:
        seen: The observations.
        metric: Of kind "ratio" or "unit mean".
    """
    assert metric.kind != "variant", metric.name
    window_ms = metric.window_of(seen.attribution_window_ms)
    if metric.measure == "session":
        return _sessions(seen)
    if metric.measure == "return":
        return _returns(seen, window_ms)
    numerator_R, denominator_R = _numbers(seen, metric)
    row_K = np.flatnonzero(seen.shown_ms_R + window_ms < seen.now_ms)
    found = Measured(row_K, numerator_R[row_K], denominator_R[row_K])
    del numerator_R, denominator_R
    return _per_draw(seen, found, most_one=metric.measure == "any") if metric.per == "unit" else found


def _numbers(seen: Observations, metric: Metric) -> tuple[Float64, Float64]:
    """Numerator and denominator of each decision. Shapes (R,)."""
    ones_R: Float64 = np.ones(len(seen))
    if metric.measure == "rungs":
        return seen.degraded_R.astype(np.float64), ones_R
    if metric.measure == "latency":
        latency_ms_R = seen.latency_ms_R
        return np.nan_to_num(latency_ms_R), np.isfinite(latency_ms_R).astype(np.float64)
    if metric.measure == "tail items":
        return _items(seen, _tail(seen)), ones_R
    earned = [seen.earned(tally) for tally in tallies_of(metric, seen.attribution_window_ms)]
    numerator_R = (earned[0] > 0).astype(np.float64) if metric.measure == "any" else earned[0]
    return numerator_R, earned[1] if len(earned) > 1 else ones_R


def count(seen: Observations, kinds: tuple[EventKind, ...]) -> Float64:
    """Of each decision the number of distinct items with an event of some kinds within the attribution window. Shape (R,)."""
    return seen.earned(Tally("items", kinds, seen.attribution_window_ms))


def totals_of(seen: Observations, found: Measured, num_variants: int) -> UnitTotals:
    """Sums by unit and variant, each decision weighing 1 / its variant's propensity.

    Bandits need it, and so does a split whose weights changed while what is measured did. Under one split it changes no ratio.
    """
    weight_K = 1 / seen.own_propensities()[found.row_K]
    cell_K = wide(seen.rows.unit_R[found.row_K]) * num_variants + seen.rows.variant_R[found.row_K]

    def total(value_K: Float64) -> Float64:
        sums = np.bincount(cell_K, weights=value_K * weight_K, minlength=len(seen.units) * num_variants)
        return sums.astype(np.float64).reshape(len(seen.units), num_variants)

    return UnitTotals(total(found.numerator_K), total(found.denominator_K))


def _items(seen: Observations, counted_I: Bool) -> Float64:
    """Of each decision the number of distinct clicked items of a mask. Shape (R,)."""
    num_items = max(1, len(seen.lists.items))
    pair_E = np.unique(wide(seen.clicks.row_E) * num_items + seen.clicks.item_E)
    pair_E = pair_E[counted_I[pair_E % num_items]]
    return np.bincount(pair_E // num_items, minlength=len(seen)).astype(np.float64)


def _tail(seen: Observations) -> Bool:
    """Which items are unexpected: all but the short head, the fewest items that hold half of what the units took up.

    That is of the time before the experiment; of its own clicks, all variants together, where there was nothing before.
    A recommender of the popular would show the head alone [Murakami, Mori & Orihara 2008]. Shape (I,).
    """
    taken_I = seen.past.interactions_I
    if taken_I.sum() == 0:
        taken_I = np.bincount(seen.clicks.item_E, minlength=len(seen.lists.items))
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
    shown_ms_D = seen.shown_ms_R[first]
    came_D = seen.visits.was_there(
        wide(seen.rows.unit_R[first]), shown_ms_D + RETURN_AFTER_MS, shown_ms_D + window_ms
    )
    return Measured(first, came_D.astype(np.float64), np.ones(len(first)))


def _sessions(seen: Observations) -> Measured:
    """Visits that have ended, at their first decision: its numerator is how long the visit took in s, its denominator 1."""
    by_time = np.argsort(seen.shown_ms_R, kind="stable")
    visit_R = seen.visits.visit_of(seen.unit_R, seen.shown_ms_R)
    visits, first = np.unique(visit_R[by_time], return_index=True)
    row, seconds = by_time[first], wide(seen.visits.lasted_ms_N[visits]) / 1000
    ended = seen.visits.end_ms()[visits] + SESSION_GAP_MS < seen.now_ms
    row, seconds = row[ended], seconds[ended]
    rising = np.argsort(row)
    return Measured(row[rising], seconds[rising], np.ones(len(row)))
