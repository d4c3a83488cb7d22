"""What a training learns from: the imported table, and the live events that were archived since.

The archive's days hold simulated events as well, told apart by their origin: they are never read here. A log that
goes on growing is frozen for a training, so that evaluation and publishing see what the fit saw.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.home import Home, write_bytes
from tastemaker.types import catalogue_name

TRAINING_ORIGINS = ("live", "replay")
_KEPT_FROZEN = 4


def read_log(home: Home, catalogue: str) -> Dataset:
    """The catalogue's dataset as of now: imported rows, then archived ones by time, each event id once.

    An item that only events name has a bare row, as in an import. Without live events this is `read_dataset`.

    Raises:
        DataError: Nothing was imported, a file cannot be read, or imported rows come from the simulator.
    """
    return _dataset(home, catalogue, _live(home, catalogue))


def freeze_log(home: Home, catalogue: str) -> Dataset:
    """The same as `read_log`; `read_frozen` gives it again while the log grows. The newest few are kept.

    Raises:
        DataError: As `read_log`, or it cannot be written.
    """
    live = _live(home, catalogue)
    dataset = _dataset(home, catalogue, live)
    if len(live):
        _freeze(_frozen_file(home, catalogue, dataset.fingerprint), live)
    return dataset


def read_frozen(home: Home, catalogue: str, fingerprint: str) -> Dataset:
    """The dataset that had this fingerprint when it was frozen.

    Where there is none such, the imported table, whose fingerprint is another unless it had no live events.

    Raises:
        DataError: As `read_log`.
    """
    file = _frozen_file(home, catalogue, fingerprint)
    if not file.exists():
        return build_dataset(*read_imported(home, catalogue))
    try:
        live = pq.read_table(file, schema=INTERACTIONS_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{file} cannot be read", value=str(error), mend="delete it and train again"
        ) from error
    return _dataset(home, catalogue, live)


def _live(home: Home, catalogue: str) -> pa.Table:
    """Archived rows with `INTERACTIONS_SCHEMA`, positive kinds only."""
    wanted = pc.field("origin").isin(TRAINING_ORIGINS) & pc.field("kind").isin(POSITIVE_KINDS)
    events = read_days(home / "events" / catalogue_name(catalogue), EVENT_SCHEMA, "event_id", wanted)
    return events.select(INTERACTIONS_SCHEMA.names).cast(INTERACTIONS_SCHEMA)


def _dataset(home: Home, catalogue: str, live: pa.Table) -> Dataset:
    interactions, items = read_imported(home, catalogue)
    used = live[Column.ITEM_ID].combine_chunks().unique()
    if not pc.all(pc.is_in(used, items[Column.ITEM_ID].combine_chunks())).as_py():
        items, _ = check_items(items, [], used)
    return build_dataset(pa.concat_tables([interactions, live]), items)


def _frozen_file(home: Home, catalogue: str, fingerprint: str) -> Path:
    return home / "events" / catalogue_name(catalogue) / "frozen" / f"{fingerprint[:16]}.parquet"


def _freeze(file: Path, live: pa.Table) -> None:
    buffer = pa.BufferOutputStream()
    pq.write_table(live, buffer)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, buffer.getvalue().to_pybytes())
        kept = sorted(file.parent.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-_KEPT_FROZEN]:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {file}", value=error.strerror, mend="make room") from error
