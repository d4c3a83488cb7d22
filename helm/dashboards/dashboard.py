"""One dashboard: its variables, its links to the others, and annotations for promotions and swaps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from helm.dashboards.panels import DATASOURCE, Row, laid_out
from helm.dashboards.queries import of

TAG: Final = "tastemaker"
_NAMESPACES: Final = "label_values(tastemaker_bundle_live_generation, namespace)"
_CATALOGUES: Final = 'label_values(tastemaker_bundle_live_generation{namespace=~"$namespace"}, catalogue)'


@dataclass(frozen=True)
class Variable:
    """What a reader chooses at the top.

    Args:
        name: In queries, behind `$`.
        label: Beside it.
        query: Gives its values.
        one: Whether one value is chosen, at first the first; else several, at first all.
    """

    name: str
    label: str
    query: str
    one: bool = False

    def json(self) -> dict[str, Any]:
        """As Grafana reads it. `.*` for all also takes series without the label, as outside of Kubernetes."""
        shown: dict[str, Any] = {
            "name": self.name, "label": self.label, "type": "query", "datasource": DATASOURCE,
            "query": {"query": self.query, "refId": f"{self.name}-values"}, "refresh": 2, "sort": 1, "hide": 0,
            "regex": "", "options": [], "multi": not self.one, "includeAll": not self.one,
        }  # fmt: skip
        if not self.one:
            shown |= {"allValue": ".*", "current": {"text": "All", "value": "$__all"}}
        return shown


@dataclass(frozen=True)
class Dashboard:
    """What one dashboard is about.

    Args:
        name: Of its file; its uid is `tastemaker-<name>`.
        title: At its top.
        text: What it answers.
        rows: What it shows.
        variables: What can be chosen beside release and catalogue.
    """

    name: str
    title: str
    text: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = ()

    def json(self) -> dict[str, Any]:
        """As Grafana reads it."""
        return {
            "uid": f"tastemaker-{self.name}",
            "title": f"Tastemaker / {self.title}",
            "description": self.text,
            "tags": [TAG],
            "schemaVersion": 39,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"},
            "templating": {"list": self._variables()},
            "annotations": {"list": _annotations()},
            "links": [_link()],
            "panels": laid_out(self.rows),
        }

    def _variables(self) -> list[dict[str, Any]]:
        source = {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "hide": 0, "includeAll": False, "multi": False, "regex": "", "options": [],
        }  # fmt: skip
        scope = (
            Variable("namespace", "Namespace", _NAMESPACES),
            Variable("catalogue", "Catalogue", _CATALOGUES),
        )
        return [source, *(variable.json() for variable in (*scope, *self.variables))]


def _annotations() -> list[dict[str, Any]]:
    return [
        _annotation(
            "Promotions and rollbacks",
            "blue",
            f"max by (catalogue) (changes({of('tastemaker_bundle_live_generation')}[1m])) > 0",
            "An alias of {{catalogue}} was moved",
        ),
        _annotation(
            "Swaps",
            "purple",
            f"max by (alias) (changes({of('tastemaker_bundle_live_version')}[1m])) > 0",
            "Gateways answer {{alias}} from another version",
        ),
        _annotation(
            "Guardrail stops",
            "red",
            f"max by (experiment) (changes({of('tastemaker_experiment_guardrail_stops_total')}[1m])) > 0",
            "A guardrail stopped {{experiment}}",
        ),
    ]


def _annotation(name: str, color: str, expr: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "enable": True,
        "hide": False,
        "iconColor": color,
        "datasource": DATASOURCE,
        "expr": expr,
        "step": "30s",
        "titleFormat": title,
    }


def _link() -> dict[str, Any]:
    return {
        "title": "Tastemaker", "type": "dashboards", "tags": [TAG], "asDropdown": True, "includeVars": True,
        "keepTime": True, "targetBlank": False, "icon": "external link", "tooltip": "The other dashboards", "url": "",
    }  # fmt: skip
