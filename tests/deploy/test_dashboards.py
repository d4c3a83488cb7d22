"""Dashboards: what the generator gives lies in the chart, holds together, and names only metrics and labels that exist."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from tastemaker import telemetry

ROOT = Path(__file__).parents[2]
RULES = ROOT / "helm/tastemaker/rules"
FILES = sorted((ROOT / "helm/tastemaker/dashboards").glob("*.json"))
DASHBOARDS: dict[str, dict[str, Any]] = {path.stem: json.loads(path.read_text()) for path in FILES}
SCRAPED = {"namespace", "le"}
"""Labels that scraping adds, and that of a histogram's buckets."""
ALERTS = {"ALERTS": {"alertname", "alertstate", "severity", "catalogue", "namespace", "runbook"}}
"""Prometheus' own series of alerts, with the labels that ours have."""
NAME = re.compile(r"(?<![\w:])(tastemaker[\w:]+|ALERTS)(\{[^}]*\})?")
SCHEMAS = {
    path.stem: json.loads(path.read_text()) for path in sorted(Path(__file__).parent.glob("grafana/*.json"))
}
"""Grafana's own types by its version, see helm/dashboards/shots/schema.mjs."""
OF_PROMETHEUS = {"expr", "step", "titleFormat"}
"""Keys of annotations that its data source reads and Grafana's types leave out."""
BY = re.compile(r"\b(?:by|on|group_left) \(([^)]*)\)")
IN_BRACES = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
each = pytest.mark.parametrize("name", DASHBOARDS)


def declared() -> dict[str, set[str]]:
    """Labels of every series that telemetry declares, by its name in Prometheus."""
    found: dict[str, set[str]] = {}
    for metric in vars(telemetry).values():
        if isinstance(metric, MetricWrapperBase):
            endings: tuple[str, ...] = ("_total",) if isinstance(metric, Counter) else ("",)
            if isinstance(metric, Histogram):
                endings = ("_bucket", "_sum", "_count")
            found |= {metric._name + ending: {*metric._labelnames} | SCRAPED for ending in endings}
    return found


def recorded() -> dict[str, set[str]]:
    """The same of recording rules."""
    rules = yaml.safe_load((RULES / "recording.yaml").read_text())["groups"]
    names = {rule["record"] for group in rules for rule in group["rules"]}
    return {name: {"namespace", "catalogue"} for name in names}


def wrong_names(expr: str) -> list[str]:
    """What an expression names that nothing declares."""
    known = declared() | recorded() | ALERTS
    wrong, labels = [], set(SCRAPED)
    for name, braces in NAME.findall(expr):
        if name not in known:
            wrong.append(name)
            continue
        labels |= known[name]
        wrong += [f"{name}{{{label}}}" for label in IN_BRACES.findall(braces) if label not in known[name]]
    named = {label.strip() for group in BY.findall(expr) for label in group.split(",") if label.strip()}
    return wrong + sorted(named - labels)


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All but headings."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    """Of panels, annotations and variables."""
    for panel in panels(dashboard):
        yield from (target["expr"] for target in panel["targets"])
    yield from (one["expr"] for one in dashboard["annotations"]["list"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.*), \w+\)", variable["query"]["query"])
            assert match, variable["name"]
            yield match[1]


def test_the_generator_gives_what_lies_in_the_chart() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "helm.dashboards", "--check"], cwd=ROOT, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()
    assert set(DASHBOARDS) == {"experiments", "serving", "quality", "stream", "training", "bundles"}


@each
def test_names_only_what_is_declared(name: str) -> None:
    assert [wrong for expr in expressions(DASHBOARDS[name]) for wrong in wrong_names(expr)] == []


def test_a_metric_or_a_label_that_is_not_there_is_found() -> None:
    assert wrong_names("rate(tastemaker_gateway_request_total[5m])") == ["tastemaker_gateway_request_total"]
    assert wrong_names('tastemaker_stage_replicas{alias="a"}') == ["tastemaker_stage_replicas{alias}"]
    assert wrong_names("sum by (rung) (tastemaker_stage_replicas)") == ["rung"]


def test_every_rule_names_only_what_is_declared() -> None:
    for path in RULES.glob("*.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            assert [wrong for rule in group["rules"] for wrong in wrong_names(rule["expr"])] == []


@each
def test_panels_hold_together(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"tastemaker-{name}"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs)
        steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert steps[0] is None
        assert steps[1:] == sorted(steps[1:])


def overridden(panel: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What single series have in place of the panel's `custom` options."""
    for override in panel["fieldConfig"]["overrides"]:
        given = {one["id"]: one["value"] for one in override["properties"]}
        yield {
            key.removeprefix("custom."): value for key, value in given.items() if key.startswith("custom.")
        }


