"""What the pages of reports are made of: one self-contained HTML document, its tables, plots and numbers. Nothing asks another host."""

import html
import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from tastemaker.experiments.reporting.advice import Advice
from tastemaker.experiments.reporting.comparisons import Interval
from tastemaker.experiments.reporting.head import ReportHead, circumstances, told_stop
from tastemaker.experiments.reporting.words import percent

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


def document(title: str, sections: Sequence[str]) -> str:
    """The page."""
    from plotly.offline import get_plotlyjs

    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head>"
        f"<body>{''.join(sections)}</body></html>"
    )


def head(title: str, report: ReportHead, lists: str = "answers") -> str:
    """The title, what was expected, how it stands, and how it ended."""
    stopped = f"<p class='note'>{html.escape(told_stop(report.stop))}</p>" if report.stop else ""
    return (
        f"<h1>{html.escape(title)}</h1><p>Hypothesis: {html.escape(report.hypothesis)}</p>"
        f"<p class='note'>{html.escape(circumstances(report, lists))}</p>{stopped}"
    )


def advice_box(advice: Advice) -> str:
    """What to do, and what to mind."""
    variant = f" {html.escape(advice.variant)}" if advice.variant and advice.verdict == "ship" else ""
    cautions = "".join(f"<li>{html.escape(caution)}</li>" for caution in advice.cautions)
    return (
        f"<div class='advice {_CLASSES[advice.verdict]}'><p><b>{advice.verdict.capitalize()}{variant}</b>: {html.escape(advice.reason)}.</p>"
        f"{f'<ul>{cautions}</ul>' if cautions else ''}</div>"
    )


def number(value: Interval) -> str:
    """A value with its interval."""
    if value.value is None:
        return "<span class='note'>-</span>"
    return f"{value.value:,.4g}" + _bounds(value, lambda bound: f"{bound:,.4g}")


def lift(value: Interval) -> str:
    """A relative change with its interval; nothing where there is none."""
    return "" if value.value is None else percent(value.value) + _bounds(value, percent)


def _bounds(value: Interval, told: Callable[[float], str]) -> str:
    """An interval on a line of its own."""
    if value.low is None or value.high is None:
        return ""
    return f"<br><span class='bounds'>[{told(value.low)}, {told(value.high)}]</span>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table; columns of `words` are aligned to the left."""

    def cell(tag: str, place: int, text: str) -> str:
        return f"<{tag}{' class=words' if place in words else ''}>{text}</{tag}>"

    head = "".join(cell("th", place, html.escape(column)) for place, column in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(cell("td", place, text) for place, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def plot(name: str, figure: dict[str, Any]) -> str:
    """A plot, as plotly has it, under a name of its own."""
    content = json.dumps(figure).replace("</", "<\\/")
    return (
        f"<div id='plot-{name}'></div><script>(f => Plotly.newPlot('plot-{name}', f.data, f.layout, "
        f"{{responsive: true, displayModeBar: false}}))({content});</script>"
    )
