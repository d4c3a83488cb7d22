"""An experiment's outcome as numbers to print, plot and keep as JSON."""

import time
from typing import Final

import numpy as np

from tastemaker.data.item_archive import current_items
from tastemaker.errors import DataError, ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import METRICS, Metric, metric_of
from tastemaker.experiments.reporting.advice import Advice, advise
from tastemaker.experiments.reporting.comparisons import MetricReport, compare, corrected, p_values_of
from tastemaker.experiments.reporting.days import Wanted
from tastemaker.experiments.reporting.earned import CLICKED, LOOKED_AT
from tastemaker.experiments.reporting.guardrails import GuardrailReport, check_guardrails
from tastemaker.experiments.reporting.head import ReportHead, head_of
from tastemaker.experiments.reporting.measures import count
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.experiments.reporting.segments import SegmentReport, by_segment
from tastemaker.experiments.reporting.timeline import Look, TrafficBin, over_time, traffic
from tastemaker.experiments.reporting.weighing import Weighing, influences
from tastemaker.experiments.statistics.multiplicity import benjamini_hochberg, holm
from tastemaker.experiments.statistics.novelty import novelty
from tastemaker.experiments.statistics.srm import Srm, srm_draws
from tastemaker.home import Home
from tastemaker.strict import Strict
from tastemaker.types import Float64, Int64

_DAY_MS: Final = 86_400_000


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


class Trend(Strict):
    """How a variant's lift changes with the days since a unit's first decision: relative change of the metric's ratio per day."""

    variant: str
    slope: float
    low: float
    high: float
    p_value: float
    days: tuple[float, ...]
    lifts: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    fades: bool


class ExperimentReport(ReportHead):
    """All of it. The first variant is the control; intervals are at `level`, clustered by unit.

    `lifts` are those of `metric` at one moment that was fixed before; `looks`, `metrics` and `segments` have the always-valid ones too.
    """

    variants: tuple[VariantReport, ...]
    lifts: tuple[LiftReport, ...]
    srm_p_value: float
    srm_always_valid_p_value: float
    srm_alarm: bool
    advice: Advice
    metrics: tuple[MetricReport, ...]
    guardrails: tuple[GuardrailReport, ...]
    looks: tuple[Look, ...]
    trends: tuple[Trend, ...]
    segments: tuple[SegmentReport, ...]
    bin_ms: int
    traffic: tuple[TrafficBin, ...]


def build_report(
    home: Home,
    catalogue: str,
    experiment: Experiment,
    metric: str | None = None,
    *,
    level: float = 0.95,
    now_ms: int | None = None,
    wanted: Wanted | None = None,
) -> ExperimentReport:
    """The outcome of an experiment, from the Parquet days.

    Decisions weigh 1 / the propensity of their variant, which under one fixed split is all the same.

    Args:
        home: Holds the days.
        catalogue: The experiment's.
        experiment: As it ran.
        metric: One of `METRICS`, to be judged by; unset is the experiment's own.
        level: Of the intervals.
        now_ms: Decisions whose attribution window is open then are left out and counted; unset is now.
        wanted: Which decisions are the experiment's; unset, those that the log says.

    Raises:
        ConfigError: An unknown metric.
        ExperimentError: No decision yet.
    """
    primary = metric_of(metric or experiment.metric)
    now_ms = round(time.time() * 1000) if now_ms is None else now_ms
    seen = read_observations(home, catalogue, experiment, now_ms, wanted=wanted)
    weighing = Weighing(experiment, level, _num_items(home, catalogue, seen))
    reports = _metrics(seen, primary, weighing)
    guardrails = check_guardrails(seen, weighing)
    split, trends = _srm(seen), _trends(seen, primary, weighing)
    head = head_of(
        experiment, primary.name, level, seen.num_units(), seen.shown_ms_R, seen.num_open, seen.unknown_events
    )
    bin_ms, bins = traffic(seen)
    return ExperimentReport(
        **head,
        variants=_variants(seen, weighing, reports[0]),
        lifts=tuple(_lift(reports[0], v) for v in range(1, weighing.num_variants)),
        srm_p_value=split.p_value,
        srm_always_valid_p_value=split.always_valid_p_value,
        srm_alarm=split.alarm,
        advice=advise(
            reports[0],
            guardrails,
            srm_alarm=split.alarm,
            split=_shares(seen, experiment),
            level=level,
            effect=weighing.effect(primary),
            ran_ms=head["last_ms"] - head["first_ms"],
            units=head["units"],
            fading=[trend.variant for trend in trends if trend.fades],
            runs=experiment.state == "running",
        ),
        metrics=reports,
        guardrails=guardrails,
        looks=_looks(seen, primary, weighing),
        trends=trends,
        segments=by_segment(seen, primary, _others(primary), weighing),
        bin_ms=bin_ms,
        traffic=bins,
    )


