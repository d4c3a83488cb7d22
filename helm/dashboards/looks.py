"""How single series and columns look, where that differs from the rest of their panel: Grafana's field overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

Steps = Sequence[tuple[float | None, str]]
"""Colours from a value on; the first is the base."""
Mappings = Mapping[str, tuple[str, str]]
"""Words and a colour in place of values."""

OUTCOMES: Final[Mapping[str, str]] = {
    "ok": "green", "degraded": "yellow", "refused": "orange", "error": "red", "invalid": "blue", "unauthorized": "purple",
}  # fmt: skip
"""Colours of what became of requests, the same in all panels."""


@dataclass(frozen=True)
class Look:
    """Properties of the fields that a matcher finds.

    Args:
        matcher: Grafana's id of it: `byName` or `byFrameRefID`.
        sought: The name or the refId.
        properties: Values by Grafana's id of the property.
    """

    matcher: str
    sought: str
    properties: Mapping[str, Any]

    def json(self) -> dict[str, Any]:
        """As Grafana reads it."""
        return {
            "matcher": {"id": self.matcher, "options": self.sought},
            "properties": [{"id": key, "value": value} for key, value in self.properties.items()],
        }


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        source: A label, or `Value` (of several queries: `Value #A`, `Value #B`, …).
        title: Above it.
        unit: One of Grafana's.
        decimals: Digits behind the point; None lets Grafana choose.
        steps: Colours of the text from a value on.
        mappings: Words and a colour in place of values.
        width: In pixels; None shares what is left.
        link: Where a click leads, with Grafana's variables; empty leaves room for a link that the chart puts in.
    """

    source: str
    title: str
    unit: str | None = None
    decimals: int | None = None
    steps: Steps = ()
    mappings: Mappings = field(default_factory=dict)
    width: int | None = None
    link: str | None = None

    def look(self) -> Look:
        """What it asks of its field."""
        found: dict[str, Any] = {}
        if self.steps or self.mappings:
            found["custom.cellOptions"] = {"type": "color-text"}
            found["thresholds"] = thresholds(self.steps or ((None, "text"),))
        found |= {"mappings": mapped(self.mappings)} if self.mappings else {}
        if self.link is not None:
            found["links"] = [{"title": "Show", "url": self.link}] if self.link else []
        plain = {"unit": self.unit, "decimals": self.decimals, "custom.width": self.width}
        return Look(
            "byName", self.title, found | {key: value for key, value in plain.items() if value is not None}
        )


def thresholds(steps: Steps) -> dict[str, Any]:
    """As Grafana reads them."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}


def mapped(mappings: Mappings) -> list[dict[str, Any]]:
    """As Grafana reads them."""
    return [
        {"type": "value", "options": {value: {"text": text, "color": color, "index": index}}}
        for index, (value, (text, color)) in enumerate(mappings.items())
    ]


def colored(colors: Mapping[str, str]) -> list[Look]:
    """Series of these names in these colours."""
    return [Look("byName", name, {"color": _fixed(color)}) for name, color in colors.items()]


def _fixed(color: str) -> dict[str, str]:
    return {"mode": "fixed", "fixedColor": color}


def dashed(ref: str, color: str = "#8e8e8e") -> Look:
    """The series of a query as thin dashes that the legend leaves out: limits and bounds."""
    return Look(
        "byFrameRefID",
        ref,
        {
            "custom.lineStyle": {"fill": "dash", "dash": [6, 6]},
            "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
            "color": _fixed(color),
        },
    )


def band(low: str, high: str, color: str) -> list[Look]:
    """Two series of these names as the edges of a filled band that the legend leaves out."""
    edge = {
        "custom.lineWidth": 0,
        "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
        "color": _fixed(color),
    }
    filled = {"custom.fillBelowTo": low, "custom.fillOpacity": 25}
    return [Look("byName", low, edge), Look("byName", high, edge | filled)]


def as_table(columns: Sequence[Column], num_queries: int) -> list[dict[str, Any]]:
    """Transformations that make one table of queries' answers: rows of the same labels joined, columns named and in order."""
    values = (
        [f"Value #{chr(ord('A') + place)}" for place in range(num_queries)] if num_queries > 1 else ["Value"]
    )
    shown = [column.source for column in columns]
    hidden = ["Time", "__name__", *(value for value in values if value not in shown)]
    titles = {column.source: column.title for column in columns}
    if first := titles.get("Value #A"):
        titles["Value"] = first  # as Grafana calls it while the other queries have no data
    organized = {
        "excludeByName": dict.fromkeys(hidden, True),
        "indexByName": {source: place for place, source in enumerate(shown)},
        "renameByName": titles,
    }
    merged = [{"id": "merge", "options": {}}] if num_queries > 1 else []
    return [*merged, {"id": "organize", "options": organized}]
