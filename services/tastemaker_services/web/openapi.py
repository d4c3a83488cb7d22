"""What FastAPI cannot know of routes that read their requests themselves: schemas for the OpenAPI page."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from tastemaker_services.web.schema import ProblemResponse

_REFERENCE: Final = "#/components/schemas/"


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A route whose body is a `model`."""
    schema = model.model_json_schema(ref_template=_REFERENCE + "{model}")
    schema = _inlined(schema, schema.pop("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that may answer with these problems."""
    return {status: {"model": ProblemResponse} for status in statuses}


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
