"""An experiment's outcome as numbers to print, plot and keep as JSON."""

import time

import numpy as np

from tastemaker.config import Strict
from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment, Fixed
from tastemaker.experiments.observations import Observations, read_observations
from tastemaker.experiments.statistics import (
    UnitTotals,
    ratio,
    ratio_lift,
    srm_bandit,
    srm_fixed,
    unit_totals,
)
from tastemaker.home import Home
from tastemaker.types import Bool, Float64

METRICS = ("clicks_per_request", "clicks_per_impression", "rewarded_requests")
"""Ratio metrics; the last is the share of requests with any click, which bandits learn from."""
SRM_ALARM = 0.001
_NUM_BINS = 40


class VariantReport(Strict):
    """One variant: counts, and the metric with its interval (null where it is not defined yet)."""

    name: str
    alias: str
    units: int
    requests: int
    impressions: int
    clicks: int
    click_rate: float | None
    value: float | None
    low: float | None
    high: float | None


class LiftReport(Strict):
    """A variant against the control; `reason` says why there is none."""

    variant: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    reason: str | None = None


class TrafficBin(Strict):
    """What happened from `start_ms` for the length of a bin; lists run over the variants in order.

    `propensities` are the means over new units, null where there was none.
    """

    start_ms: int
    requests: tuple[int, ...]
    new_units: tuple[int, ...]
    propensities: tuple[float, ...] | None


class ExperimentReport(Strict):
    """All of it. The first variant is the control; intervals are at `level`, clustered by unit."""

    experiment: str
    hypothesis: str
    origin: str
    allocation: str
    metric: str
    level: float
    units: int
    requests: int
    open_requests: int
    variants: tuple[VariantReport, ...]
    lifts: tuple[LiftReport, ...]
    srm_p_value: float
    srm_alarm: bool
    bin_ms: int
    traffic: tuple[TrafficBin, ...]


def build_report(
    home: Home,
    catalogue: str,
    experiment: Experiment,
    metric: str = "clicks_per_request",
    *,
    level: float = 0.95,
    now_ms: int | None = None,
) -> ExperimentReport:
    """The outcome of an experiment, from the Parquet days.

    Under a fixed split all requests weigh alike; a bandit's weigh 1 / propensity.

    Args:
        home: Holds the days.
        catalogue: The experiment's.
        experiment: As it ran.
        metric: One of `METRICS`.
        level: Of the intervals.
        now_ms: Decisions whose attribution window is open then are left out and counted; unset is now.

    Raises:
        ExperimentError: An unknown metric, or no decision yet.
    """
    if metric not in METRICS:
        raise ExperimentError("metric", value=metric, limit=f"one of: {', '.join(METRICS)}")
    seen = read_observations(
        home, catalogue, experiment, round(time.time() * 1000) if now_ms is None else now_ms
    )
    totals = _totals(seen, experiment, metric)
    p_value = _srm(seen, experiment)
    bin_ms, traffic = _traffic(seen)
    return ExperimentReport(
        experiment=experiment.name,
        hypothesis=experiment.hypothesis,
        origin=experiment.origin,
        allocation=experiment.allocation.kind,
        metric=metric,
        level=level,
        units=len(set(seen.unit_R)),
        requests=len(seen),
        open_requests=seen.num_open,
        variants=tuple(_variant(seen, experiment, totals, v, level) for v in range(len(experiment.variants))),
        lifts=tuple(_lift(experiment, totals, v, level) for v in range(1, len(experiment.variants))),
        srm_p_value=p_value,
        srm_alarm=p_value < SRM_ALARM,
        bin_ms=bin_ms,
        traffic=traffic,
    )


def _totals(seen: Observations, experiment: Experiment, metric: str) -> UnitTotals:
    numerator_R = (seen.clicks_R > 0).astype(np.float64) if metric == "rewarded_requests" else seen.clicks_R
    denominator_R = seen.impressions_R if metric == "clicks_per_impression" else np.ones(len(seen))
    drawn_R = seen.propensity_RV[np.arange(len(seen)), seen.variant_R]
    propensity_R = None if isinstance(experiment.allocation, Fixed) else drawn_R
    num_variants = len(experiment.variants)
    return unit_totals(
        seen.unit_R, seen.variant_R, numerator_R, denominator_R, num_variants, propensity_R=propensity_R
    )


def _variant(
    seen: Observations, experiment: Experiment, totals: UnitTotals, v: int, level: float
) -> VariantReport:
    rows_R = seen.variant_R == v
    clicks, impressions = seen.clicks_R[rows_R].sum(), seen.impressions_R[rows_R].sum()
    value, low, high = _value(totals, v, level)
    return VariantReport(
        name=experiment.variants[v].name,
        alias=experiment.variants[v].alias,
        units=len(set(seen.unit_R[rows_R])),
        requests=int(rows_R.sum()),
        impressions=int(impressions),
        clicks=int(clicks),
        click_rate=float(clicks / impressions) if impressions else None,
        value=value,
        low=low,
        high=high,
    )


def _value(totals: UnitTotals, v: int, level: float) -> tuple[float | None, float | None, float | None]:
    try:
        estimate = ratio(totals, v, level)
    except ExperimentError:
        return None, None, None  # too few units so far
    return estimate.value, estimate.low, estimate.high


def _lift(experiment: Experiment, totals: UnitTotals, v: int, level: float) -> LiftReport:
    name = experiment.variants[v].name
    try:
        lift = ratio_lift(totals, 0, v, level)
    except ExperimentError as error:
        return LiftReport(variant=name, reason=str(error))
    return LiftReport(variant=name, value=lift.value, low=lift.low, high=lift.high, p_value=lift.p_value)


def _srm(seen: Observations, experiment: Experiment) -> float:
    first = seen.first_exposures()
    if isinstance(experiment.allocation, Fixed):
        counts = np.bincount(seen.variant_R[first], minlength=len(experiment.variants))
        return srm_fixed(counts.tolist(), experiment.allocation.weights)
    return srm_bandit(seen.variant_R[first], seen.propensity_RV[first])


def _traffic(seen: Observations) -> tuple[int, tuple[TrafficBin, ...]]:
    start_ms = int(seen.timestamp_ms_R.min())
    bin_ms = max(1, -(-(int(seen.timestamp_ms_R.max()) + 1 - start_ms) // _NUM_BINS))
    bin_R = (seen.timestamp_ms_R - start_ms) // bin_ms
    new_R = np.zeros(len(seen), bool)
    new_R[seen.first_exposures()] = True
    return bin_ms, tuple(
        _bin(seen, start_ms + b * bin_ms, bin_R == b, new_R) for b in range(int(bin_R.max()) + 1)
    )


def _bin(seen: Observations, start_ms: int, in_bin_R: Bool, new_R: Bool) -> TrafficBin:
    num_variants = seen.propensity_RV.shape[1]
    new = in_bin_R & new_R
    means: Float64 | None = seen.propensity_RV[new].mean(axis=0) if new.any() else None
    return TrafficBin(
        start_ms=start_ms,
        requests=tuple(np.bincount(seen.variant_R[in_bin_R], minlength=num_variants).tolist()),
        new_units=tuple(np.bincount(seen.variant_R[new], minlength=num_variants).tolist()),
        propensities=None if means is None else tuple(means.tolist()),
    )
