"""The page of a comparison of click models: self-contained HTML with plots."""

import html
from collections.abc import Mapping
from typing import Any

from tastemaker.evaluation.click_comparison import CLICK_METRICS
from tastemaker.evaluation.comparison_page import told_differences
from tastemaker.experiments.reporting.comparisons import Interval
from tastemaker.experiments.reporting.figures import COLOURS, Figure
from tastemaker.experiments.reporting.markup import document, number, plot, table


def render_clicks(found: Mapping[str, Any], title: str) -> str:
    """The page of what `click_comparison.compare_clicks` gave."""
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found["notes"])
    sections = [
        f"<h1>{html.escape(title)}</h1><p class='note'>{html.escape(told_rows(found))}</p>",
        "<h2>Metrics</h2>" + plot("logloss", _bars(found)) + _metrics(found),
        told_differences(found, "groups"),
        "<h2>Calibration</h2><p class='note'>Share of clicks over the mean probability, in 15 bins of like size.</p>"
        + plot("calibration", _curves(found)),
        f"<ul>{notes}</ul>",
    ]
    return document(title, sections)


def told_rows(found: Mapping[str, Any]) -> str:
    """How many rows each part has, and how often they were clicked."""
    parts = [
        f"{part}: {one['num_rows']:,} rows, {one['click_rate']:.2%} clicked"
        for part, one in found["rows"].items()
        if one is not None
    ]
    return f"{'; '.join(parts)}; held out: {found['held_out']}"


def metric_rows(found: Mapping[str, Any]) -> list[str]:
    """Metrics that some system has, in the order in which they are read."""
    return [
        metric for metric in CLICK_METRICS if any(row.get(metric) is not None for row in found["systems"])
    ]


def _metrics(found: Mapping[str, Any]) -> str:
    rows = found["systems"]
    cells = [[metric, *(number(_interval(row, metric)) for row in rows)] for metric in metric_rows(found)]
    for key, text in (("fit_seconds", "fit, s"), ("evaluation_seconds", "probabilities, s")):
        cells.append([text, *(f"{row[key]:.1f}" for row in rows)])
    note = (
        "Less is better of the first ones, more of AUC and GAUC. Intervals are 95%, by bootstrap over groups."
    )
    return table(["metric", *(row["system"] for row in rows)], cells) + f"<p class='note'>{note}</p>"


def _interval(row: Mapping[str, Any], metric: str) -> Interval:
    return Interval(value=row.get(metric), low=row.get(f"{metric}_low"), high=row.get(f"{metric}_high"))


def _bars(found: Mapping[str, Any]) -> Figure:
    rows = found["systems"]
    error = {
        "type": "data", "array": [row["logloss_high"] - row["logloss"] for row in rows],
        "arrayminus": [row["logloss"] - row["logloss_low"] for row in rows],
    }  # fmt: skip
    bar = {
        "type": "bar", "x": [row["system"] for row in rows], "y": [row["logloss"] for row in rows],
        "error_y": error, "marker": {"color": COLOURS[0]},
    }  # fmt: skip
    return {"data": [bar], "layout": _layout("log loss")}


def _curves(found: Mapping[str, Any]) -> Figure:
    ideal = {
        "type": "scatter", "mode": "lines", "name": "calibrated", "x": [0, 1], "y": [0, 1],
        "line": {"dash": "dot", "color": "#888"},
    }  # fmt: skip
    lines = [
        {
            "type": "scatter", "mode": "lines+markers", "name": name,
            "x": [one["predicted"] for one in curve], "y": [one["observed"] for one in curve],
        }
        for name, curve in found["calibration"].items()
    ]  # fmt: skip
    axes = {"xaxis": {"title": {"text": "mean probability"}}, "yaxis": {"title": {"text": "share of clicks"}}}
    return {"data": [ideal, *lines], "layout": _layout("reliability") | axes}


def _layout(title: str) -> Figure:
    return {"title": {"text": title}, "height": 360, "margin": {"t": 50, "b": 60}}
