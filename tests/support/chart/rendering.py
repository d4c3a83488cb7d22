"""Renders the chart: each ci file, and random combinations of its switches. `CHART_FOLDER` names another copy of it."""

import functools
import os
import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
TOOLS = ROOT / ".tools"
CHART = Path(os.environ.get("CHART_FOLDER", ROOT / "helm" / "tastemaker"))
RELEASE, NAMESPACE = "shop", "recommend"
NUM_COMBINATIONS = 30
SEED = 20260101
Values = dict[str, Any]
Object = dict[str, Any]

SUPPLIES: Values = {
    # What a switch needs once it is on or off: names of things that an installation brings along.
    "bundles": {"existingSecret": "brought-bundles"},
    "trust": {"existingSecret": "brought-authorities"},
    "valkey": {
        "external": {"existingSecret": "brought-valkey-urls"},
        "tls": {"existingSecret": "brought-valkey-tls"},
    },
    "mlflow": {"external": {"trackingUri": "https://mlflow.example"}, "existingSecret": "brought-mlflow"},
    "postgresql": {"tls": {"existingSecret": "brought-postgresql-tls"}},
    "ingress": {"host": "recommend.example", "tlsSecret": "brought-ingress-tls"},
    "gatewayApi": {"parentRefs": [{"name": "edge"}]},
}

EXCLUDED = [
    # A switch that is off where another stands so; the chart refuses the pair (test_refusals.py).
    (("postgresql", "enabled"), (("postgresql", "external", "enabled"), True)),
    (("cache", "enabled"), (("valkey", "enabled"), False)),
]


@dataclass(frozen=True)
class Case:
    """Values to render with: a file's path, or a tree that a seed chose."""

    name: str
    file: Path | None = None
    tree: str = ""  # YAML, for a case is a key of the cache


def ci_cases() -> list[Case]:
    """One for each file of ci/."""
    return [Case(p.stem.removesuffix("-values"), p) for p in sorted((CHART / "ci").glob("*-values.yaml"))]


def random_cases() -> list[Case]:
    """Each sets every switch of values.yaml by the toss of a coin."""
    chance = random.Random(SEED)
    paths = list(_switches(default_values()))
    cases = []
    for number in range(NUM_COMBINATIONS):
        tree = _copy(SUPPLIES)
        for path in paths:
            _put(tree, path, chance.random() < 0.5)
        for switch, other in EXCLUDED:
            if _read(tree, switch) and _read(tree, other[0]) is other[1]:
                _put(tree, switch, False)
        cases.append(Case(f"random-{number:02}", tree=yaml.safe_dump(tree)))
    return cases


def default_values() -> Values:
    """values.yaml."""
    return yaml.safe_load((CHART / "values.yaml").read_text())


def values_of(case: Case) -> Values:
    """The values that a case gives, without the defaults."""
    return (yaml.safe_load(case.file.read_text()) if case.file else yaml.safe_load(case.tree)) or {}


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs helm; its output, whether it failed or not."""
    command = [TOOLS / "helm", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)


@functools.cache
def rendered(case: Case) -> str:
    """What `helm template` writes for a case, hooks and tests included."""
    answer = template(values_of(case))
    assert answer.returncode == 0, f"{case.name}: {answer.stderr}"
    return answer.stdout


def template(values: Values, kubernetes: str = "1.35.0") -> subprocess.CompletedProcess[str]:
    """Renders with these values, read from stdin."""
    place = ("--namespace", NAMESPACE, "--kube-version", kubernetes)
    return helm("template", RELEASE, str(CHART), *place, "--values", "-", stdin=yaml.safe_dump(values))


@functools.cache
def objects_of(case: Case) -> tuple[Object, ...]:
    """The objects that a case renders."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return tuple(o for o in yaml.load_all(rendered(case), loader) if o)


def _switches(tree: Values, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in tree.items():
        path = (*above, key)
        if isinstance(value, bool):
            yield path
        elif isinstance(value, dict) and path != ("config",):
            yield from _switches(value, path)


def _put(tree: Values, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _read(tree: Values, path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree.get(key, {})
    return tree


def _copy(tree: Values) -> Values:
    return yaml.safe_load(yaml.safe_dump(tree))
