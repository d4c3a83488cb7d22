"""An experiment's report as one self-contained HTML page: no request to any other host."""

import html
from collections.abc import Sequence

from tastemaker.experiments.reporting import figures
from tastemaker.experiments.reporting.comparisons import Comparison, Interval, MetricReport
from tastemaker.experiments.reporting.guardrails import GuardrailReport
from tastemaker.experiments.reporting.markup import (
    advice_box,
    document,
    head,
    lift,
    number,
    plot,
    table,
)
from tastemaker.experiments.reporting.report import ExperimentReport
from tastemaker.experiments.reporting.segments import SegmentReport
from tastemaker.experiments.reporting.words import p_value, percent


def render(report: ExperimentReport) -> str:
    """The page."""
    title = f"Experiment {report.experiment}"
    return document(
        title,
        [
            head(title, report),
            advice_box(report.advice),
            _variants(report),
            _over_time(report),
            _metrics(report),
            _guardrails(report.guardrails),
            _traffic(report),
            _segments(report),
            _trends(report),
            _reading(report),
        ],
    )


def _variants(report: ExperimentReport) -> str:
    best, loss = report.metrics[0].probability_best, report.metrics[0].expected_loss
    rows = [
        [
            html.escape(variant.name) + (" <span class='note'>(control)</span>" if v == 0 else ""),
            html.escape(variant.alias),
            f"{variant.units:,}",
            f"{variant.requests:,}",
            f"{variant.impressions:,}",
            f"{variant.clicks:,}",
            number(Interval(value=variant.value, low=variant.low, high=variant.high)),
            "" if best is None else f"{best[v]:.1%}",
            "" if loss is None else f"{loss[v]:.3g}",
        ]
        for v, variant in enumerate(report.variants)
    ]
    columns = [
        "variant", "bundle", "units", "answers", "impressions", "clicks", f"{report.metric}, {report.level:.0%}",
        "probability best", "expected loss",
    ]  # fmt: skip
    return "<h2>Variants</h2>" + table(columns, rows)


def _over_time(report: ExperimentReport) -> str:
    if not report.looks:
        return ""
    return (
        "<h2>Effect over time</h2><p class='note'>All answers up to each moment. The wide band holds at every look; the narrow one only for "
        "whoever looks once, at a moment fixed before.</p>" + plot("effect", figures.effect_over_time(report))
    )


def _metrics(report: ExperimentReport) -> str:
    names = [variant.name for variant in report.variants]
    told = [one for one in report.metrics if one.name == report.metric or any(v.value for v in one.values)]
    silent = [one for one in report.metrics if one not in told]
    columns = [
        "metric", "variant", "value", "lift", "always valid",
        "CUPED" if report.allocation == "fixed" else "doubly robust", "p, corrected", "probability best",
    ]  # fmt: skip
    return (
        "<h2>Metrics</h2>"
        + plot("lifts", figures.lifts(report))
        + table(columns, [row for one in told for row in _metric_rows(one, names)], words=(1,))
        + "".join(
            _note(f"Too early to say ({html.escape(reason)})", names)
            for reason, names in _unknown(silent).items()
        )
        + _note(
            "Nothing happened so far for", [one.name for one in silent if one.values[0].value is not None]
        )
    )


def _unknown(silent: Sequence[MetricReport]) -> dict[str, list[str]]:
    """Names of the metrics that have no value, by the reason."""
    found: dict[str, list[str]] = {}
    for one in silent:
        if one.values[0].value is None:
            found.setdefault(one.comparisons[0].reason or "no reason is known", []).append(one.name)
    return found


def _note(text: str, names: Sequence[str]) -> str:
    return f"<p class='note'>{text}: {', '.join(names)}.</p>" if names else ""


def _metric_rows(metric: MetricReport, names: Sequence[str]) -> list[list[str]]:
    unit = f"<span class='note bounds'>{html.escape(metric.unit)}, {metric.better} is better</span>"
    rows = []
    for v, name in enumerate(names):
        one = metric.comparisons[v - 1] if v else Comparison(variant=name)
        best = metric.probability_best
        rows.append(
            [
                f"<span title='{html.escape(metric.text)}'>{metric.name}</span><br>{unit}" if v == 0 else "",
                html.escape(name),
                number(metric.values[v]),
                f"<span class='note reason'>{html.escape(_short(one.reason))}</span>"
                if one.reason
                else lift(one.lift),
                lift(one.always_valid),
                lift(one.adjusted) + lift(one.weighted) + _removed(one),
                "" if one.corrected_p_value is None else f"{one.corrected_p_value:.3g}",
                "" if best is None else f"{best[v]:.1%}",
            ]
        )
    return rows


