"""Which files of a folder of days count, where some were merged into others.

A file counts if it is on disk, or the manifest has it, and the manifest does not say that it was merged into another.
So the consumer needs no lock to add one. A compaction puts the merged file in its place, then writes the manifest, then
deletes what was merged; wherever it is cut off, the files that count hold every row: some twice before the manifest is
written, which readers drop by id.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from tastemaker.errors import DataError, UsageError
from tastemaker.home import write_bytes
from tastemaker.strict import Kept

SCHEMA: Final = 1


class MergedFile(Kept):
    """A file that a compaction made."""

    sha256: str = Field(description="of its bytes, as hex")
    rows: int = Field(ge=0, description="in it, no id twice")
    min_received_ms: int = Field(description="when the log took its first record")
    max_received_ms: int = Field(description="when the log took its last record")


class Manifest(Kept):
    """What compactions have made of a folder; file names are relative to it."""

    schema_version: int = Field(SCHEMA, description="of this file")
    files: dict[str, MergedFile] = Field(default_factory=dict, description="made by compactions")
    merged: tuple[str, ...] = Field((), description="may be on disk, and stand in one of `files`")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of days; that of a folder without one is empty.

    Raises:
        DataError: It is damaged, or a newer release wrote it.
    """
    path = _path(folder)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValidationError) as error:
        raise DataError(f"cannot read {path}: {error}", mend="restore it from a backup") from error
    if manifest.schema_version > SCHEMA:
        raise DataError(
            f"schema_version of {path}",
            value=manifest.schema_version,
            limit=f"at most {SCHEMA}",
            mend="upgrade tastemaker",
        )
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the folder's manifest; whoever holds the folder's lock may."""
    write_bytes(_path(folder), manifest.model_dump_json(indent=2).encode())


@contextmanager
def undisturbed(folder: Path, timeout_seconds: float = 0.0) -> Iterator[None]:
    """Holds the lock under which files of a folder of days are replaced, which must exist.

    Raises:
        UsageError: Another process holds it for longer than `timeout_seconds`.
    """
    try:
        with FileLock(folder / ".lock", timeout=timeout_seconds):
            yield
    except Timeout as error:
        raise UsageError(
            f"files of {folder} are being replaced by another process", mend="wait for it or stop it"
        ) from error


def _path(folder: Path) -> Path:
    return folder / "manifest.json"
