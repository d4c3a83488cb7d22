"""What FastAPI cannot know of routes that read their requests themselves: schemas for the OpenAPI page."""

from typing import Any

from pydantic import BaseModel


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """A route whose body is a `model`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    for name, definition in schema.pop("$defs", {}).items():
        _inline(schema, name, definition)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _inline(node: Any, name: str, definition: dict[str, Any]) -> None:
    """Puts a definition in place of its references: a route's extra schema has no components of its own."""
    if isinstance(node, dict):
        if node.get("$ref") == f"#/components/schemas/{name}":
            del node["$ref"]
            node.update(definition)
        for value in node.values():
            _inline(value, name, definition)


def query_schema(*names: str) -> dict[str, Any]:
    """A route with these parameters; all but `k` are required."""
    kinds = {"k": {"type": "integer", "minimum": 1, "default": 10}}
    return {
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": name != "k",
                "schema": kinds.get(name, {"type": "string"}),
            }
            for name in names
        ]
    }