def _guardrails(reports: Sequence[GuardrailReport]) -> str:
    rows = [
        [
            html.escape(one.metric),
            html.escape(one.variant),
            f"{one.margin:.1%} worse",
            number(Interval(value=one.value)),
            number(Interval(value=one.control)),
            number(one.slack),
            f"<span class='{one.state}'>{one.state}</span>",
        ]
        for one in reports
    ]
    columns = ["guardrail", "variant", "accepted", "value", "control", "distance to the limit", "state"]
    text = (
        "<p class='note'>A breached one stops the experiment by itself; its intervals hold at every look.</p>"
    )
    none = "<p class='note'>The experiment has none.</p>"
    return "<h2>Guardrails</h2>" + (text + table(columns, rows) if rows else none)


def _traffic(report: ExperimentReport) -> str:
    told = f"p {report.srm_p_value:.4g}, at any look {report.srm_always_valid_p_value:.4g}"
    verdict = (
        f"<span class='alarm'>The split is not what was asked for ({told}).</span>"
        if report.srm_alarm
        else f"The split is what was asked for, as far as can be told ({told})."
    )
    return (
        f"<h2>Traffic and sample ratio</h2><p>{verdict}</p>"
        + plot("traffic", figures.traffic(report))
        + plot("shares", figures.shares(report))
    )


def _segments(report: ExperimentReport) -> str:
    columns = [
        "segment", "variant", "units", "answers", "control", "value", "lift", "always valid", "p, corrected",
    ]  # fmt: skip
    mine = [row for one in report.segments if one.metric == report.metric for row in _segment_rows(one)]
    others = [
        [one.metric, *row]
        for one in report.segments
        if one.metric != report.metric and any(value.value for value in one.values)
        for row in _segment_rows(one)
    ]
    of_others = table(["metric", *columns], others, words=(1, 2))
    return (
        "<h2>Segments</h2>"
        + plot("segments", figures.segments(report))
        + table(columns, mine, words=(1,))
        + f"<details><summary>The other metrics by the number of interactions before</summary>{of_others}</details>"
    )


def _segment_rows(segment: SegmentReport) -> list[list[str]]:
    return [
        [
            f"{html.escape(segment.kind)}: {html.escape(segment.name)}",
            html.escape(one.variant),
            f"{segment.units:,}",
            f"{segment.decisions:,}",
            number(segment.values[0]),
            number(segment.values[v]),
            lift(one.lift),
            lift(one.always_valid),
            "" if one.corrected_p_value is None else f"{one.corrected_p_value:.3g}",
        ]
        for v, one in enumerate(segment.comparisons, 1)
    ]


def _trends(report: ExperimentReport) -> str:
    if not report.trends:
        return ""
    lines = "".join(
        f"<li>{html.escape(one.variant)}: {percent(one.slope, 2)} a day [{percent(one.low, 2)}, {percent(one.high, 2)}], "
        f"p {html.escape(p_value(one.p_value))}"
        f"{', it fades' if one.fades else ''}</li>"
        for one in report.trends
    )
    return f"<h2>Novelty</h2><ul>{lines}</ul>" + plot("trends", figures.trends(report))


def _reading(report: ExperimentReport) -> str:
    weighed = (
        ""
        if report.allocation == "fixed"
        else " A policy chose the variants: answers weigh one over the probability of theirs."
    )
    return (
        "<h2>How to read this</h2><p class='note'>Variances are between units, however often one came. A lift is relative to the control. "
        "“Lift” holds for one look at a moment fixed before; “always valid” at every look, so that stopping early is safe. Corrected p-values "
        "have the other comparisons of their table in mind (Holm for the primary metric, Benjamini-Hochberg for the rest). "
        f"Answers whose window is open are left out: running this again includes what came late.{weighed}</p>"
    )


def _removed(one: Comparison) -> str:
    if one.variance_removed is None or one.variance_removed < 0.01:
        return ""
    return f"<br><span class='note bounds'>{one.variance_removed:.0%} less variance</span>"


def _short(reason: str | None) -> str:
    return (reason or "").split(":")[0]
