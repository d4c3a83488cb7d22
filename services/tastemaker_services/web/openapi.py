"""What FastAPI cannot know of routes that read their requests themselves: schemas for the OpenAPI page."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel

from tastemaker_services.web.problems import CONTENT_TYPE
from tastemaker_services.web.schema import ProblemResponse

_REFERENCE: Final = "#/components/schemas/"
_FRAMEWORK: Final = ("HTTPValidationError", "ValidationError")


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A route whose body is a `model`."""
    schema = model.model_json_schema(ref_template=_REFERENCE + "{model}")
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with these problems; for an application whose OpenAPI is its `document`."""
    schema = {"$ref": _REFERENCE + ProblemResponse.__name__}
    return {status: {"content": {CONTENT_TYPE: {"schema": schema}}} for status in statuses}


def document(app: FastAPI) -> dict[str, Any]:
    """The application's OpenAPI, with the schema that `problems` names, and without the refusals that FastAPI gives every route with a parameter.

    Our routes take parameters as text and refuse them themselves.
    """
    told = app.openapi()
    for operation in (one for methods in told["paths"].values() for one in methods.values()):
        refused = operation["responses"].get("422", {}).get("content", {}).get("application/json", {})
        if refused.get("schema", {}).get("$ref") == _REFERENCE + _FRAMEWORK[0]:
            del operation["responses"]["422"]
    schemas = told.setdefault("components", {}).setdefault("schemas", {})
    schemas[ProblemResponse.__name__] = ProblemResponse.model_json_schema()
    for name in _FRAMEWORK:
        schemas.pop(name, None)
    return told


def _inlined(node: Any, definitions: Mapping[str, Any]) -> Any:
    """The node with definitions in place of references: a route's extra schema has no components of its own."""
    if isinstance(node, list):
        return [_inlined(part, definitions) for part in node]
    if not isinstance(node, dict):
        return node
    found = {key: _inlined(value, definitions) for key, value in node.items() if key != "$ref"}
    if "$ref" in node:
        return _inlined(definitions[node["$ref"].removeprefix(_REFERENCE)], definitions) | found
    return found


def query_schema(*names: str) -> dict[str, Any]:
    """A route with these parameters; all but `k` and those that end in "?" are required."""
    kinds: dict[str, dict[str, Any]] = {
        "k": {"type": "integer", "minimum": 1, "default": 10},
        "personal?": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
        "paged?": {"type": "boolean", "default": False},
        "personalise?": {"type": "boolean", "default": True},
    }
    return {
        "parameters": [
            {
                "name": name.removesuffix("?"),
                "in": "query",
                "required": name != "k" and not name.endswith("?"),
                "schema": kinds.get(name, {"type": "string"}),
            }
            for name in names
        ]
    }
