"""What a training learns from: the imported table, and the live events that were archived since.

The archive's days hold simulated events as well, told apart by their origin: they are never read here. A log that
goes on growing is frozen for a training, so that evaluation and publishing see what the fit saw; compaction leaves the
files of a frozen log where they are. Users who were merged are one, as of the freeze.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.item_archive import ItemArchive, encode_line, read_lines, with_put_items
from tastemaker.data.schema import (
    INTERACTIONS_SCHEMA,
    POSITIVE_KINDS,
    Column,
    Dataset,
    build_dataset,
    read_imported,
)
from tastemaker.data.validation import check_items
from tastemaker.errors import DataError
from tastemaker.events.archive import EVENT_SCHEMA, parts_of, read_parts, reread
from tastemaker.events.compaction import FROZEN
from tastemaker.events.manifest import undisturbed
from tastemaker.home import Home, write_bytes, write_json
from tastemaker.state.items import ItemChanges
from tastemaker.types import catalogue_name
from tastemaker.users.merged import MergedUsers, read_merges

TRAINING_ORIGINS = ("live", "replay")
IMPRESSION: Final = "impression"
_KEPT_FROZEN = 4
_COMPACTION_SECONDS = 600.0


def read_log(home: Home, catalogue: str) -> Dataset:
    """The catalogue's dataset as of now: imported rows, then archived ones by time, each event id once.

    Items are the imported ones and those that were put, see `item_archive`. One that only events name has a bare row, as in
    an import. Without live events and put items this is `read_dataset`.

    Raises:
        DataError: Nothing was imported, a file cannot be read, or imported rows come from the simulator.
    """
    merged = read_merges(home, catalogue)
    put = ItemArchive(home, catalogue).read()
    return reread(_folder(home, catalogue), lambda parts: _dataset(home, catalogue, parts, merged, put))


def freeze_log(home: Home, catalogue: str) -> Dataset:
    """The same as `read_log`; `read_frozen` gives it again while the log grows. The newest few are kept.

    Files never change, so that their names are all that is kept. Logs of one fingerprint are one: the first of them
    stays. No compaction runs meanwhile, and one that runs already is waited for.

    Raises:
        DataError: As `read_log`, or it cannot be written.
        UsageError: A compaction takes longer than ten minutes.
    """
    folder = _folder(home, catalogue)
    folder.mkdir(parents=True, exist_ok=True)
    with undisturbed(folder, _COMPACTION_SECONDS):
        parts, merged = parts_of(folder), read_merges(home, catalogue)
        put = ItemArchive(home, catalogue).read()
        dataset = _dataset(home, catalogue, parts, merged, put)
        _freeze(_frozen_file(home, catalogue, dataset.fingerprint), parts, merged, put)
    return dataset


def read_frozen(home: Home, catalogue: str, fingerprint: str) -> Dataset:
    """The dataset that had this fingerprint when it was frozen.

    Where there is none such, the imported table, whose fingerprint may be another.

    Raises:
        DataError: As `read_log`, or the archive has lost a file of it.
    """
    parts, merged = _frozen(home, catalogue, fingerprint)
    put = read_lines(_items_of(_frozen_file(home, catalogue, fingerprint)))
    return _dataset(home, catalogue, parts, merged, put)


def read_impressions(home: Home, catalogue: str, fingerprint: str) -> pa.Table:
    """What users were shown, beside the dataset of this fingerprint: rows with `INTERACTIONS_SCHEMA`, as in the log.

    Raises:
        DataError: As `read_frozen`.
    """
    interactions, _ = read_imported(home, catalogue)
    parts, merged = _frozen(home, catalogue, fingerprint)
    shown = [interactions.filter(_wanted((IMPRESSION,))), _live(parts, (IMPRESSION,))]
    return merged.renamed(pa.concat_tables(shown))


def read_frozen_events(home: Home, catalogue: str, fingerprint: str) -> pa.Table:
    """All archived events beside the dataset of this fingerprint, each once, with `EVENT_SCHEMA`; none are imported ones.

    Raises:
        DataError: As `read_frozen`.
    """
    parts, _ = _frozen(home, catalogue, fingerprint)
    return read_parts(parts, EVENT_SCHEMA, "event_id")


def read_frozen_merges(home: Home, catalogue: str, fingerprint: str) -> MergedUsers:
    """Which users are one in the dataset of this fingerprint.

    Raises:
        DataError: As `read_frozen`.
    """
    return _frozen(home, catalogue, fingerprint)[1]


def _wanted(kinds: Sequence[str]) -> pc.Expression:
    return pc.field(Column.ORIGIN).isin(TRAINING_ORIGINS) & pc.field(Column.KIND).isin(kinds)


def _live(parts: Sequence[Path], kinds: Sequence[str]) -> pa.Table:
    """Archived rows with `INTERACTIONS_SCHEMA`, of some kinds only."""
    events = read_parts(parts, EVENT_SCHEMA, "event_id", _wanted(kinds))
    devices = pc.map_lookup(events["context"], Column.DEVICE, "first")
    events = events.append_column(Column.DEVICE, devices)
    return events.select(INTERACTIONS_SCHEMA.names).cast(INTERACTIONS_SCHEMA)


def _dataset(
    home: Home, catalogue: str, parts: Sequence[Path], merged: MergedUsers, put: ItemChanges
) -> Dataset:
    interactions, items = read_imported(home, catalogue)
    live = _live(parts, POSITIVE_KINDS)
    used = live[Column.ITEM_ID].combine_chunks().unique()
    imported = interactions[Column.ITEM_ID].combine_chunks().unique()
    items = with_put_items(items, put, pa.concat_arrays([imported, used]))
    if not pc.all(pc.is_in(used, items[Column.ITEM_ID].combine_chunks())).as_py():
        items, _ = check_items(items, [], used)
    return build_dataset(merged.renamed(pa.concat_tables([interactions, live])), items)


def _folder(home: Home, catalogue: str) -> Path:
    return home / "events" / catalogue_name(catalogue)


def _frozen_file(home: Home, catalogue: str, fingerprint: str) -> Path:
    return _folder(home, catalogue) / FROZEN / f"{fingerprint[:16]}.json"


def _frozen(home: Home, catalogue: str, fingerprint: str) -> tuple[list[Path], MergedUsers]:
    """The archive's files that a frozen log has, none where there is no such log; and which of its users are one."""
    file = _frozen_file(home, catalogue, fingerprint)
    if not file.exists():
        return [], read_merges(home, catalogue)
    mend = "delete it and train again"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        parts = [_folder(home, catalogue) / name for name in kept["parts"]]
        merged = read_merges(home, catalogue, kept.get("merges_until_ms", -1))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} cannot be read", value=str(error), mend=mend) from error
    for part in parts:
        if not part.exists():
            raise DataError(f"{part}, which {file} names", value="gone", limit="there", mend=mend)
    return parts, merged


def _items_of(frozen: Path) -> Path:
    """Where the put items of a frozen log lie."""
    return frozen.with_suffix(".items.jsonl")


def _freeze(file: Path, parts: Sequence[Path], merged: MergedUsers, put: ItemChanges) -> None:
    folder = file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if file.exists():
            file.touch()
        else:
            if put.rows:
                write_bytes(_items_of(file), encode_line(put))
            names = [str(part.relative_to(folder.parent)) for part in parts]
            until_ms = max((merge.at_ms for merge in merged.merges.values()), default=-1)
            write_json(file, {"parts": names, "merges_until_ms": until_ms})
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-_KEPT_FROZEN]:
            path.unlink(missing_ok=True)
            _items_of(path).unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {file}", value=error.strerror, mend="make room") from error
