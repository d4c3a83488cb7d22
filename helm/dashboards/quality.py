"""Recommendation quality: how lists spread over the catalogue, and how people take them."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.looks import Column, dashed
from helm.dashboards.panels import Panel, Row
from helm.dashboards.queries import Query, largest, rate, total

_EXPOSURE: Final = "tastemaker_quality_exposure"
_NOT_YET: Final = "Not measured yet: every five minutes, over the hour before"
_GATE: Final = "tastemaker_promotion_gate_value"
_BY_SCORE: Final = "tastemaker_quality_click_rate_ratio"
_SEEN: Final = total(
    "catalogue", "tastemaker_events_received_total", 'kind="impression"', 'outcome="received"'
)


def _figure(title: str, figure: str, text: str, unit: str, highest: float | None = None) -> Panel:
    query = Query(largest("catalogue", _EXPOSURE, f'figure="{figure}"'), "{{catalogue}}")
    return Panel(title, [query], text, unit=unit, lowest=0, highest=highest, empty=_NOT_YET)


def _of(figure: str) -> str:
    return f'figure="{figure}"'


def _share(kinds: str, name: str) -> Query:
    taken = total("catalogue", "tastemaker_events_received_total", f'kind=~"{kinds}"', 'outcome="received"')
    return Query(f"{taken} / {_SEEN}", name)


_ROWS = (
    Row(
        "What was shown in the last hour",
        (
            _figure("Coverage", "coverage", "Share of the catalogue that was in a list.", "percentunit", 1),
            _figure("Catalogue reach", "reach", "Different items that were in a list.", "suffix: items"),
            _figure(
                "Gini of exposure",
                "gini",
                "How unequally items were listed: 0 all alike, 1 one item takes all. A rise: lists narrow down.",
                "none",
                1,
            ),
            _figure(
                "Novelty",
                "novelty",
                "Mean self-information of what was listed: an item that half of the users have is 1 bit.",
                "suffix: bits",
            ),
            _figure(
                "Share of the most popular 1%",
                "popular-share",
                "Of slots, how many went to the 1% of items that most users have.",
                "percentunit",
                1,
            ),
            Panel(
                "Shadow's overlap",
                [
                    Query(
                        f"sum ({rate('tastemaker_shadow_overlap_ratio_sum')})"
                        f" / sum ({rate('tastemaker_shadow_overlap_ratio_count')})",
                        "mean",
                    )
                ],
                "Share of a shown list that the shadow version's has too.",
                empty="No shadow is live",
                unit="percentunit",
                lowest=0,
                highest=1,
            ),
        ),
    ),
    Row(
        "How it was taken",
        (
            Panel(
                "Positive feedback by impression",
                [
                    _share("click", "clicks"),
                    _share("purchase|like", "purchases and likes"),
                ],
                "Received events of a kind by received impressions, over all variants. Not an estimate: those are on Experiments.",
                unit="percentunit",
                lowest=0,
            ),
            Panel(
                "Refusals by impression",
                [_share("skip|dislike|hide", "skips, dislikes, hides")],
                "A rise after a promotion: roll back, then ask why.",
                unit="percentunit",
                lowest=0,
            ),
            Panel(
                "Calibration error",
                [
                    Query(largest("alias", _GATE, 'gate="calibration"', f'bound="{bound}"'), legend)
                    for bound, legend in (("value", "{{alias}}"), ("limit", "limit of {{alias}}"))
                ],
                "How far the ranker's probabilities were from what happened, as its gate measured it; dashes: the gate's limit.",
                lowest=0,
                decimals=3,
                looks=(dashed("B", "red"),),
                empty="No gate has measured it",
            ),
            Panel(
                "Calibration of what was shown",
                [
                    Query(
                        f"{largest('catalogue, origin', 'tastemaker_quality_calibration_error_ratio')} >= 0",
                        "{{catalogue}} {{origin}}",
                    )
                ],
                "How far clicks were from the scores of what was seen, in the hour before the last (of simulated traffic in the last). "
                "Slots lower down are clicked less than the ranker says, so it is not 0 when all is well: a change after a promotion is the sign.",
                unit="percentunit",
                lowest=0,
                empty="Fewer than 1000 slots were seen, or scores are no click rates",
            ),
            Panel(
                "Clicks by score",
                [
                    Query(f"{largest('origin, bucket', _BY_SCORE, _of(figure))} >= 0")
                    for figure in ("expected", "observed")
                ]
                + [Query(f"{largest('origin, bucket', 'tastemaker_quality_calibrated_slots')} > 0")],
                "Of slots whose score lies in a bucket: the mean score, and how many of them were clicked within an hour (of simulated traffic within a minute).",
                kind="table",
                width=16,
                empty="Fewer than 1000 slots were seen, or scores are no click rates",
                columns=(
                    Column("origin", "Traffic"),
                    Column("bucket", "Score"),
                    Column("Value #A", "Expected", unit="percentunit", decimals=1),
                    Column("Value #B", "Clicked", unit="percentunit", decimals=1),
                    Column("Value #C", "Slots", decimals=0),
                ),
            ),
        ),
    ),
)  # fmt: skip
QUALITY: Final = Dashboard(
    "quality",
    "Recommendation quality",
    "How lists spread over the catalogue, and how people take them.",
    _ROWS,
)
