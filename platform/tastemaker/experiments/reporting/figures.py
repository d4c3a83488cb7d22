"""Plots of an experiment's report, as plotly's JSON. Not the page around them (`report_page`)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from tastemaker.experiments.reporting.comparisons import Interval
from tastemaker.experiments.reporting.interleaved import InterleavingReport
from tastemaker.experiments.reporting.report import ExperimentReport

Figure = dict[str, Any]
COLOURS: Final = (
    "#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#eeca3b", "#9d755d", "#ff9da6", "#79706e",
)  # fmt: skip
"""Of the variants, in order; there are at most ten."""


def effect_over_time(report: ExperimentReport) -> Figure:
    """Each variant's lift after every look: always-valid band, and the narrower one that holds for one look alone."""
    data: list[Figure] = []
    for place, name in enumerate(_others(report)):
        colour = COLOURS[place + 1]
        looks = [look for look in report.looks if look.always_valid[place].low is not None]
        x = [_time(look.end_ms) for look in looks]
        data += _band(x, [look.always_valid[place] for look in looks], colour, name, "always valid", 0.15)
        known = [look for look in report.looks if look.fixed[place].low is not None]
        times = [_time(look.end_ms) for look in known]
        data += _band(times, [look.fixed[place] for look in known], colour, name, "this look alone", 0.25)
        data.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": name, "x": times, "legendgroup": name,
                "y": [look.fixed[place].value for look in known], "line": {"color": colour}, "marker": {"size": 5},
            }
        )  # fmt: skip
    layout = _layout(f"Lift in {report.metric} over the control", height=380, y_format="+.0%")
    y_axis = layout["yaxis"] | {"zerolinewidth": 2} | _settled(report)
    return {"data": data, "layout": layout | {"yaxis": y_axis}}


