"""Panels, and how they come to lie on a dashboard, as the JSON that Grafana reads (schema 39, Grafana 11).

A panel is given by what it shows; ids, refIds and places on the grid of 24 columns follow from the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from helm.dashboards.looks import Column, Look, Mappings, Steps, as_table, mapped, thresholds
from helm.dashboards.queries import Query

COLUMNS: Final = 24
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
Kind = Literal["timeseries", "stat", "bargauge", "table", "state-timeline"]


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    Args:
        title: Above it.
        queries: What it draws.
        text: What it means and what to look for.
        unit: One of Grafana's.
        kind: Of panel.
        width: Of 24 columns.
        height: In grid units of 30 pixels.
        steps: Colours from a value on; of lines, where a threshold is drawn.
        lowest: Where the axis begins; None lets Grafana choose.
        highest: Where it ends.
        stacked: Whether series lie on one another.
        stepped: Whether lines keep a value until the next sample, as what changes at once does.
        mappings: Words and a colour in place of values.
        decimals: Digits behind the point; None lets Grafana choose.
        empty: What is told in place of `No data`.
        looks: Of single series.
        columns: Of a table.
        sorted_by: Title of the column that a table is sorted by.
        names: Whether a stat shows the names of its series in place of their values.
    """

    title: str
    queries: Sequence[Query]
    text: str
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    steps: Steps = ((None, "green"),)
    lowest: float | None = None
    highest: float | None = None
    stacked: bool = False
    stepped: bool = False
    mappings: Mappings = field(default_factory=dict)
    decimals: int | None = None
    empty: str | None = None
    looks: Sequence[Look] = ()
    columns: Sequence[Column] = ()
    sorted_by: str | None = None
    names: bool = False

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        """As Grafana reads it."""
        looks = [*self.looks, *(column.look() for column in self.columns)]
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": DATASOURCE,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "targets": [self._target(place, query) for place, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": [look.json() for look in looks]},
            "options": self._options(),
            "transformations": as_table(self.columns, len(self.queries)) if self.kind == "table" else [],
        }

    def _target(self, place: int, query: Query) -> dict[str, Any]:
        instant = self.kind in ("table", "bargauge", "stat")
        return {
            "refId": chr(ord("A") + place),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
            "format": "table" if self.kind == "table" else "time_series",
            "instant": instant,
            "range": not instant,
        }

    def _defaults(self) -> dict[str, Any]:
        defaults: dict[str, Any] = {
            "unit": self.unit,
            "color": {"mode": "palette-classic" if self.kind == "timeseries" else "thresholds"},
            "thresholds": thresholds(self.steps),
            "mappings": mapped(self.mappings),
        }
        bounds = {"min": self.lowest, "max": self.highest, "decimals": self.decimals, "noValue": self.empty}
        defaults |= {key: value for key, value in bounds.items() if value is not None}
        if self.kind == "timeseries":
            defaults["custom"] = {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 20 if self.stacked else 0,
                "showPoints": "never",
                "spanNulls": False,
                "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
                "thresholdsStyle": {"mode": "line" if len(self.steps) > 1 else "off"},
            }
            if self.stepped:
                defaults["custom"]["lineInterpolation"] = "stepAfter"
        return defaults

    def _options(self) -> dict[str, Any]:
        return {
            "timeseries": {"legend": _LEGEND, "tooltip": _TOOLTIP},
            "table": {
                "frameIndex": 0, "showHeader": True, "cellHeight": "sm",
                "sortBy": [{"displayName": self.sorted_by, "desc": False}] if self.sorted_by else [],
            },
            "state-timeline": {
                "mergeValues": True, "showValue": "never", "rowHeight": 0.9, "legend": _LEGEND, "tooltip": _TOOLTIP,
            },
            "bargauge": {
                "reduceOptions": _NEWEST, "orientation": "horizontal", "displayMode": "basic", "legend": _NO_LEGEND,
                "maxVizHeight": 300, "minVizHeight": 16, "minVizWidth": 8, "namePlacement": "auto",
                "showUnfilled": True, "sizing": "auto", "valueMode": "color",
            },
            "stat": {
                "reduceOptions": _NEWEST, "orientation": "auto", "colorMode": "value", "graphMode": "none",
                "textMode": "name" if self.names else "auto", "justifyMode": "auto",
                "percentChangeColorMode": "standard", "showPercentChange": False, "wideLayout": True,
            },
        }[self.kind]  # fmt: skip


_LEGEND: Final = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_NO_LEGEND: Final = _LEGEND | {"showLegend": False}
_TOOLTIP: Final = {"mode": "multi", "sort": "desc"}
_NEWEST: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}


@dataclass(frozen=True)
class Row:
    """Panels below a heading."""

    title: str
    panels: Sequence[Panel]


def laid_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Headings and panels from left to right, and down where one finds no room."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        found.append(
            {"id": len(found) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place, "panels": []}
        )  # fmt: skip
        x, y, tallest = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            found.append(panel.json(len(found) + 1, x, y))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return found