def _num_items(home: Home, catalogue: str, seen: Observations) -> int:
    """Of the catalogue; of what was shown, where nothing was imported."""
    try:
        return max(current_items(home, catalogue).num_rows, len(seen.lists.items), 1)
    except DataError:
        return max(len(seen.lists.items), 1)


def _metrics(seen: Observations, primary: Metric, weighing: Weighing) -> tuple[MetricReport, ...]:
    """The primary one first, corrected for several variants alone; the others are corrected together."""
    first = compare(seen, primary, weighing)
    others = [compare(seen, metric, weighing) for metric in _others(primary)]
    return (
        *corrected([first], holm(p_values_of([first])).tolist()),
        *corrected(others, benjamini_hochberg(p_values_of(others)).tolist()),
    )


def _others(primary: Metric) -> list[Metric]:
    return [metric for metric in METRICS.values() if metric != primary]


def _variants(seen: Observations, weighing: Weighing, primary: MetricReport) -> tuple[VariantReport, ...]:
    clicks_R, impressions_R = count(seen, CLICKED), count(seen, LOOKED_AT)
    found = []
    for v, variant in enumerate(weighing.experiment.variants):
        rows_R, value = seen.rows.variant_R == v, primary.values[v]
        clicks, impressions = int(clicks_R[rows_R].sum()), int(impressions_R[rows_R].sum())
        found.append(
            VariantReport(
                name=variant.name,
                alias=variant.alias,
                units=int(np.count_nonzero(np.bincount(seen.rows.unit_R[rows_R]))),
                requests=int(rows_R.sum()),
                impressions=impressions,
                clicks=clicks,
                click_rate=clicks / impressions if impressions else None,
                value=value.value,
                low=value.low,
                high=value.high,
            )
        )
    return tuple(found)


def _lift(primary: MetricReport, v: int) -> LiftReport:
    one = primary.comparisons[v - 1]
    return LiftReport(
        variant=one.variant,
        value=one.lift.value,
        low=one.lift.low,
        high=one.lift.high,
        p_value=one.p_value,
        reason=one.reason,
    )


def _srm(seen: Observations) -> Srm:
    first = seen.first_exposures()
    return srm_draws(seen.variant_R[first], seen.rows.shares_PV[seen.rows.share_R[first]])


def _shares(seen: Observations, experiment: Experiment) -> str:
    """The variant whose share of the units is farthest from what was asked for, in words."""
    first = seen.first_exposures()
    num_V = np.bincount(seen.variant_R[first], minlength=len(experiment.variants))
    asked_V = seen.rows.shares_PV[seen.rows.share_R[first]].mean(axis=0)
    share_V = num_V / num_V.sum()
    v = int(np.abs(share_V - asked_V).argmax())
    return f"{num_V[v]:,} of {num_V.sum():,} to {experiment.variant_names[v]}, {share_V[v]:.1%} instead of {asked_V[v]:.1%}"


def _looks(seen: Observations, primary: Metric, weighing: Weighing) -> tuple[Look, ...]:
    if primary.kind == "variant":
        return ()
    return over_time(influences(seen, weighing.measured(seen, primary), weighing), primary, weighing)


def _trends(seen: Observations, primary: Metric, weighing: Weighing) -> tuple[Trend, ...]:
    """By days since a unit's first decision; none where decisions do not reach into a third day, or under a policy that learns."""
    if primary.kind != "ratio" or weighing.learns:
        return ()
    found = weighing.measured(seen, primary)
    first_ms_U = np.full(len(seen.units), np.iinfo(np.int64).max)
    np.minimum.at(first_ms_U, seen.rows.unit_R, seen.shown_ms_R)
    day_R = (seen.shown_ms_R - first_ms_U[seen.rows.unit_R]) // _DAY_MS
    day_K = day_R[found.row_K]
    if day_K.max(initial=0) < 2:
        return ()
    trends: list[Trend] = []
    for v in range(1, weighing.num_variants):
        try:
            one = novelty(
                seen.unit_R[found.row_K], seen.variant_R[found.row_K], day_K, found.numerator_K, found.denominator_K, 0, v,
                num_variants=weighing.num_variants, level=weighing.level,
            )  # fmt: skip
        except ExperimentError:
            continue  # too few units on too few days
        trends.append(
            Trend(
                variant=weighing.experiment.variants[v].name,
                slope=one.slope,
                low=one.low,
                high=one.high,
                p_value=one.p_value,
                days=_numbers(one.day_D),
                lifts=_numbers(one.lift_D),
                lows=_numbers(one.low_D),
                highs=_numbers(one.high_D),
                fades=bool(one.fades),
            )
        )
    return tuple(trends)


def _numbers(values: Float64 | Int64) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
