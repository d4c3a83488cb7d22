"""Lint, the inventory of what each ci file renders, and that a render does not change by itself.

`UPDATE_GOLDEN=1 make chart-test` writes the inventories anew: read their difference before it is kept.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from chart.objects import name_of, pods
from chart.rendering import (
    CHART,
    NAMESPACE,
    NUM_COMBINATIONS,
    RELEASE,
    ROOT,
    Case,
    ci_cases,
    helm,
    objects_of,
    random_cases,
    template,
    values_of,
)

GOLDEN = ROOT / "tests" / "golden" / "chart"
FEATURES = {"minimal", "external", "gpu", "ha", "air-gapped"}


@pytest.mark.parametrize("case", ci_cases(), ids=lambda case: case.name)
def test_lint(case: Case) -> None:
    answer = helm("lint", "--strict", str(CHART), "--values", str(case.file))
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_each_feature_has_a_ci_file() -> None:
    assert {case.name for case in ci_cases()} == FEATURES


@pytest.mark.parametrize("case", ci_cases(), ids=lambda case: case.name)
def test_an_upgrade_without_a_change_restarts_nothing(case: Case) -> None:
    again = [o for o in yaml.safe_load_all(template(values_of(case)).stdout) if o]
    assert [o for o in again if o["kind"] != "Secret"] == [
        o for o in objects_of(case) if o["kind"] != "Secret"
    ]


def test_a_newer_chart_alone_restarts_no_server_of_data(tmp_path: Path) -> None:
    """Valkey and PostgreSQL restart when what they run changes, not because labels name another version."""
    (ha,) = (case for case in ci_cases() if case.name == "ha")
    newer = tmp_path / "tastemaker"
    shutil.copytree(CHART, newer)
    chart = yaml.safe_load((newer / "Chart.yaml").read_text()) | {"version": "99.0.0", "appVersion": "99.1.0"}
    (newer / "Chart.yaml").write_text(yaml.safe_dump(chart))
    told = helm("template", RELEASE, str(newer), "--namespace", NAMESPACE, "--values", str(ha.file))
    assert told.returncode == 0, told.stderr
    rendered = [o for o in yaml.safe_load_all(told.stdout) if o]
    assert {o["metadata"]["labels"]["helm.sh/chart"] for o in rendered} == {"tastemaker-99.0.0"}
    assert {o["metadata"]["labels"]["app.kubernetes.io/version"] for o in rendered} == {"99.1.0"}
    before, after = (
        {
            name_of(o): o["spec"]["template"]
            for o in objects
            if o["metadata"]["labels"]["app.kubernetes.io/component"] in ("valkey", "cache", "postgresql")
            and o["kind"] in ("StatefulSet", "Deployment")
        }
        for objects in (objects_of(ha), rendered)
    )
    assert len(before) == 3
    assert after == before


def test_a_changed_secret_rolls_what_reads_it_at_start_and_no_server_of_data() -> None:
    """The chart cannot see what is in a Secret, so it is told; a RayService has no `kubectl rollout restart`."""
    (case,) = (case for case in ci_cases() if case.name == "minimal")

    def rolled(revision: str | None) -> list[str]:
        tree = yaml.safe_dump(values_of(case) | {"secretsRevision": revision})
        pairs = zip(objects_of(case), objects_of(Case("rolled", tree=tree)), strict=True)
        return [name_of(a) for a, b in pairs if a != b and a["kind"] != "Secret"]  # random ones

    assert rolled(None) == []  # as of a release that did not have it, by --reuse-values
    assert rolled("2") == [
        "Deployment shop-tastemaker-consumer",
        "Deployment shop-tastemaker-admin",
        "RayService shop-tastemaker-serving",
    ]


def test_random_combinations_differ() -> None:
    assert len({case.tree for case in random_cases()}) == NUM_COMBINATIONS


@pytest.mark.parametrize("case", ci_cases(), ids=lambda case: case.name)
def test_inventory(case: Case) -> None:
    path = GOLDEN / f"{case.name}.txt"
    found = inventory(case)
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found)
    assert found == path.read_text()


def test_no_password_stands_in_an_object_that_is_no_secret() -> None:
    for case in ci_cases():
        objects = objects_of(case)
        secrets = [o for o in objects if o["kind"] == "Secret"]
        words = [v for s in secrets for k, v in s["stringData"].items() if k not in ("username", "keys.yaml")]
        others = yaml.safe_dump_all([o for o in objects if o["kind"] != "Secret"])
        assert [word for word in words if word in others] == []


@pytest.mark.parametrize("url", ["", "https://wiki.example/runbooks", "https://wiki.example/runbooks/"])
def test_alerts_and_their_table_lead_to_the_runbooks(url: str) -> None:
    monitoring = {"prometheusRule": {"enabled": True}, "dashboards": {"enabled": True}, "runbookUrl": url}
    objects = [o for o in yaml.safe_load_all(template({"monitoring": monitoring}).stdout) if o]
    groups = [group for o in objects if o["kind"] == "PrometheusRule" for group in o["spec"]["groups"]]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    base = url.rstrip("/")
    for alert in alerts:
        page = f"{alert['labels']['runbook']}.md"
        told = {key: value for key, value in alert["annotations"].items() if key != "summary"}
        assert told == ({"runbook_url": f"{base}/{page}"} if url else {"runbook": f"docs/runbooks/{page}"})
    assert len(alerts) > 20
    dashboards = {name: text for o in objects if o["kind"] == "ConfigMap" for name, text in o["data"].items()}
    panels = json.loads(dashboards["serving.json"])["panels"]
    [table] = [panel for panel in panels if panel["title"] == "Alerts"]
    links = [
        link
        for override in table["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "links"
        for link in one["value"]
    ]
    assert [link["url"] for link in links] == ([f"{base}/${{__value.raw}}.md"] if url else [])


def inventory(case: Case) -> str:
    """A line for each object, and below it one for each container: its image and what it runs."""
    lines = []
    by_owner = {}
    for pod in pods(objects_of(case)):
        by_owner.setdefault(name_of(pod.owner), []).append(pod)
    for name in sorted({*map(name_of, objects_of(case)), *by_owner}):
        lines.append(name)
        for pod in by_owner.get(name, []):
            for container in pod.containers():
                run = [*(container.get("command") or []), *(container.get("args") or [])]
                ports = [str(port["containerPort"]) for port in container.get("ports") or []]
                told = [pod.part, container["name"], container["image"], " ".join(run), ",".join(ports)]
                lines.append("  " + " | ".join(text for text in told if text))
    return "\n".join(lines) + "\n"


def test_goldens_have_a_ci_file() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == {case.name for case in ci_cases()}
