"""What every config is made of: frozen, unknown keys refused, nothing coerced silently. And what is kept for other releases to read."""

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Self, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import wrap_serializer_function_ser_schema

from tastemaker.errors import ConfigError

_SHOULD: Final = re.compile(r"^Input should be |^\w+ should (have|match) ")
"""How Pydantic's messages begin where ours say "must be"."""


class Strict(BaseModel):
    """Base of all configs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)
    LATER: ClassVar[frozenset[str]] = frozenset()
    """Keys that the release before does not know. While they hold their defaults, which is how it behaves, they are not written, so that it reads
    what this one leaves after a rollback; with another value it refuses what it could not follow."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        if not cls.LATER:
            return schema
        return {**schema, "serialization": wrap_serializer_function_ser_schema(_without_later)}

    @classmethod
    def parse(cls, data: Mapping[str, Any], origin: str) -> Self:
        """The config that `data` (as read from YAML or JSON) spells out.

        Raises:
            ConfigError: A key is unknown or a value is wrong; names `origin`, key, value, limit and mend.
        """
        try:
            return cls.model_validate_json(json.dumps(data, default=str))
        except ValidationError as error:
            raise _config_error(cls, error, origin) from error


class Kept(Strict):
    """Base of what one process keeps and another reads, whose release may be the one before: keys that it does not know are ignored.

    So a release may add what the one before can do without. Where that cannot be, the release before has to refuse it: by a schema number.
    """

    model_config = ConfigDict(extra="ignore")


def _without_later(model: Strict, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
    found: dict[str, Any] = write(model)
    for name in model.LATER & found.keys():
        if getattr(model, name) == type(model).model_fields[name].get_default(call_default_factory=True):
            del found[name]
    return found


def _config_error(cls: type[BaseModel], error: ValidationError, origin: str) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "(top level)"
    if first["type"] == "extra_forbidden":
        known = ", ".join(sorted(_fields_at(cls, first["loc"][:-1])))
        return ConfigError(
            f"{origin}: unknown key {key}",
            value=first["input"],
            limit=f"one of: {known}",
            mend="remove or rename it",
        )
    if first["type"] == "missing":
        return ConfigError(f"{origin}: key {key} is missing", mend="add it")
    if first["type"] == "value_error" and _is_of_model(cls, first):
        # A model's own validator spoke, whose message has those of its values that count.
        at = f"{origin}: {key}" if first["loc"] else origin
        return ConfigError(
            f"{at}: values do not belong together: {first['ctx']['error']}", mend="correct the values"
        )
    return ConfigError(
        f"{origin}: {key}",
        value=first["input"],
        limit=_SHOULD.sub(lambda found: "of " if found[1] else "", first["msg"]),
        mend="correct the value",
    )


def _fields_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    return list(_model_at(cls, path).model_fields)


def _is_of_model(cls: type[BaseModel], first: Mapping[str, Any]) -> bool:
    """Whether a complaint is about the values of a model together, not about one value, which may be a mapping too."""
    if not isinstance(first["input"], dict) or not first["loc"]:
        return isinstance(first["input"], dict)
    *path, name = first["loc"]
    field = _model_at(cls, tuple(path)).model_fields.get(name)
    kinds = () if field is None else (field.annotation, *get_args(field.annotation))
    return not any(get_origin(kind) in (dict, Mapping) for kind in kinds)


def _model_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> Any:
    """The model at a path of keys, or the nearest around it that annotations tell."""
    model: Any = cls
    union: list[Any] = []
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:  # the tag of one of a union's models
            model = next((kind for kind in union if _has_default(kind, part)), model)
        else:
            kinds = (field.annotation, *get_args(field.annotation))  # of `X | None` it is X's
            union = [kind for kind in kinds if hasattr(kind, "model_fields")]
            model = next(iter(union), model)
    return model


def _has_default(model: type[BaseModel], value: int | str) -> bool:
    return any(field.default == value for field in model.model_fields.values())