def preference_over_time(report: InterleavingReport) -> Figure:
    """The preference after every look: always-valid band, and the narrower one that holds for one look alone."""
    x, name, colour = [_time(look.end_ms) for look in report.looks], report.teams[1].name, COLOURS[1]
    data = _band(x, [look.always_valid for look in report.looks], colour, name, "always valid", 0.15)
    data += _band(x, [look.fixed for look in report.looks], colour, name, "this look alone", 0.25)
    values = [look.fixed.value for look in report.looks]
    data.append(
        {
            "type": "scatter", "mode": "lines+markers", "name": name, "x": x, "y": values, "legendgroup": name,
            "line": {"color": colour}, "marker": {"size": 5},
        }
    )  # fmt: skip
    first, second = (team.name for team in report.teams)
    layout = _layout(f"Preference: above 0 for {second}, below for {first}", height=380, y_format="+.2f")
    late = [look.always_valid for look in report.looks[len(report.looks) // 4 :]]
    return {
        "data": data,
        "layout": layout | {"yaxis": layout["yaxis"] | {"zerolinewidth": 2} | _around(late)},
    }


def _settled(report: ExperimentReport) -> Figure:
    """The axis' range without the first quarter of the looks, which know next to nothing."""
    return _around([bar for look in report.looks[len(report.looks) // 4 :] for bar in look.always_valid])


def _around(late: Sequence[Interval]) -> Figure:
    """An axis' range that holds intervals and 0."""
    ends = [end for bar in late for end in (bar.low, bar.high) if end is not None]
    if not ends:
        return {}
    room = 0.1 * (max(ends) - min(ends))
    return {"range": [min(*ends, 0.0) - room, max(*ends, 0.0) + room]}


def lifts(report: ExperimentReport) -> Figure:
    """Lifts of all metrics with always-valid intervals; metrics without one are left out."""
    return _forest(
        report,
        [
            (metric.name, [one.always_valid for one in metric.comparisons])
            for metric in report.metrics
            if any(one.always_valid.low is not None for one in metric.comparisons)
        ],
        f"Lift over the control, always-valid {report.level:.0%} intervals",
    )


def segments(report: ExperimentReport) -> Figure:
    """Lifts of the primary metric by segment."""
    return _forest(
        report,
        [
            (f"{segment.kind}: {segment.name}", [one.always_valid for one in segment.comparisons])
            for segment in report.segments
            if segment.metric == report.metric
            and any(one.always_valid.low is not None for one in segment.comparisons)
        ],
        f"Lift in {report.metric} by segment, always-valid {report.level:.0%} intervals",
    )


def traffic(report: ExperimentReport) -> Figure:
    """Decisions of each variant in each bin."""
    x = [_time(step.start_ms + report.bin_ms // 2) for step in report.traffic]
    data: list[Figure] = [
        {
            "type": "bar", "name": variant.name, "x": x, "y": [step.requests[v] for step in report.traffic],
            "marker": {"color": COLOURS[v]},
        }
        for v, variant in enumerate(report.variants)
    ]  # fmt: skip
    return {"data": data, "layout": _layout("Answers by variant", height=300) | {"barmode": "stack"}}


def shares(report: ExperimentReport) -> Figure:
    """The probability with which a new unit got each variant, and the share of all units so far that did."""
    steps = report.traffic
    data: list[Figure] = []
    for v, variant in enumerate(report.variants):
        colour = COLOURS[v]
        known = [step for step in steps if step.propensities is not None]
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": f"{variant.name}: asked for", "x": [_time(s.start_ms) for s in known],
                "y": [step.propensities[v] for step in known if step.propensities is not None],
                "line": {"color": colour, "dash": "dot"},
            }
        )  # fmt: skip
        mine, everyone, share = 0, 0, []
        for step in steps:
            mine, everyone = mine + step.new_units[v], everyone + sum(step.new_units)
            share.append(mine / everyone if everyone else None)
        data.append(
            {
                "type": "scatter", "mode": "lines", "name": f"{variant.name}: came so far", "x": [_time(s.start_ms) for s in steps],
                "y": share, "line": {"color": colour},
            }
        )  # fmt: skip
    layout = _layout("Share of new units by variant", height=300, y_format=".0%")
    return {"data": data, "layout": layout | {"yaxis": layout["yaxis"] | {"rangemode": "tozero"}}}


def trends(report: ExperimentReport) -> Figure:
    """Lifts by days since a unit's first decision."""
    data: list[Figure] = []
    names = _others(report)
    for trend in report.trends:
        colour = COLOURS[names.index(trend.variant) + 1]
        bars = [
            Interval(value=v, low=a, high=b)
            for v, a, b in zip(trend.lifts, trend.lows, trend.highs, strict=True)
        ]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": trend.variant, "x": list(trend.days),
                "y": list(trend.lifts), "marker": {"color": colour, "size": 8}, "error_y": _error(bars),
            }
        )  # fmt: skip
    layout = _layout(
        f"Lift in {report.metric} by days since a unit's first answer", height=300, y_format="+.0%"
    )
    return {"data": data, "layout": layout | {"xaxis": {"title": {"text": "days"}, "automargin": True}}}


def _forest(report: ExperimentReport, rows: Sequence[tuple[str, Sequence[Interval]]], title: str) -> Figure:
    data: list[Figure] = []
    for place, name in enumerate(_others(report)):
        known = [(label, bars[place]) for label, bars in rows if bars[place].low is not None]
        data.append(
            {
                "type": "scatter", "mode": "markers", "name": name, "y": [label for label, _ in known],
                "x": [bar.value for _, bar in known], "error_x": _error([bar for _, bar in known]),
                "marker": {"color": COLOURS[place + 1], "size": 8}, "orientation": "h", "offsetgroup": name,
            }
        )  # fmt: skip
    layout = _layout(title, height=110 + (16 + 10 * len(_others(report))) * len(rows))
    axes = {
        "xaxis": {"tickformat": "+.0%", "zeroline": True, "zerolinewidth": 2} | _in_sight(rows),
        "yaxis": {
            "automargin": True, "autorange": "reversed", "type": "category", "categoryorder": "array",
            "categoryarray": [label for label, _ in rows],
        },
    }  # fmt: skip
    return {"data": data, "layout": layout | axes | {"scattermode": "group", "scattergap": 0.4}}


def _in_sight(rows: Sequence[tuple[str, Sequence[Interval]]]) -> Figure:
    """The axis' range, where intervals that say nothing would press the others together: such ones leave the plot."""
    bars = [bar for _, row in rows for bar in row if bar.value is not None]
    ends = [end for bar in bars for end in (bar.low, bar.high) if end is not None]
    if not ends:
        return {}
    values = [bar.value for bar in bars if bar.value is not None]
    high = min(max(*ends, 0.0), max(2.0, *(1.5 * value for value in values)))
    low = min(*ends, 0.0)
    return {"range": [low - 0.05 * (high - low), high + 0.05 * (high - low)]}


def _band(
    x: Sequence[str], bars: Sequence[Interval], colour: str, variant: str, kind: str, opacity: float
) -> list[Figure]:
    shade = f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{opacity})"
    edge: Figure = {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "line": {"width": 0},
        "legendgroup": variant,
        "showlegend": False,
        "hoverinfo": "skip",
        "name": f"{variant}: {kind}",
    }
    return [
        edge | {"y": [bar.low for bar in bars]},
        edge | {"y": [bar.high for bar in bars], "fill": "tonexty", "fillcolor": shade},
    ]


def _error(bars: Sequence[Interval]) -> Figure:
    return {
        "type": "data",
        "symmetric": False,
        "array": [_apart(bar.high, bar.value) for bar in bars],
        "arrayminus": [_apart(bar.value, bar.low) for bar in bars],
    }


def _apart(above: float | None, below: float | None) -> float:
    return 0.0 if above is None or below is None else above - below


def _others(report: ExperimentReport) -> list[str]:
    return [variant.name for variant in report.variants[1:]]


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _layout(title: str, height: int, y_format: str | None = None) -> Figure:
    y_axis: Figure = {"automargin": True, "zeroline": True}
    if y_format:
        y_axis["tickformat"] = y_format
    return {
        "title": {"text": title, "x": 0, "xanchor": "left"},
        "height": height,
        "xaxis": {"automargin": True},
        "yaxis": y_axis,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(128,128,128,.08)",
        "font": {"color": "#888"},
        "margin": {"l": 50, "r": 20, "t": 50, "b": 40},
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    }
