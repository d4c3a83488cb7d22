"""`report.html`: one self-contained page of the demo's report, tables and plots, no request to any other host."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #c93c37; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
.note { opacity: .75; } .bounds { font-size: 80%; white-space: nowrap; } .scroll { overflow-x: auto; }
"""
_METRICS = ("recall@10", "recall@50", "ndcg@10", "map@10", "mrr", "coverage", "gini", "novelty")


def render(report: Mapping[str, Any]) -> str:
    """The page."""
    sections = [
        _head(report),
        _targets(report["targets"]),
        _offline(report["offline"]),
        _experiments(report["experiments"]),
        _serving(report["serving"]),
        _timings(report["timings_seconds"], report["versions"]),
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Tastemaker demo</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style>{_plotly()}</head>"
        f"<body>{''.join(sections)}</body></html>"
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def _head(report: Mapping[str, Any]) -> str:
    data, parameters = report["data"], report["parameters"]
    return (
        "<h1>Tastemaker demo</h1><p class='note'>"
        f"{html.escape(str(report['created']))} · {data['num_interactions']:,} interactions of {data['num_users']:,} users "
        f"with {data['num_items']:,} items · {'quick' if parameters['quick'] else 'full'} run · "
        f"{report['timings_seconds']['total']:.0f} s · peak memory {report['peak_memory_mb']:,.0f} MiB</p>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _targets(targets: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            html.escape(target["name"]),
            f"{target['value']:.4g}",
            f"{'at least' if target['better'] == 'higher' else 'at most'} {target['target']:.4g}",
            "<span class='met'>met</span>" if target["met"] else "<span class='missed'>missed</span>",
        ]
        for target in targets
    ]
    return "<h2>Targets</h2>" + _table(["figure", "value", "target", ""], rows)


def _offline(offline: Mapping[str, Any]) -> str:
    def cell(row: Mapping[str, Any], metric: str) -> str:
        if f"{metric}_low" not in row:
            return f"{row[metric]:.3f}"
        return f"{row[metric]:.3f}<br><span class='note bounds'>[{row[f'{metric}_low']:.3f}, {row[f'{metric}_high']:.3f}]</span>"

    rows = [
        [html.escape(row["system"]), *(cell(row, metric) for metric in _METRICS)] for row in offline["rows"]
    ]
    systems = [row["system"] for row in offline["rows"]]
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "orientation": "h",
                "x": [row["ndcg@10"] for row in offline["rows"]],
                "y": systems,
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [row["ndcg@10_high"] - row["ndcg@10"] for row in offline["rows"]],
                    "arrayminus": [row["ndcg@10"] - row["ndcg@10_low"] for row in offline["rows"]],
                },
            }
        ],
        "layout": _layout("NDCG@10, 95% user bootstrap", height=120 + 28 * len(systems)),
    }
    paired = [
        [html.escape(name), f"{p['mean']:+.4f}", f"[{p['low']:+.4f}, {p['high']:+.4f}]"]
        for name, p in offline["paired"].items()
    ]
    return (
        "<h2>Offline</h2><p class='note'>Each user's last five events held out, whole catalogue ranked, seen items "
        "masked; 95% intervals by resampling users.</p>"
        + _table(["system", *_METRICS], rows)
        + _plot("offline", figure)
        + _table(["paired difference of NDCG@10", "mean", "95%"], paired)
    )


def _experiments(experiments: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            html.escape(name),
            f"{result['units']:,}",
            f"{result['requests']:,}",
            f"{result['lift']['lift']:+.1%}",
            f"[{result['lift']['low']:+.1%}, {result['lift']['high']:+.1%}]",
            f"{result['exact_lift']:+.1%}",
            f"{result['srm_p_value']:.3f}",
            f"{result['treatment_share']:.0%}",
        ]
        for name, result in experiments.items()
    ]
    columns = ["experiment", "visitors", "requests", "lift", "95%", "exact lift", "SRM p", "traffic to B"]
    names = list(experiments)
    lifts = [experiments[name]["lift"] for name in names]
    figure = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "estimated lift, 95%",
                "x": [lift["lift"] for lift in lifts],
                "y": names,
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [lift["high"] - lift["lift"] for lift in lifts],
                    "arrayminus": [lift["lift"] - lift["low"] for lift in lifts],
                },
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "exact lift under the world",
                "marker": {"symbol": "diamond-open", "size": 12},
                "x": [experiments[name]["exact_lift"] for name in names],
                "y": names,
            },
        ],
        "layout": _layout("Lift of B over A in clicks per request", height=320, x_format="+.0%"),
    }
    return (
        "<h2>Experiments</h2><p class='note'>Simulated visitors; variances are clustered by visitor. The exact lift is "
        "what the simulated world's own click probabilities give for both variants' lists.</p>"
        + _table(columns, rows)
        + _plot("experiments", figure)
        + _traffic(experiments.get("thompson"))
    )


def _traffic(bandit: Mapping[str, Any] | None) -> str:
    if not bandit or not bandit.get("propensity_path"):
        return ""
    path = bandit["propensity_path"]
    figure = {
        "data": [{"type": "scatter", "mode": "lines", "x": [p["units"] for p in path], "y": [p["propensity"] for p in path]}],
        "layout": _layout("Thompson: probability that a new visitor gets B", height=300)
        | {"xaxis": {"title": {"text": "visitors so far"}}, "yaxis": {"range": [0, 1], "tickformat": ".0%"}},
    }  # fmt: skip
    return _plot("bandit", figure)


def _serving(serving: Mapping[str, Any]) -> str:
    rows = [
        [html.escape(stage), *(f"{times[q]:.1f}" for q in ("p50", "p95", "p99"))]
        for stage, times in serving["latency_ms"].items()
    ]
    note = (
        f"{serving['requests']:,} requests in {serving['seconds']:.0f} s ({serving['requests_per_second']:.0f}/s, client on "
        f"the same cores), {serving['failed']} failed, {serving['degraded']:,} with a fallback; "
        f"{serving['parity']:.1%} of the served lists that were checked equal the offline replay of the same pipeline."
    )
    return f"<h2>Serving</h2><p class='note'>{note}</p>" + _table(
        ["stage", "p50 ms", "p95 ms", "p99 ms"], rows
    )


def _timings(timings: Mapping[str, float], versions: Mapping[str, str]) -> str:
    rows = [[html.escape(step), f"{seconds:.1f}"] for step, seconds in timings.items()]
    used = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "<h2>Time</h2>" + _table(["step", "seconds"], rows) + f"<p class='note'>{html.escape(used)}</p>"


def _layout(title: str, height: int, x_format: str | None = None) -> dict[str, Any]:
    axis: dict[str, Any] = {"zeroline": True}
    if x_format:
        axis["tickformat"] = x_format
    return {
        "title": {"text": title},
        "height": height,
        "xaxis": axis,
        "yaxis": {"automargin": True, "autorange": "reversed"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(128,128,128,.08)",
        "font": {"color": "#888"},
        "margin": {"l": 40, "r": 20, "t": 50, "b": 40},
    }


def _plot(name: str, figure: Mapping[str, Any]) -> str:
    import json

    content = json.dumps(figure).replace("</", "<\\/")
    return (
        f"<div id='plot-{name}'></div><script>(f => Plotly.newPlot('plot-{name}', f.data, f.layout, "
        f"{{responsive: true, displayModeBar: false}}))({content});</script>"
    )
