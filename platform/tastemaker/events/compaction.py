"""Merges the many small files of the archive's days into one a day, sorted, each record once.

A day that is over becomes one file; of the days that still grow, small files are merged once there are many. One
process at a time, under the folder's lock; readers and the consumer go on meanwhile, see `manifest`. A day is held in
memory while it is merged. Files that a frozen log names stay on disk until it goes.
"""

import hashlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tastemaker.errors import DataError
from tastemaker.events.archive import encode_part, new_name, parts_of, sync, without_repeats, write_part
from tastemaker.events.manifest import Manifest, MergedFile, read_manifest, undisturbed, write_manifest

FROZEN: Final = "frozen"
"""Folder beside the days: JSON files whose `parts` name the files of a frozen log."""
MOST_SMALL: Final = 64
"""Files of a day that still grows, above which they are merged."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What a compaction did: it made `made` files, whose `rows` stood in `merged` files, and took `deleted` away."""

    made: int = 0
    merged: int = 0
    rows: int = 0
    deleted: int = 0


def compact(folder: Path, id_column: str = "event_id", *, now_ms: int | None = None) -> Compacted:
    """Merges the small files of the days under `folder`, which may be absent.

    Args:
        folder: Of events or decisions.
        id_column: Names a record.
        now_ms: Tells which days are over; the clock's time unless given.

    Raises:
        UsageError: Another compaction of this folder runs.
        DataError: A file cannot be read, has changed since it was merged, or there is no room. Every row is kept, and
            it may be called again.
    """
    if not folder.is_dir():
        return Compacted()
    today = datetime.fromtimestamp((time.time() if now_ms is None else now_ms / 1000), UTC).date().isoformat()
    made = merged = rows = deleted = 0
    with undisturbed(folder):
        try:
            deleted += sweep_merged(folder)
            for names in _due(folder, today):
                rows += _merge(folder, names, id_column)
                made, merged = made + 1, merged + len(names)
                deleted += sweep_merged(folder)
        except OSError as error:
            raise DataError(
                f"cannot compact {folder}: {error}", mend="make room, or mend its rights"
            ) from error
    return Compacted(made, merged, rows, deleted)


def _due(folder: Path, today: str) -> Iterator[list[str]]:
    """Files to merge into one, day by day."""
    known = read_manifest(folder).files
    days: dict[str, list[str]] = {}
    for path in parts_of(folder):
        name = str(path.relative_to(folder))
        days.setdefault(path.parent.name.removeprefix("day="), []).append(name)
    for day, names in days.items():
        small = [name for name in names if name not in known]
        if day < today and (small or len(names) > 1):
            yield names
        elif len(small) > MOST_SMALL:
            yield small


def _merge(folder: Path, names: Sequence[str], id_column: str) -> int:
    """Gives the number of rows."""
    manifest = read_manifest(folder)
    tables = [_read(folder / name, manifest.files.get(name)) for name in names]
    table = without_repeats(pa.concat_tables(tables, promote_options="default"), id_column)
    content = encode_part(table)
    name = str(Path(names[0]).with_name(new_name()))
    write_part(folder / name, content)
    files = {known: file for known, file in manifest.files.items() if known not in names}
    files[name] = _described(table, content)
    keep_manifest(folder, Manifest(files=files, merged=(*manifest.merged, *names)))
    return len(table)


def _described(table: pa.Table, content: bytes) -> MergedFile:
    span: Any = pc.min_max(table["received_ms"]).as_py()
    return MergedFile(
        sha256=hashlib.sha256(content).hexdigest(),
        rows=len(table),
        min_received_ms=span["min"],
        max_received_ms=span["max"],
    )


def _read(path: Path, known: MergedFile | None) -> pa.Table:
    content = path.read_bytes()
    if known and hashlib.sha256(content).hexdigest() != known.sha256:
        raise DataError(f"{path} has changed since it was merged", mend="restore it from a backup")
    try:
        return pq.read_table(io.BytesIO(content))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {path}: {error}", mend="move it away") from error


def sweep_merged(folder: Path) -> int:
    """Deletes what was merged, but for what a frozen log names; gives the number of files. Under the folder's lock.

    Raises:
        DataError: A frozen log cannot be read.
    """
    manifest = read_manifest(folder)
    if not manifest.merged:
        return 0
    frozen = _frozen(folder)
    deleted = 0
    for name in manifest.merged:
        if name not in frozen and (folder / name).exists():
            (folder / name).unlink()
            deleted += 1
    left = tuple(name for name in manifest.merged if name in frozen)
    if left != manifest.merged:
        for directory in {(folder / name).parent for name in manifest.merged}:
            sync(directory)
        keep_manifest(folder, Manifest(files=manifest.files, merged=left))
    return deleted


def keep_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the folder's manifest, on disk on return."""
    write_manifest(folder, manifest)
    sync(folder)


def _frozen(folder: Path) -> set[str]:
    names: set[str] = set()
    for path in (folder / FROZEN).glob("*.json"):
        try:
            names |= set(json.loads(path.read_bytes())["parts"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} cannot be read", value=str(error), mend="delete it and train again"
            ) from error
    return names
