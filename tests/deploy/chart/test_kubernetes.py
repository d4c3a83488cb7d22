"""Kubernetes would take what is rendered: its own schemas for two versions, the definitions of custom resources, checkov, promtool."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from chart import crds
from chart.objects import Object, embedded, is_custom, name_of, pods
from chart.rendering import CHART, TOOLS, Case, ci_cases, objects_of, random_cases

OLDEST, NEWEST = "1.29", "1.35"
EXCEPTIONS = Path(__file__).with_name("checkov.yaml")
needs_definitions = pytest.mark.skipif(not crds.FOLDER.exists(), reason=f"no {crds.FOLDER}")


@pytest.mark.parametrize(
    ("version", "cases"),
    [(OLDEST, ci_cases()), (NEWEST, [*ci_cases(), *random_cases()])],
    ids=[OLDEST, NEWEST],
)
def test_kubernetes_takes_it(version: str, cases: list[Case], tmp_path: Path) -> None:
    """Pods of custom resources are looked at as pods. A kind that the version does not know is a failure."""
    different: dict[str, str] = {}
    for case in cases:
        objects = objects_of(case)
        known = [o for o in objects if not is_custom(o)]
        inner = [pod.as_pod() for pod in pods(objects) if is_custom(pod.owner)]
        for item in (*known, *inner):
            different.setdefault(json.dumps(item), case.name)
    for number, (text, name) in enumerate(different.items()):
        (tmp_path / f"{name}-{number}.json").write_text(text)
    program = TOOLS / "kubernetes-validate-env" / "bin" / "kubernetes-validate"
    told = subprocess.run(
        [program, "--strict", "--quiet", "-k", version, *sorted(tmp_path.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (told.stdout + told.stderr).replace(f"{tmp_path}/", "") == ""
    assert told.returncode == 0


@needs_definitions
def test_custom_resources_fit_their_definitions(objects: tuple[Object, ...]) -> None:
    custom = [o for o in (*objects, *embedded(objects)) if is_custom(o)]
    assert [f"{name_of(o)}: {problem}" for o in custom for problem in crds.problems(o)] == []
    assert any(o["kind"] == "RayService" for o in custom)


def test_checkov(tmp_path: Path) -> None:
    """Each finding is an exception that checkov.yaml gives a reason for, and each exception is still needed."""
    for case in ci_cases():
        inner = [pod.as_pod() for pod in pods(objects_of(case)) if is_custom(pod.owner)]
        for number, pod in enumerate(inner):
            pod["metadata"] |= {"name": f"inner-{number}", "namespace": "recommend"}
        (tmp_path / f"{case.name}.yaml").write_text(yaml.safe_dump_all([*objects_of(case), *inner]))
    told = subprocess.run(
        [TOOLS / "checkov-env" / "bin" / "checkov", "-d", tmp_path, "--framework", "kubernetes", "-o", "json", "--quiet"],
        capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "BC_SKIP_MAPPING": "TRUE"},
    )  # fmt: skip
    answer = json.loads(told.stdout)
    assert answer["summary"]["passed"] > 100
    exceptions = yaml.safe_load(EXCEPTIONS.read_text())
    failed = {(c["check_id"], c["resource"].split(".")[0]): c for c in answer["results"]["failed_checks"]}
    unknown = {
        f"{check} {kind}: {c['check_name']} ({c['resource']} in {Path(c['file_path']).name})"
        for (check, kind), c in failed.items()
        if kind not in exceptions.get(check, {}).get("kinds", [])
    }
    assert unknown == set()
    allowed = {(check, kind) for check, told in exceptions.items() for kind in told["kinds"]}
    assert allowed - failed.keys() == set()
    assert all(len(told["reason"]) > 20 for told in exceptions.values())


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    assert shutil.which("promtool"), "install the package `prometheus`"
    groups = [
        (f"{case.name}-{item['metadata']['name']}", item["spec"])
        for case in ci_cases()
        for item in objects_of(case)
        if item["kind"] == "PrometheusRule"
    ]
    assert groups or not list((CHART / "rules").glob("*.yaml")), "no ci file turns the rules on"
    for name, spec in groups:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"groups": spec["groups"]}))
    if groups:
        told = subprocess.run(
            ["promtool", "check", "rules", *sorted(tmp_path.iterdir())],
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stdout + told.stderr
