"""The page of a judgement: values with intervals, weights, and what was left out. Self-contained. Not for the figures themselves."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tastemaker.offpolicy.judgement import Judgement

_STYLE = (
    "body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; } "
    "table { border-collapse: collapse } td, th { padding: .2rem .7rem; text-align: right; "
    "border-bottom: 1px solid #ddd } td:first-child, th:first-child { text-align: left }"
)


def render(judgements: Sequence[Judgement], refused: Mapping[str, str] | None = None) -> str:
    """The page of policies that were judged from one log, and by policy why others could not be."""
    from plotly.offline import get_plotlyjs

    parts = [_section(one) for one in judgements]
    parts += [
        f"<h2>{html.escape(policy)}</h2><p>Not judged: {html.escape(reason)}</p>"
        for policy, reason in (refused or {}).items()
    ]
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Off-policy evaluation</title><style>{_STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><h1>Off-policy evaluation</h1>{''.join(parts)}</body></html>"
    )


def _section(one: Judgement) -> str:
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in one.notes)
    left = "".join(
        f"<li>{count:,} answers {html.escape(reason)}</li>" for reason, count in one.left_out.items() if count
    )
    return (
        f"<h2>{html.escape(one.policy)}</h2><p>{html.escape(one.advice())}</p>"
        f"{_plots(one)}{_values(one)}{_support(one)}<ul>{notes}{left}</ul>"
    )


def _plots(one: Judgement) -> str:
    from plotly.subplots import make_subplots

    figure = make_subplots(
        cols=2, subplot_titles=(f"{one.measured}, {one.unit}", "importance weights, share of rows")
    )
    names = ["logged", *(found.estimator for found in one.estimates)]
    values = [one.logged, *(found.value for found in one.estimates)]
    figure.add_scatter(
        x=[v.value for v in values], y=names, mode="markers", showlegend=False, row=1, col=1,
        error_x={
            "type": "data", "array": [v.high - v.value for v in values], "arrayminus": [v.value - v.low for v in values],
        },
    )  # fmt: skip
    ends, shares = one.weights
    figure.add_bar(x=ends, y=shares, showlegend=False, row=1, col=2)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_layout(height=360, margin={"t": 40, "l": 200})
    made: str = figure.to_html(full_html=False, include_plotlyjs=False)
    return made


def _values(one: Judgement) -> str:
    def cells(name: str, *found: Any) -> list[str]:
        return [name, *(f"{i.value:.5g} [{i.low:.5g}, {i.high:.5g}]" for i in found)]

    rows = [[*cells("logged", one.logged), ""]]
    rows += [cells(found.estimator, found.value, found.difference) for found in one.estimates]
    return _table((f"{one.level:.0%} intervals", one.unit, "more than logged"), rows)


def _support(one: Judgement) -> str:
    found = one.support
    rows = [
        ["answers used, of those read", f"{one.rows:,} of {one.read:,}"],
        ["that agree with the policy", f"{found.num_used:,}"],
        ["effective answers", f"{found.effective_rows:,.1f}"],
        ["largest weight, and its part of all weight", f"{found.largest_weight:.4g}, {found.largest_share:.2%}"],
        ["mean weight; 1 under full support", f"{found.mean_weight:.4f} [{found.mean_low:.4f}, {found.mean_high:.4f}]"],
        ["policy's mass that is known to lack support", f"{found.unsupported:.2%}"],
    ]  # fmt: skip
    return _table(("support", "value"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"
