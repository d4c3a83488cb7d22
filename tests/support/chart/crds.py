"""Holds custom resources against their definitions the way `kubectl --validate=strict` does: unknown fields are errors."""

import functools
import os
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from chart.rendering import ROOT

FOLDER = Path(os.environ.get("CRD_FOLDER", ROOT.parent / "shared" / "crds"))
Schema = dict[str, Any]


@functools.cache
def definitions() -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    """Validators by apiVersion and kind, of all definitions in the folder, and of HTTPRoute, whose one lies beside this file."""
    found = {}
    for path in (*sorted(FOLDER.glob("*.yaml")), Path(__file__).with_name("httproute.yaml")):
        spec = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"], is_root=True)
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = jsonschema.Draft202012Validator(schema)
    return found


def strict(schema: Schema, is_root: bool = False) -> Schema:
    """A structural schema as a JSON schema: unknown fields refused, int-or-string and nullable honoured."""
    out = {k: v for k, v in schema.items() if k in _KEPT}
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("type", None)
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        out["properties"] = {k: strict(v) for k, v in schema["properties"].items()}
        if is_root:
            out["properties"]["metadata"] = {"type": "object"}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out["additionalProperties"] = False
    elif isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        out["items"] = strict(schema["items"])
    if schema.get("nullable") and "type" in out:
        out["type"] = [out["type"], "null"]
    return out


def problems(item: dict[str, Any]) -> list[str]:
    """What a custom resource has wrong; a kind without a definition is a problem too."""
    validator = definitions().get((item["apiVersion"], item["kind"]))
    if validator is None:
        return [f"no definition of {item['apiVersion']} {item['kind']}"]
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(item)]


_KEPT = {
    "type", "required", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
}  # fmt: skip
