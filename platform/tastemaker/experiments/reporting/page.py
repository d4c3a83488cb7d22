"""An experiment's report as one self-contained HTML page: no request to any other host."""

import html
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tastemaker.experiments.reporting import figures
from tastemaker.experiments.reporting.comparisons import Comparison, Interval, MetricReport
from tastemaker.experiments.reporting.guardrails import GuardrailReport
from tastemaker.experiments.reporting.report import ExperimentReport
from tastemaker.experiments.reporting.segments import SegmentReport

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #c93c37; --wait: #9a6700; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child, .words { text-align: left; }
.note { opacity: .75; } .bounds { font-size: 80%; white-space: nowrap; opacity: .8; } .scroll { overflow-x: auto; }
.reason { font-size: 80%; display: inline-block; max-width: 8rem; }
.advice { border-left: 6px solid var(--wait); padding: .6rem 1rem; margin: 1rem 0; background: #8881; }
.advice b { font-size: 120%; } .ship { border-color: var(--good); } .stop, .srm { border-color: var(--bad); }
.kept { color: var(--good); } .breached, .alarm { color: var(--bad); font-weight: 600; } .open { color: var(--wait); }
"""
_CLASSES: Final = {"ship": "ship", "stop": "stop", "look at SRM first": "srm", "keep running": "run"}


def render(report: ExperimentReport) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    title = f"Experiment {report.experiment}"
    sections = [
        _head(title, report),
        _advice(report),
        _variants(report),
        _over_time(report),
        _metrics(report),
        _guardrails(report.guardrails),
        _traffic(report),
        _segments(report),
        _trends(report),
        _reading(report),
    ]
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body>{''.join(sections)}</body></html>"
    )


def _head(title: str, report: ExperimentReport) -> str:
    return (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(report.hypothesis)}</p><p class='note'>"
        f"{report.state} · {report.allocation} · traffic {report.origin} · {_time(report.first_ms)} to {_time(report.last_ms)} UTC · "
        f"{report.units:,} units, {report.requests:,} answers; {report.open_requests:,} left out whose window is open; "
        f"{report.unknown_events:,} events that named an answer outside of the experiment or an item that it did not show</p>"
    )


def _advice(report: ExperimentReport) -> str:
    advice = report.advice
    variant = f" {html.escape(advice.variant)}" if advice.variant and advice.verdict == "ship" else ""
    cautions = "".join(f"<li>{html.escape(caution)}</li>" for caution in advice.cautions)
    return (
        f"<div class='advice {_CLASSES[advice.verdict]}'><p><b>{advice.verdict.capitalize()}{variant}</b>: {html.escape(advice.reason)}.</p>"
        f"{f'<ul>{cautions}</ul>' if cautions else ''}</div>"
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
            _number(Interval(value=variant.value, low=variant.low, high=variant.high)),
            "" if best is None else f"{best[v]:.1%}",
            "" if loss is None else f"{loss[v]:.3g}",
        ]
        for v, variant in enumerate(report.variants)
    ]
    columns = [
        "variant", "bundle", "units", "answers", "impressions", "clicks", f"{report.metric}, {report.level:.0%}",
        "probability best", "expected loss",
    ]  # fmt: skip
    return "<h2>Variants</h2>" + _table(columns, rows)


def _over_time(report: ExperimentReport) -> str:
    if not report.looks:
        return ""
    return (
        "<h2>Effect over time</h2><p class='note'>All answers up to each moment. The wide band holds at every look; the narrow one only for "
        "whoever looks once, at a moment fixed before.</p>"
        + _plot("effect", figures.effect_over_time(report))
    )


def _metrics(report: ExperimentReport) -> str:
    names = [variant.name for variant in report.variants]
    told = [one for one in report.metrics if one.name == report.metric or any(v.value for v in one.values)]
    silent = ", ".join(one.name for one in report.metrics if one not in told)
    columns = [
        "metric", "variant", "value", "lift", "always valid",
        "CUPED" if report.allocation == "fixed" else "doubly robust", "p, corrected", "probability best",
    ]  # fmt: skip
    return (
        "<h2>Metrics</h2>"
        + _plot("lifts", figures.lifts(report))
        + _table(columns, [row for one in told for row in _metric_rows(one, names)], words=(1,))
        + (f"<p class='note'>Nothing happened so far for: {silent}.</p>" if silent else "")
    )


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
                _number(metric.values[v]),
                f"<span class='note reason'>{html.escape(_short(one.reason))}</span>"
                if one.reason
                else _lift(one.lift),
                _lift(one.always_valid),
                _lift(one.adjusted) + _lift(one.weighted) + _removed(one),
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
            _number(Interval(value=one.value)),
            _number(Interval(value=one.control)),
            _number(one.slack),
            f"<span class='{one.state}'>{one.state}</span>",
        ]
        for one in reports
    ]
    columns = ["guardrail", "variant", "accepted", "value", "control", "distance to the limit", "state"]
    text = (
        "<p class='note'>A breached one stops the experiment by itself; its intervals hold at every look.</p>"
    )
    none = "<p class='note'>The experiment has none.</p>"
    return "<h2>Guardrails</h2>" + (text + _table(columns, rows) if rows else none)


def _traffic(report: ExperimentReport) -> str:
    told = f"p {report.srm_p_value:.4g}, at any look {report.srm_always_valid_p_value:.4g}"
    verdict = (
        f"<span class='alarm'>The split is not what was asked for ({told}).</span>"
        if report.srm_alarm
        else f"The split is what was asked for, as far as can be told ({told})."
    )
    return (
        f"<h2>Traffic and sample ratio</h2><p>{verdict}</p>"
        + _plot("traffic", figures.traffic(report))
        + _plot("shares", figures.shares(report))
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
    table = _table(["metric", *columns], others, words=(1, 2))
    return (
        "<h2>Segments</h2>"
        + _plot("segments", figures.segments(report))
        + _table(columns, mine, words=(1,))
        + f"<details><summary>The other metrics by the number of interactions before</summary>{table}</details>"
    )


def _segment_rows(segment: SegmentReport) -> list[list[str]]:
    return [
        [
            f"{html.escape(segment.kind)}: {html.escape(segment.name)}",
            html.escape(one.variant),
            f"{segment.units:,}",
            f"{segment.decisions:,}",
            _number(segment.values[0]),
            _number(segment.values[v]),
            _lift(one.lift),
            _lift(one.always_valid),
            "" if one.corrected_p_value is None else f"{one.corrected_p_value:.3g}",
        ]
        for v, one in enumerate(segment.comparisons, 1)
    ]


def _trends(report: ExperimentReport) -> str:
    if not report.trends:
        return ""
    lines = "".join(
        f"<li>{html.escape(one.variant)}: {one.slope:+.2%} a day [{one.low:+.2%}, {one.high:+.2%}], p {one.p_value:.3g}"
        f"{', it fades' if one.fades else ''}</li>"
        for one in report.trends
    )
    return f"<h2>Novelty</h2><ul>{lines}</ul>" + _plot("trends", figures.trends(report))


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


def _number(value: Interval) -> str:
    if value.value is None:
        return "<span class='note'>-</span>"
    return f"{value.value:,.4g}" + _bounds(value, "{:,.4g}")


def _lift(value: Interval) -> str:
    return "" if value.value is None else f"{value.value:+.1%}" + _bounds(value, "{:+.1%}")


def _bounds(value: Interval, form: str) -> str:
    if value.low is None or value.high is None:
        return ""
    return f"<br><span class='bounds'>[{form.format(value.low)}, {form.format(value.high)}]</span>"


def _removed(one: Comparison) -> str:
    if one.variance_removed is None or one.variance_removed < 0.01:
        return ""
    return f"<br><span class='note bounds'>{one.variance_removed:.0%} less variance</span>"


def _short(reason: str | None) -> str:
    return (reason or "").split(":")[0]


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=words' if place in words else ''}>{text}</{tag}>"

    head = "".join(cell("th", place, html.escape(column)) for place, column in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(cell("td", place, text) for place, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _plot(name: str, figure: figures.Figure) -> str:
    content = json.dumps(figure).replace("</", "<\\/")
    return (
        f"<div id='plot-{name}'></div><script>(f => Plotly.newPlot('plot-{name}', f.data, f.layout, "
        f"{{responsive: true, displayModeBar: false}}))({content});</script>"
    )
