"""The page of a tuning: recall against time and memory, self-contained. Not for the figures themselves."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tastemaker.index.tuning import Trial, Wanted, described, effort_of

_STYLE = (
    "body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; } "
    "table { border-collapse: collapse } td, th { padding: .2rem .7rem; text-align: right; "
    "border-bottom: 1px solid #ddd } td:first-child, th:first-child { text-align: left }"
)
COLUMNS = ("index", "effort", "recall@100", "p50 ms", "p99 ms", "by the clock", "MB", "built in s")
_COLOURS = {"flat": "#555555", "hnsw": "#1f77b4", "ivf-flat": "#2ca02c", "ivf-pq": "#d62728"}
_HEIGHT = 520
_DASHES = ("solid", "dash", "dot", "dashdot")


def row(trial: Trial) -> tuple[str, ...]:
    """A trial's cells under `COLUMNS`."""
    config, found = trial
    return (
        described(config),
        effort_of(config),
        f"{found.recall:.4f}",
        f"{found.p50_ms:.3f}",
        f"{found.p99_ms:.3f}",
        f"{found.wall_p99_ms:.3f}",
        f"{found.memory_bytes / 1e6:,.0f}",
        f"{found.build_seconds:.1f}",
    )


def render(title: str, groups: Mapping[str, Sequence[Trial]], wanted: Wanted, chosen: Sequence[Trial]) -> str:
    """The page.

    Args:
        title: What was tuned.
        groups: Trials by what they were tried on: one pair of plots each.
        wanted: Drawn as lines.
        chosen: Marked, as what comes nearest where one of them does not reach what is wanted.
    """
    from plotly.offline import get_plotlyjs

    parts = []
    for name, trials in groups.items():
        parts += [f"<h2>{html.escape(name)}</h2>", _curves(trials, wanted, chosen), _table(trials, chosen)]
    title = html.escape(title)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><h1>{title}</h1>{''.join(parts)}</body></html>"
    )


def _curves(trials: Sequence[Trial], wanted: Wanted, chosen: Sequence[Trial]) -> str:
    from plotly.subplots import make_subplots

    figure = make_subplots(cols=2, subplot_titles=("recall against time", "recall against memory"))
    curves: dict[str, list[Trial]] = {}
    for trial in trials:
        curves.setdefault(described(trial.config), []).append(trial)
    per_kind: dict[str, int] = {}
    for name, curve in curves.items():
        kind = curve[0].config.kind
        dash = _DASHES[per_kind.setdefault(kind, 0) % len(_DASHES)]
        per_kind[kind] += 1
        line = {"color": _COLOURS[kind], "dash": dash}
        best = frontier(curve)
        figure.add_scatter(
            row=1, col=1, name=name, line=line, legendgroup=name, mode="lines+markers", **_points(best)
        )
        most = max(curve, key=lambda trial: trial.measured.recall)
        figure.add_scatter(
            row=1, col=2, name=name, legendgroup=name, showlegend=False, mode="markers",
            marker={"color": _COLOURS[kind], "size": 10}, x=[most.measured.memory_bytes / 1e6],
            y=[most.measured.recall], text=[name],
        )  # fmt: skip
    stars = [trial for trial in trials if trial in chosen]
    if stars:
        star = {"symbol": "star", "size": 16, "color": "gold", "line": {"width": 1}}
        name = "chosen" if all(map(wanted.met_by, stars)) else "nearest"
        figure.add_scatter(row=1, col=1, name=name, mode="markers", marker=star, **_points(stars))
    recall, p99 = f"recall {wanted.recall:g}", f"p99 at most {wanted.p99_ms:g} ms"
    figure.add_hline(y=wanted.recall, line_dash="dot", row="all", col="all", annotation_text=recall)
    figure.add_vline(x=wanted.p99_ms, line_dash="dot", row=1, col=1)
    figure.update_xaxes(type="log", title_text="median ms of one search, one thread", row=1, col=1)
    figure.add_annotation(  # of a logarithmic axis an annotation's place is the exponent, a line's is not
        x=math.log10(wanted.p99_ms), y=0.02, yref="y domain", text=p99, textangle=-90,
        showarrow=False, xanchor="right", yanchor="bottom", row=1, col=1,
    )  # fmt: skip
    figure.update_xaxes(title_text="MB", row=1, col=2)
    figure.update_yaxes(title_text="recall@100")
    figure.update_layout(height=_HEIGHT)
    return str(figure.to_html(full_html=False, include_plotlyjs=False))


def worth_showing(trials: Sequence[Trial]) -> list[Trial]:
    """Of each structure the efforts of which none is faster and finds more, by time."""
    curves: dict[str, list[Trial]] = {}
    for trial in trials:
        curves.setdefault(described(trial.config), []).append(trial)
    return [trial for curve in curves.values() for trial in frontier(curve)]


def frontier(curve: Sequence[Trial]) -> list[Trial]:
    """Those of which none is faster and finds more, by time."""
    best: list[Trial] = []
    for trial in sorted(curve, key=lambda trial: trial.measured.p50_ms):
        if not best or trial.measured.recall > best[-1].measured.recall:
            best.append(trial)
    return best


def _points(trials: Sequence[Trial]) -> dict[str, Any]:
    return {
        "x": [trial.measured.p50_ms for trial in trials],
        "y": [trial.measured.recall for trial in trials],
        "text": [f"{effort_of(trial.config)}: p99 {trial.measured.p99_ms:.2f} ms" for trial in trials],
    }


def _table(trials: Sequence[Trial], chosen: Sequence[Trial]) -> str:
    head = "".join(f"<th>{column}</th>" for column in COLUMNS)
    lines = []
    for trial in trials:
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row(trial))
        lines.append(f"<tr{' style=background:#ffe' if trial in chosen else ''}>{cells}</tr>")
    return f"<details><summary>all {len(trials)} trials</summary><table><tr>{head}</tr>{''.join(lines)}</table></details>"
