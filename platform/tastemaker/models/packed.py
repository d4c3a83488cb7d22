"""How bundles hold a model of whatever kind, and recipes name one: the kind stands in its config. Not for which kinds there are."""

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from tastemaker.errors import CompatibilityError, UsageError
from tastemaker.strict import Strict


class Savable(Protocol):
    """What a config and tensors make again."""

    kind: ClassVar[str]

    def config_dict(self) -> dict[str, Any]:
        """What making it again needs beside the tensors; JSON."""
        ...

    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned."""
        ...


class ChosenModel(Strict):
    """A model that is to be fitted, as recipes and plans name it. Subclasses say whose kinds they are."""

    kind: str = Field(description="which: see docs/models.md")
    config: Mapping[str, Any] = Field(
        default_factory=dict, description="what of its config differs from the defaults"
    )

    @classmethod
    @abstractmethod
    def config_class(cls, kind: str) -> type[Strict]:
        """Of a kind.

        Raises:
            UsageError: There is none of that name.
        """

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        try:
            self.config_class(self.kind).parse(self.config, f"model {self.kind}")
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class PackedModel:
    """A model as bundles hold it. Subclasses make it again by their own table of kinds."""

    def __init__(self, model: Savable) -> None:
        self._model = model

    def config_dict(self) -> dict[str, Any]:
        """The kind, and what that needs; JSON."""
        return {"kind": self._model.kind, "model": self._model.config_dict()}

    def tensors(self) -> Mapping[str, np.ndarray]:
        """What was learned."""
        return self._model.tensors()


def class_of(kind: str, paths: Mapping[str, str], what: str) -> Any:
    """The class whose `module:name` a table of kinds has for one of them; `what` is what they are kinds of.

    Raises:
        UsageError: There is none of that name.
    """
    if kind not in paths:
        limit = f"one of: {', '.join(paths)}"
        raise UsageError(f"kind of {what}", value=kind, limit=limit, mend="choose one")
    module, name = paths[kind].split(":")
    return getattr(import_module(module), name)


def packed_kind(config: Mapping[str, Any], paths: Mapping[str, str], what: str) -> str:
    """The kind in a packed model's config.

    Raises:
        CompatibilityError: A table of kinds has none of that name.
    """
    kind = str(config.get("kind"))
    if kind not in paths:
        limit, mend = f"one of: {', '.join(paths)}", "serve it with the release that published it"
        raise CompatibilityError(f"kind of a bundle's {what}", value=kind, limit=limit, mend=mend)
    return kind
