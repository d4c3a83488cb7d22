"""Users' vectors by the champion's query tower, from the log, as one Parquet file: batch scoring by Ray Data.

Not for serving, which encodes each request's own history. On little data most of the time goes into Ray's start.

Shape letters: U users, N rows of the log, I items of the bundle, D dimension.
"""

import functools
import json
import logging
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.log import read_log
from tastemaker.data.schema import Column, Dataset
from tastemaker.errors import DataError
from tastemaker.features.ragged import ranges
from tastemaker.home import Home
from tastemaker.models.two_tower import QueryEncoder
from tastemaker.registry.client import Registry
from tastemaker.terminal import progress
from tastemaker.types import Int64, catalogue_name
from tastemaker_training.workers import start_ray

ALIAS = "champion"
_MADE_FROM = b"tastemaker.made_from"
_USERS_OF_A_TASK = 8192
_HISTORY, _LENGTH, _NEWEST, _VECTOR = "history", "history_length", "newest_ms", "vector"


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What one refresh did. `num_skipped` users have no item that the bundle knows, so that no vector says anything."""

    outcome: Literal["written", "up to date"]
    file: Path
    bundle: str
    dataset: str
    num_users: int
    num_skipped: int
    seconds_start: float
    seconds: float

    def summary(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"file": str(self.file)}


def refresh_users(settings: Settings, home: Home) -> Refreshed:
    """Writes `events/<catalogue>/user_vectors/<bundle id>.parquet`, unless it was made from the same log already.

    A row per user: user_id, vector, history_length (items that were encoded) and newest_ms (time of the newest
    event). Files of bundles that no alias names any more are removed.

    Raises:
        UsageError: Another refresh is under way in this home.
        RegistryError: The catalogue has no champion.
        DataError: There is no log, nobody in it used an item of the champion, or the file cannot be written.
    """
    started = time.monotonic()
    with home.lock("refresh-users"):
        registry = Registry(settings, home)
        champion, aliases = registry.version(settings.catalogue, ALIAS), registry.aliases(settings.catalogue)
        bundle = Bundle.open(BundleStore.of(settings, home), champion.ref)
        dataset = read_log(home, settings.catalogue)
        file = vectors_file(home, settings.catalogue, bundle.bundle_id)
        histories = user_histories(dataset, bundle, settings.state.history_length)
        if not len(histories):
            raise DataError("users with an item of the champion", value=0, limit="at least 1", mend="retrain")
        made_from = {"dataset": dataset.fingerprint, "history_length": settings.state.history_length}
        done = _made_from(file) == made_from
        seconds_start = 0.0 if done else _write(file, histories, made_from, settings, home, champion.ref)
        _remove_others(file, {version.ref.bundle_id for version in aliases.values()})
    return Refreshed(
        "up to date" if done else "written", file, bundle.bundle_id, dataset.fingerprint, len(histories),
        dataset.num_users - len(histories), seconds_start, round(time.monotonic() - started, 2),
    )  # fmt: skip


def vectors_file(home: Home, catalogue: str, bundle_id: str) -> Path:
    """Where a bundle's user vectors lie."""
    return home / "events" / catalogue_name(catalogue) / "user_vectors" / f"{bundle_id}.parquet"


def user_histories(dataset: Dataset, bundle: Bundle, max_length: int) -> pa.Table:
    """Each user's newest items as rows of the bundle, oldest first and each once, as serving reads them.

    Users without an item that the bundle knows are left out.
    """
    index_of = [bundle.index_of(item_id) for item_id in dataset.item_ids]
    row_N = np.array([-1 if row is None else row for row in index_of], np.int64)[dataset.item_index]
    at = np.flatnonzero(row_N >= 0)
    at = at[_last_uses(dataset.user_index[at].astype(np.int64) * len(bundle.item_ids) + row_N[at])]
    length_U = np.bincount(dataset.user_index[at], minlength=dataset.num_users)
    end_U = np.cumsum(length_U)
    users = np.flatnonzero(length_U)
    length, end = np.minimum(length_U[users], max_length), end_U[users]
    items = row_N[at][ranges(end - length, length)]
    offsets = pa.array(np.concatenate([[0], np.cumsum(length)]), pa.int64())
    return pa.table(
        {
            Column.USER_ID: pa.array([dataset.user_ids[user] for user in users], pa.string()),
            _HISTORY: pa.LargeListArray.from_arrays(offsets, pa.array(items, pa.int32())),
            _LENGTH: pa.array(length.astype(np.int32)),
            _NEWEST: pa.array(dataset.timestamp_ms[at][end - 1]),
        }
    )


