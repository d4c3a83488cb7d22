"""Makes the chart's README.md and values.schema.json from the texts in values.yaml and from Tastemaker's own settings.

`python helm/generate.py` writes them, `python helm/generate.py --check` says whether they are up to date.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tastemaker.config import Settings

CHART = Path(__file__).parent / "tastemaker"
_LINE = re.compile(r"(?P<indent> *)(?:# -- (?P<text>.*)|(?P<key>[A-Za-z][A-Za-z0-9]*):(?: (?P<value>.*))?)$")
_TEXT = re.compile(r"(?:\[(?P<kind>[a-z]+)\] |\{(?P<choices>[^}]+)\} )?(?P<text>.+)")
_QUANTITY = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9.]+(m|[kMGTPE]i?)?$"}]}
_STRING = {"type": "string"}


def _strings(pattern: str | None = None) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "pattern": pattern} if pattern else _STRING}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


_RESOURCES = {
    "type": "object",
    "propertyNames": {"pattern": "^(cpu|memory|ephemeral-storage|hugepages-.+|.+/.+)$"},
    "additionalProperties": _QUANTITY,
}
_SET_BY_THE_CHART = {
    "GatewaySettings": ("host", "admin_host"),
    "ExporterSettings": ("host",),
    "RaySettings": ("address",),
    "RegistrySettings": ("tracking_uri",),
    "StorageSettings": ("url",),
    "StateSettings": ("url", "cache_url", "password"),
}
"""Settings of Tastemaker that follow from other values, or that a ConfigMap must not hold."""

KINDS: dict[str, dict[str, Any]] = {
    "int": {"type": "integer", "minimum": 0},
    "quantity": _QUANTITY,
    "url": {"type": "string", "pattern": r"^(https?://[^\s\"]+)?$"},
    "schedule": {"type": "string", "pattern": r"^(\S+\s+){4}\S+$"},
    "texts": {"type": "object", "additionalProperties": _STRING},
    "names": _strings(),
    "args": _strings(r"^[A-Za-z0-9_./=@:-]+$"),
    "ports": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 65535}},
    "modes": {
        "type": "array",
        "minItems": 1,
        "items": {"enum": ["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]},
    },
    "list": {"type": "array"},
    "image": _object(
        repository={"type": "string", "minLength": 1},
        tag=_STRING,
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
    ),
    "resources": _object(
        requests=_RESOURCES,
        limits=_RESOURCES,
    )
    | {"required": ["requests", "limits"]},
}
"""Words in brackets before a text, and what a value of theirs must be."""


@dataclass(frozen=True)
class Value:
    """One key of values.yaml; `kind` is a word of KINDS, or empty where the default says the type."""

    path: tuple[str, ...]
    text: str
    kind: str
    choices: tuple[str, ...]
    default: Any


def read_values(chart: Path = CHART) -> list[Value]:
    """All keys that hold a value, in the file's order.

    Raises:
        ValueError: A key has no text.
    """
    content = (chart / "values.yaml").read_text(encoding="utf-8")
    defaults = yaml.safe_load(content)
    return list(_scan(content.splitlines(), defaults))


def _scan(lines: list[str], defaults: Any) -> Iterator[Value]:
    path: list[str] = []
    text, inside = "", None  # the indentation of a value whose own lines follow
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        indent = len(found["indent"])
        if inside is not None and indent > inside:
            continue
        inside = None
        if found["text"] is not None:
            text = found["text"]
            continue
        path = [*path[: indent // 2], found["key"]]
        default = _at(defaults, path)
        if text:
            inside = indent
            yield _value(tuple(path), text, default)
        elif not isinstance(default, dict) or not default or found["value"]:
            raise ValueError(f"values.yaml: {'.'.join(path)} has no text: write `# -- …` above it")
        text = ""


def _at(tree: Any, path: list[str]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _value(path: tuple[str, ...], text: str, default: Any) -> Value:
    found = _TEXT.fullmatch(text)
    assert found is not None
    choices = tuple(found["choices"].split("|")) if found["choices"] else ()
    return Value(path, found["text"], found["kind"] or "", choices, default)


def make_schema(values: list[Value]) -> dict[str, Any]:
    """JSON Schema of the values: unknown keys are refused at every level that is ours."""
    settings = _settings_schema()
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart tastemaker",
        "$defs": settings.pop("$defs"),
        **_object(**{"global": {"type": "object"}}),
    }
    for value in values:
        place = root
        for key in value.path[:-1]:
            place = place["properties"].setdefault(key, _object())
        place["properties"][value.path[-1]] = {"description": value.text} | _schema_of(value, settings)
    return root


def _schema_of(value: Value, settings: dict[str, Any]) -> dict[str, Any]:
    if value.kind == "settings":
        return settings
    if value.choices:
        return {"enum": list(value.choices)}
    if value.kind:
        return KINDS[value.kind]
    return {"type": {bool: "boolean", str: "string"}[type(value.default)]}


def _settings_schema() -> dict[str, Any]:
    """Tastemaker's own, but for what the chart sets itself."""
    schema: dict[str, Any] = _without_titles(Settings.model_json_schema())
    del schema["properties"]["home"]
    for name, keys in _SET_BY_THE_CHART.items():
        for key in keys:
            del schema["$defs"][name]["properties"][key]
    return schema


def _without_titles(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _without_titles(part)
            for key, part in schema.items()
            if not (key == "title" and isinstance(part, str))
        }
    return [_without_titles(part) for part in schema] if isinstance(schema, list) else schema


def make_readme(values: list[Value], chart: Path = CHART) -> str:
    """The chart's page: what it is, then a table of all values."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    lines = [
        "# Chart tastemaker", "",
        f"{about['description']}. Version {about['version']}, Kubernetes {about['kubeVersion'].removesuffix('-0')}, KubeRay >= 1.6.", "",
        "How to install it, step by step: [docs/deploy.md](../../docs/deploy.md).", "",
        "    helm install shop helm/tastemaker --namespace shop --create-namespace --values helm/tastemaker/ci/minimal-values.yaml", "",
        "[ci/](ci) has one file of values for each kind of installation. A wrong key or type is refused by `values.schema.json`;"
        " that and this page are made from `values.yaml` by `python helm/generate.py`.", "",
        "| Value | Default | Meaning |", "|---|---|---|",
    ]  # fmt: skip
    lines += [_row(value) for value in values]
    return "\n".join(lines) + "\n"


def _row(value: Value) -> str:
    text = value.text + (f" ({', '.join(value.choices)})" if value.choices else "")
    default = json.dumps(value.default, ensure_ascii=False)
    return f"| `{'.'.join(value.path)}` | `{default}` | {text} |"


def main(arguments: list[str]) -> int:
    """Writes or checks both files; 1 where one is out of date."""
    values = read_values()
    made = {
        "values.schema.json": json.dumps(make_schema(values), indent=1, ensure_ascii=False) + "\n",
        "README.md": make_readme(values),
    }
    stale = [
        name
        for name, text in made.items()
        if not (CHART / name).exists() or (CHART / name).read_text(encoding="utf-8") != text
    ]
    if "--check" in arguments:
        for name in stale:
            sys.stderr.write(f"{CHART / name} is out of date: run python helm/generate.py\n")
        return int(bool(stale))
    for name, text in made.items():
        (CHART / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
