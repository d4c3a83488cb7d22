"""Folders under the home's `checkpoints`, named by what they were made from: made once, checked when used again.

A folder counts as made when its `complete.json` is there, which is written last and holds every file's hash. That file is
as old as the folder's last use: what nobody used for long is removed (`tastemaker gc`).
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import safetensors.numpy

from tastemaker.bundle.tensor_file import map_tensors
from tastemaker.errors import TrainingError
from tastemaker.home import Home, write_bytes, write_json

CHECKPOINTS = "checkpoints"
"""Folder of a fit under way, removed once what it makes is there."""
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
    """The made folders of one home.

    Args:
        home: Whose.
        resume: Whether fits that did not end go on from their checkpoints.
    """

    def __init__(self, home: Home, *, resume: bool = False) -> None:
        self._root, self._resume = home / "checkpoints", resume

    def has(self, name: str) -> bool:
        """Whether the folder `name` was made, all of it."""
        return (self._root / name / _MARKER).exists()

    def finished(self, name: str) -> Path:
        """The folder `name`, which must have been made.

        Raises:
            TrainingError: It was not, or a file of it was changed since.
        """
        if not self.has(name):
            raise TrainingError(f"training {name} is not in this home", mend="begin without a warm start")
        return _used(self._root / name)

    def get(self, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder `name`, made now from `key` by `make(folder)` unless it is there, whole.

        Raises:
            TrainingError: A file of the folder was changed since.
        """
        folder = self._root / name
        if self.has(name):
            return _used(folder)
        if not self._resume:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
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


def map_model(folder: Path, name: str, cls: type[M]) -> M:
    """The model that `save_model` wrote, its tables left in the file where the model's class can."""
    config = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return cls.from_state(config, map_tensors(folder / f"{name}.safetensors"))


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
    return {str(path.relative_to(folder)): _hash(path) for path in files}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _used(folder: Path) -> Path:
    """The folder, checked, and used now."""
    with contextlib.suppress(OSError):  # where a home can only be read nothing is removed either
        os.utime(folder / _MARKER)
    _check(folder)
    return folder


def _check(folder: Path) -> None:
    expected = json.loads((folder / _MARKER).read_text(encoding="utf-8"))["files"]
    found = _hashes(folder)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise TrainingError(
                f"{folder / name} was changed after it was made", mend="delete its folder to make it again"
            )
