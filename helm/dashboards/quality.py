"""Recommendation quality: how lists spread over the catalogue, and how people take them."""

from typing import Final

from helm.dashboards.dashboard import Dashboard
from helm.dashboards.panels import Panel, Query, Row, largest, rate, total

_EXPOSURE: Final = "tastemaker_quality_exposure"
_SEEN: Final = total(
    "catalogue", "tastemaker_events_received_total", 'kind="impression"', 'outcome="received"'
)


def _figure(title: str, figure: str, text: str, unit: str, highest: float | None = None) -> Panel:
    query = Query(largest("catalogue", _EXPOSURE, f'figure="{figure}"'), "{{catalogue}}")
    return Panel(title, [query], text, unit=unit, lowest=0, highest=highest)


def _share(kinds: str, name: str) -> Query:
    taken = total("catalogue", "tastemaker_events_received_total", f'kind=~"{kinds}"', 'outcome="received"')
    return Query(f"{taken} / {_SEEN}", name)


_ROWS = (
    Row(
        "What was shown in the last hour",
        (
            _figure("Coverage", "coverage", "Share of the catalogue that was in a list.", "percentunit", 1),
            _figure("Catalogue reach", "reach", "Different items that were in a list.", "short"),
            _figure(
                "Gini",
                "gini",
                "How unequally items were listed: 0 all alike, 1 one item takes all. A rise: lists narrow down.",
                "percentunit",
                1,
            ),
            _figure(
                "Novelty",
                "novelty",
                "Mean self-information of what was listed: an item that half of the users have is 1 bit.",
                "short",
            ),
            _figure(
                "Share of the popular",
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
                "Share of a shown list that the shadow version's has too. Without data no shadow is live.",
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
                    Query(
                        largest("alias, bound", "tastemaker_promotion_gate_value", 'gate="calibration"'),
                        "{{alias}} {{bound}}",
                    )
                ],
                "How far the ranker's probabilities were from what happened, as its gate measured it, and the gate's limit.",
                lowest=0,
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
