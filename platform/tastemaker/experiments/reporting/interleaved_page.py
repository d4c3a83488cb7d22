"""An interleaving's report as one self-contained HTML page."""

import html

from tastemaker.experiments.reporting import figures
from tastemaker.experiments.reporting.interleaved import InterleavingReport
from tastemaker.experiments.reporting.markup import advice_box, document, head, number, plot, table


def render_interleaving(report: InterleavingReport) -> str:
    """The page."""
    title = f"Interleaving {report.experiment}"
    sections = [
        head(title, report, "lists"),
        advice_box(report.advice),
        _teams(report),
        _preference(report),
        _reading(),
    ]
    return document(title, sections)


def _teams(report: InterleavingReport) -> str:
    decided = sum(team.wins for team in report.teams)
    rows = [
        [
            html.escape(team.name) + (" <span class='note'>(control)</span>" if place == 0 else ""),
            html.escape(team.alias),
            f"{team.picks:,}",
            f"{team.earned:,.6g}",
            f"{team.wins:,}",
            f"{team.wins / decided:.1%}" if decided else "",
        ]
        for place, team in enumerate(report.teams)
    ]
    columns = [
        "variant",
        "bundle",
        "picks shown",
        f"earned ({report.metric})",
        "lists won",
        "of decided lists",
    ]
    ties = f"<p class='note'>{report.ties:,} lists are ties: both variants' picks earned the same, mostly nothing.</p>"
    return "<h2>Variants</h2>" + table(columns, rows) + ties


def _preference(report: InterleavingReport) -> str:
    rows = [
        [f"one look, {report.level:.0%}", number(report.preference), f"{report.p_value:.3g}"],
        [
            f"every look, {report.level:.0%}",
            number(report.always_valid),
            f"{report.always_valid_p_value:.3g}",
        ],
    ]
    return (
        "<h2>Preference</h2><p class='note'>The share of lists that the second variant won less that of the first: -1 to 1.</p>"
        + table(["holds for", "preference", "p"], rows)
        + plot("preference", figures.preference_over_time(report))
    )


def _reading() -> str:
    return (
        "<h2>How to read this</h2><p class='note'>Each list held both variants' picks, drawn as captains choose teams. Whoever's picks "
        "earn more wins the list. Variances are between units, however often one came. The wide band holds at every look, so that stopping early "
        "is safe. The preference says who is better, not by how much a metric would move: a split tells that.</p>"
    )
