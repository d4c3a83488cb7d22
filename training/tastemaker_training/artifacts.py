"""Folders under the home's `checkpoints`, named by what they were made from: made once, checked when used again.

A folder counts as made when its `complete.json` is there, which is written last and holds every file's hash.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import safetensors.numpy

from tastemaker.errors import TrainingError
from tastemaker.home import Home, write_bytes, write_json

_MARKER = "complete.json"


class Stateful(Protocol):
    """A model that a folder can hold."""

    def config_dict(self) -> dict[str, Any]:
        """What the model is, as JSON."""
        ...

    def tensors(self) -> Mapping[str, np.ndarray]:
        """What it learned."""
        ...

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that both describe."""
        ...


M = TypeVar("M", bound=Stateful)


class Artifacts:
    """The made folders of one home."""

    def __init__(self, home: Home) -> None:
        self._root = home / "checkpoints"

    def has(self, name: str) -> bool:
        """Whether the folder `name` was made, all of it."""
        return (self._root / name / _MARKER).exists()

    def get(self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder `name`, made now from `key` by `make(folder)` unless it is there, whole.

        Raises:
            TrainingError: A file of the folder was changed since.
        """
        folder = self._root / name
        if self.has(name):
            _check(folder)
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        write_json(folder / _MARKER, {"key": key, "files": _hashes(folder)})
        return folder


def artifact_name(kind: str, key: Mapping[str, Any]) -> str:
    """The name of the folder of `kind` that is made from `key`."""
    return f"{kind}-{digest(key)[:16]}"


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def save_model(folder: Path, name: str, model: Stateful) -> None:
    """Writes `{name}.json` and `{name}.safetensors`."""
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", model.config_dict())
    save_tensors(folder / f"{name}.safetensors", model.tensors())


def load_model(folder: Path, name: str, cls: type[M]) -> M:
    """The model that `save_model` wrote."""
    config = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return cls.from_state(config, load_tensors(folder / f"{name}.safetensors"))


def save_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as safetensors."""
    write_bytes(
        path, safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    )


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file."""
    return dict(safetensors.numpy.load_file(path))


def plain(value: Any) -> Any:
    """A config or dataclass as JSON values."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _MARKER)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _check(folder: Path) -> None:
    expected = json.loads((folder / _MARKER).read_text(encoding="utf-8"))["files"]
    found = _hashes(folder)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise TrainingError(
                f"{folder / name} was changed after it was made", mend="delete its folder to make it again"
            )
