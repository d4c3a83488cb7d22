"""The page of a comparison: self-contained HTML with plots."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tastemaker.experiments.reporting.comparisons import Interval
from tastemaker.experiments.reporting.figures import COLOURS, Figure
from tastemaker.experiments.reporting.markup import document, number, plot, table

_ORDER: Final = (
    "ndcg", "recall", "precision", "hit_rate", "map", "mrr", "unbiased_recall", "unbiased_dcg", "auc", "gauc", "rmse", "mae", "coverage", "gini", "novelty",
    "serendipity", "diversity", "popularity", "popularity_lift", "miscalibration",
)  # fmt: skip
_MOST_GROUPS: Final = 20


def render(found: Mapping[str, Any], title: str) -> str:
    """The page of what `comparison.compare` gave."""
    warning = "" if found["sampled"] is None else f"<p class='breached'>{html.escape(found['ranked'])}</p>"
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in found["notes"])
    sections = [
        f"<h1>{html.escape(title)}</h1><p class='note'>{_split(found)}; ranked: {html.escape(found['ranked'])}</p>{warning}",
        _metrics(found),
        told_differences(found),
        _over_folds(found),
        _segments(found),
        _exposure(found),
        f"<ul>{notes}</ul>",
    ]
    return document(title, sections)


def _split(found: Mapping[str, Any]) -> str:
    folds = found["folds"]
    asked = ", ".join(
        f"{fold['fold']}: {fold['num_rows']:,} rows to learn from, {fold['num_users']:,} users asked for "
        f"({fold['num_cold_users']:,} without history), {fold['num_targets']:,} targets"
        for fold in folds
    )
    return html.escape(asked)


def metric_names(found: Mapping[str, Any]) -> list[str]:
    """Metrics of all systems, in the order in which they are read."""
    skipped = {"system", "fit_seconds", "evaluation_seconds", "num_users"}
    names = {
        key
        for row in found["systems"]
        for key in row
        if key not in skipped and not key.endswith(("_low", "_high"))
    }
    return sorted(names, key=lambda name: (_ORDER.index(_base(name)), int(name.partition("@")[2] or 0)))


def _base(name: str) -> str:
    return name.partition("@")[0]


def _interval(row: Mapping[str, Any], metric: str) -> Interval:
    return Interval(value=row.get(metric), low=row.get(f"{metric}_low"), high=row.get(f"{metric}_high"))


def _metrics(found: Mapping[str, Any]) -> str:
    rows, names = found["systems"], metric_names(found)
    headline = next((metric for metric in names if metric.startswith("ndcg")), names[0])
    cells = [[metric, *(number(_interval(row, metric)) for row in rows)] for metric in names]
    for key, text in (("fit_seconds", "fit, s"), ("evaluation_seconds", "evaluation, s")):
        cells.append([text, *(f"{row[key]:.1f}" for row in rows)])
    return (
        "<h2>Metrics</h2>"
        + plot("headline", _bars(rows, headline))
        + plot("trade", _trade(rows, headline))
        + table(["metric", *(row["system"] for row in rows)], cells)
        + "<p class='note'>Means over users with 95% bootstrap intervals.</p>"
    )


def _bars(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    values = [row[metric] for row in rows]
    error = {
        "type": "data", "array": [row[f"{metric}_high"] - row[metric] for row in rows],
        "arrayminus": [row[metric] - row[f"{metric}_low"] for row in rows],
    }  # fmt: skip
    bar = {"type": "bar", "x": [row["system"] for row in rows], "y": values, "error_y": error}
    return {"data": [bar | {"marker": {"color": COLOURS[0]}}], "layout": _layout(metric)}


def _trade(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """A point for each system, named in the legend: names beside points would lie on each other."""
    points = [
        {
            "type": "scatter", "mode": "markers", "x": [row["coverage"]], "y": [row[metric]], "name": row["system"],
            "marker": {"size": 12},
        }
        for row in rows
    ]  # fmt: skip
    layout = _layout(f"{metric} over the share of the catalogue that is shown") | {
        "xaxis": {"title": {"text": "coverage"}, "automargin": True},
        "showlegend": True,
    }
    return {"data": points, "layout": layout}


def _layout(title: str) -> Figure:
    found = {"title": {"text": title}, "height": 340, "margin": {"t": 50, "b": 60}, "barmode": "group"}
    return found | {"xaxis": {"automargin": True}}


def told_differences(found: Mapping[str, Any], over: str = "users") -> str:
    """The table of differences from the baseline, paired over users or groups; nothing where there are none."""
    if not found["differences"]:
        return ""
    rows = [
        [
            html.escape(one["system"]), one["metric"],
            number(Interval(value=one["mean"], low=one["low"], high=one["high"])),
            f"{one['p_value']:.4f}", f"{one['corrected']:.4f}",
            "yes" if one["corrected"] < 0.05 else "no",
        ]
        for one in found["differences"]
    ]  # fmt: skip
    return (
        f"<h2>Differences from {html.escape(found['baseline'])}</h2>"
        + table(
            ["system", "metric", "difference", "p", f"p, {found['correction']}", "beyond luck"],
            rows,
            words=(1,),
        )
        + f"<p class='note'>Paired over {over}, by bootstrap; all rows corrected together.</p>"
    )


def _over_folds(found: Mapping[str, Any]) -> str:
    if len(found["folds"]) < 2:
        return ""
    x = [fold["fold"] for fold in found["folds"]]
    metric = next((name for each in found["by_fold"].values() for name in each[0]), None)
    if metric is None:
        return ""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": x,
            "y": [one.get(metric) for one in each],
        }
        for name, each in found["by_fold"].items()
    ]
    return "<h2>Over time</h2>" + plot(
        "folds", {"data": data, "layout": _layout(f"{metric}, window by window")}
    )


def _segments(found: Mapping[str, Any]) -> str:
    last = found["folds"][-1]["fold"]
    each = {name: [one for one in rows if one["fold"] == last] for name, rows in found["segments"].items()}
    first = next(iter(each.values()))
    metric = next((name for one in first for name in one["values"]), None)
    if metric is None:
        return ""
    data = [
        {
            "type": "bar", "name": name, "x": [f"{one['kind']}: {one['name']}" for one in rows],
            "y": [one["values"].get(metric) for one in rows],
        }
        for name, rows in each.items()
    ]  # fmt: skip
    rows = [
        [html.escape(f"{one['kind']}: {one['name']}"), f"{one['num_users']:,}"]
        + [f"{other[place]['values'].get(metric, float('nan')):.4f}" for other in each.values()]
        for place, one in enumerate(first)
    ]
    header = ["segment", "users", *each]
    return (
        f"<h2>Segments, {metric}</h2>"
        + plot("segments", {"data": data, "layout": _layout(metric)})
        + table(header, rows)
    )


def _exposure(found: Mapping[str, Any]) -> str:
    exposure = found["exposure"]
    taken = {group: both[1] for group, both in next(iter(exposure.values())).items()}
    if not taken:
        return ""
    groups = sorted(taken, key=lambda group: -taken[group])[:_MOST_GROUPS]
    data = [{"type": "bar", "name": "taken", "x": groups, "y": [taken[group] for group in groups]}]
    for name, each in exposure.items():
        data.append({"type": "bar", "name": name, "x": groups, "y": [each[group][0] for group in groups]})
    return (
        "<h2>Exposure by group of items</h2><p class='note'>Share of attention, beside the share of what was taken.</p>"
        + plot("exposure", {"data": data, "layout": _layout("Share of attention by tag")})
    )