def misfits(dashboard: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    """Where a dashboard is not what Grafana's types say."""
    annotations = [
        {key: value for key, value in one.items() if key not in OF_PROMETHEUS}
        for one in dashboard["annotations"]["list"]
    ]
    found = [("dashboard", dashboard | {"annotations": {"list": annotations}})]
    for panel in panels(dashboard):
        kind = panel["type"].replace("-", "")
        found.append((f"{kind}.Options", panel["options"]))
        if custom := panel["fieldConfig"]["defaults"].get("custom"):
            found += [(f"{kind}.FieldConfig", custom | looks) for looks in ({}, *overridden(panel))]
    return [
        f"{name} {error.json_path}: {error.message}"
        for name, value in found
        if name in schemas
        for error in jsonschema.Draft7Validator(schemas[name]).iter_errors(value)
    ]


@pytest.mark.parametrize("version", SCHEMAS)
@each
def test_fits_grafanas_own_types(name: str, version: str) -> None:
    assert misfits(DASHBOARDS[name], SCHEMAS[version]) == []


@pytest.mark.parametrize("version", SCHEMAS)
def test_what_grafanas_types_do_not_know_is_found(version: str) -> None:
    dashboard = json.loads(json.dumps(DASHBOARDS["serving"]))
    lines = next(panel for panel in panels(dashboard) if panel["type"] == "timeseries")
    lines["options"]["legend"]["placement"] = "top"
    lines["fieldConfig"]["defaults"]["custom"]["lineWidth"] = "thin"
    lines["gridPos"]["width"] = 3
    found = misfits(dashboard, SCHEMAS[version])
    assert {error.split()[0] for error in found} == {
        "dashboard",
        "timeseries.Options",
        "timeseries.FieldConfig",
    }


def test_runbooks_name_panels_that_are_there() -> None:
    titles = {panel["title"] for dashboard in DASHBOARDS.values() for panel in panels(dashboard)}
    for path in sorted((ROOT / "docs/runbooks").glob("*.md")):
        named = set(re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", path.read_text())) - {"Targets"}
        assert named <= titles, path.name


@each
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in combinations(places, 2):
        apart_x = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart_x or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


@each
def test_variables_that_are_used_are_there_and_the_others_are_linked(name: str) -> None:
    dashboard = DASHBOARDS[name]
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = {word for expr in expressions(dashboard) for word in re.findall(r"\$(\w+)", expr)}
    assert used - {"__rate_interval"} <= known
    assert {"datasource", "namespace", "catalogue"} <= known
    [link] = dashboard["links"]
    assert link["includeVars"]
    assert all(set(link["tags"]) <= set(one["tags"]) for one in DASHBOARDS.values())


@pytest.mark.chart
def test_prometheus_parses_every_expression(tmp_path: Path) -> None:
    found = sorted({expr for dashboard in DASHBOARDS.values() for expr in expressions(dashboard)})
    rules = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "5m")}
        for number, expr in enumerate(found)
    ]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert shutil.which("promtool"), "install the package `prometheus`"
    done = subprocess.run(["promtool", "check", "rules", file], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(found)} rules found" in done.stdout
