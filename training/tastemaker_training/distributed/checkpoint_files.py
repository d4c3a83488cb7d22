"""A checkpoint as files: its place in a fit, its manifest, and whether the files are those that were written.

Not for what is in them (`checkpoints`): nothing of torch is here.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tastemaker.errors import TrainingError

MANIFEST = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class Position:
    """How far a fit is: the next step is `step` of `epoch`, both from 0. Nothing else is needed to find its data.

    `curve` holds what each epoch reported, `best_epoch` counts from 1 and is 0 where no epoch was measured.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    best_epoch: int = 0
    best_metric: float | None = None
    curve: tuple[Mapping[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Of the checkpoint's folder; sorts by age."""
        return f"{self.epoch:06d}-{self.step:09d}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint.

    Raises:
        TrainingError: There is none, or a newer release wrote it.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"checkpoint {folder} has no readable {MANIFEST}", mend="resume from another"
        ) from error
    if schema > SCHEMA:
        raise TrainingError(
            f"schema of checkpoint {folder}",
            value=schema,
            limit=f"at most {SCHEMA}",
            mend="upgrade tastemaker",
        )
    return manifest


def position_of(manifest: Mapping[str, Any]) -> Position:
    """Where the fit of a manifest was."""
    return Position(**manifest["position"] | {"curve": tuple(manifest["position"]["curve"])})


def check_files(folder: Path, manifest: Mapping[str, Any], part: int = 0, parts: int = 1) -> None:
    """Lets pass a checkpoint whose files are those of its manifest; of `parts` shares of them, one.

    Raises:
        TrainingError: A file is missing, truncated, changed or foreign.
    """
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    expected = manifest["files"]
    mend = "resume from another checkpoint, or train without --resume"
    for name in sorted(present - expected.keys()):
        raise TrainingError(f"{folder / name} is not of this checkpoint", mend=mend)
    for name in sorted(expected)[part::parts]:
        if name not in present:
            raise TrainingError(f"{folder / name} is missing", mend=mend)
        size = (folder / name).stat().st_size
        if size != expected[name]["size"]:
            raise TrainingError(
                f"{folder / name}", value=f"{size} bytes", limit=f"{expected[name]['size']} bytes", mend=mend
            )
        if hash_of(folder / name) != expected[name]:
            raise TrainingError(f"{folder / name} was changed after it was written", mend=mend)


def hash_of(path: Path) -> dict[str, Any]:
    """A file's size and SHA-256, as a manifest has them."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": path.stat().st_size}


def names(folder: Path) -> list[str]:
    """The whole checkpoints of a fit's folder, oldest first."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def best_of(folder: Path) -> str | None:
    """The newest checkpoint at the end of the best epoch."""
    found = names(folder)
    if not found:
        return None
    position = position_of(read_manifest(folder / found[-1]))
    wanted = Position(epoch=position.best_epoch).name
    return wanted if position.best_epoch and wanted in found else None
