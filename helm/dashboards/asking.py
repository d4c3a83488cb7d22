"""Asks a Prometheus what the panels of a dashboard show, with the variables set as a reader finds them at first."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

Series = list[dict[str, Any]]
"""As Prometheus answers: `metric`, and `values` of a range or `value` of an instant."""
_RATE_INTERVAL: Final = {"__rate_interval": "1m"}
_LABEL_VALUES: Final = re.compile(r"label_values\((?P<match>.*), (?P<label>\w+)\)")


@dataclass(frozen=True)
class Prometheus:
    """A running one.

    Args:
        address: As in `http://127.0.0.1:9090`.
        start: Of the time that is asked about, in seconds.
        end: Of the same.
        step: Between samples, in seconds.
    """

    address: str
    start: float
    end: float
    step: int = 15

    def over_time(self, expr: str) -> Series:
        """Series of an expression from start to end.

        Raises:
            urllib.error.HTTPError: Prometheus refuses it.
        """
        span = {"start": self.start, "end": self.end, "step": self.step}
        found: Series = self._asked("query_range", query=expr, **span)["result"]
        return found

    def at_end(self, expr: str) -> Series:
        """Its series at the end.

        Raises:
            urllib.error.HTTPError: Prometheus refuses it.
        """
        found: Series = self._asked("query", query=expr, time=self.end)["result"]
        return found

    def of_target(self, target: Mapping[str, Any], chosen: Mapping[str, str]) -> Series:
        """What a target of a panel shows."""
        expr = resolved(target["expr"], chosen)
        return self.at_end(expr) if target["instant"] else self.over_time(expr)

    def values(self, label_values: str, chosen: Mapping[str, str]) -> list[str]:
        """Sorted values of a variable whose query is `label_values(…, label)`."""
        found = _LABEL_VALUES.fullmatch(resolved(label_values, chosen))
        assert found, label_values
        span = {"start": self.start, "end": self.end}
        return sorted(self._asked(f"label/{found['label']}/values", **span, **{"match[]": found["match"]}))

    def _asked(self, what: str, **given: object) -> Any:
        query = urllib.parse.urlencode(given)
        with urllib.request.urlopen(f"{self.address}/api/v1/{what}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]


def resolved(text: str, chosen: Mapping[str, str]) -> str:
    """A text with variables in place; `.*` is all, as the dashboards have it.

    >>> resolved('sum (rate(a{b=~"$b"}[$__rate_interval]))', {"b": ".*"})
    'sum (rate(a{b=~".*"}[1m]))'
    """
    values = _RATE_INTERVAL | dict(chosen)
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], found[0]), text)


def first_choices(
    dashboard: Mapping[str, Any], prometheus: Prometheus, wanted: Mapping[str, str]
) -> dict[str, str]:
    """Values of a dashboard's variables as it opens: what is wanted, else all, else the first that there is."""
    chosen: dict[str, str] = {}
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        if variable["type"] != "query":
            continue
        if name in wanted or variable["includeAll"]:
            chosen[name] = wanted.get(name, ".*")
        else:
            chosen[name] = next(iter(prometheus.values(variable["query"]["query"], chosen)), "")
    return chosen