def encode(batch: pa.Table, settings: Settings, home: Home, ref: BundleRef) -> pa.Table:
    """The batch with vectors in place of histories. Runs in Ray's worker processes."""
    histories = [np.asarray(history, np.int32) for history in batch[_HISTORY].to_pylist()]
    vector_BD = _encoder(settings, home, ref).encode(histories)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vector_BD.ravel()), vector_BD.shape[1])
    return batch.drop_columns([_HISTORY]).append_column(_VECTOR, vectors)


@functools.cache
def _encoder(settings: Settings, home: Home, ref: BundleRef) -> QueryEncoder:
    """The query tower, opened once in each process."""
    import torch

    torch.set_num_threads(1)
    return Bundle.open(BundleStore.of(settings, home), ref).towers("two_tower", QueryEncoder)


def _last_uses(key_N: Int64) -> Int64:
    """Positions of each key's last occurrence, ascending."""
    last_N: Int64 = np.sort(len(key_N) - 1 - np.unique(key_N[::-1], return_index=True)[1])
    return last_N


def _made_from(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(pq.read_schema(file).metadata[_MADE_FROM])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None  # absent, or not ours: it is written anew
    return found


def _write(
    file: Path, histories: pa.Table, made_from: dict[str, Any], settings: Settings, home: Home, ref: BundleRef
) -> float:
    """Writes the file whole or not at all; gives the seconds that Ray's start took."""
    started = time.monotonic()
    start_ray(settings, home)
    seconds_start = round(time.monotonic() - started, 2)
    where = {"settings": Settings(home=home.root, storage=settings.storage), "home": home, "ref": ref}
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as sink:
            _encode_all(histories, sink, made_from, where)
            sink.flush()
            os.fsync(sink.fileno())
        temporary.replace(file)
    except OSError as error:
        raise DataError(f"cannot write {file}", value=error.strerror, mend="make room") from error
    finally:
        temporary.unlink(missing_ok=True)
    return seconds_start


def _encode_all(
    histories: pa.Table, sink: BinaryIO, made_from: dict[str, Any], where: dict[str, Any]
) -> None:
    """Ray Data's tasks encode blocks of users; they are written here, in order."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    starts = range(0, len(histories), _USERS_OF_A_TASK)
    blocks = [histories.slice(start, _USERS_OF_A_TASK) for start in starts]
    encoded = ray.data.from_arrow(blocks).map_batches(
        encode, fn_kwargs=where, batch_format="pyarrow", batch_size=_USERS_OF_A_TASK
    )
    writer: pq.ParquetWriter | None = None
    with progress("encoding users", len(histories)) as advance:
        for batch in encoded.iter_batches(batch_format="pyarrow", batch_size=_USERS_OF_A_TASK):
            if writer is None:
                metadata = {_MADE_FROM: json.dumps(made_from).encode()}
                writer = pq.ParquetWriter(sink, batch.schema.with_metadata(metadata))
            writer.write_table(batch.cast(writer.schema))
            advance(len(batch))
    assert writer is not None, "there are users"
    writer.close()


def _remove_others(file: Path, bundles: set[str]) -> None:
    for other in file.parent.glob("*.parquet"):
        if other.stem not in bundles:
            other.unlink(missing_ok=True)
