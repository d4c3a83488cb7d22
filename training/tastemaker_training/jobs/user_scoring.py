"""Something computed for every user of the log from a released bundle, as one Parquet file: batch scoring by Ray Data.

Not for what is computed (`refresh`, `batch`). On little data most of the time goes into Ray's start.

Shape letters: U users, N rows of the log, I items of the bundle.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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
from tastemaker.registry.client import Registry
from tastemaker.terminal import progress
from tastemaker.types import Int64
from tastemaker.users.archive import opted_out
from tastemaker_training.distributed.workers import start_ray

ALIAS = "champion"
HISTORY, LENGTH, NEWEST = "history", "history_length", "newest_ms"
_MADE_FROM = b"tastemaker.made_from"

Score = Callable[..., pa.Table]
"""Takes a block of users and, by name, `settings`, `home`, `ref` and what else it was given; gives what is written."""


@dataclass(frozen=True)
class ChampionsUsers:
    """The users of the log as of now, as the champion knows them.

    `histories` has those with an item that it knows, without those who opted out; `live` are the ids of the bundles that
    some alias names.
    """

    ref: BundleRef
    bundle: Bundle
    dataset: Dataset
    histories: pa.Table
    live: frozenset[str]
    opted_out: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings, home: Home) -> Self:
        """Those of the settings' catalogue.

        Raises:
            RegistryError: It has no champion.
            DataError: There is no log, or nobody in it used an item of the champion.
        """
        registry = Registry(settings, home)
        ref = registry.version(settings.catalogue, ALIAS).ref
        bundle, dataset = Bundle.open(BundleStore.of(settings, home), ref), read_log(home, settings.catalogue)
        histories = user_histories(dataset, bundle, settings.state.history_length)
        out = opted_out(home, settings.catalogue)
        is_out = pc.is_in(histories[Column.USER_ID], value_set=pa.array(sorted(out), pa.string()))
        histories = histories.filter(pc.invert(is_out))
        live = frozenset(version.ref.bundle_id for version in registry.aliases(settings.catalogue).values())
        return cls(ref, bundle, dataset, histories, live, out)

    @property
    def made_from(self) -> dict[str, Any]:
        """What whatever is made of them depends on, for `is_made_from`."""
        found = {"dataset": self.dataset.fingerprint}
        if self.opted_out:
            found["opted_out"] = hashlib.sha256("\0".join(sorted(self.opted_out)).encode()).hexdigest()
        return found

    @property
    def num_skipped(self) -> int:
        """Users of the log that are not in `histories`."""
        return self.dataset.num_users - len(self.histories)


@dataclass(frozen=True)
class Scoring:
    """How a file of users comes to be.

    Args:
        settings: Where Ray and bundles are.
        home: Of the bundles.
        ref: The bundle that scores.
        score: Runs in Ray's worker processes.
        more: Further arguments of `score`, by name.
        description: Of the progress bar.
        users_of_a_task: Users of a block.
    """

    settings: Settings
    home: Home
    ref: BundleRef
    score: Score
    more: dict[str, Any]
    description: str
    users_of_a_task: int = 8192

    def write(self, file: Path, histories: pa.Table, made_from: dict[str, Any]) -> float:
        """Writes what `score` makes of all users, whole or not at all; gives the seconds that Ray's start took.

        Args:
            file: Where to.
            histories: As `user_histories` gives them.
            made_from: What the file depends on, for `is_made_from`.

        Raises:
            DataError: It cannot be written.
        """
        started = time.monotonic()
        start_ray(self.settings, self.home)
        seconds_start = round(time.monotonic() - started, 2)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as sink:
                self._score_all(histories, sink, made_from)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(file)
        except OSError as error:
            raise DataError(f"cannot write {file}", value=error.strerror, mend="make room") from error
        finally:
            temporary.unlink(missing_ok=True)
        return seconds_start

    def _score_all(self, histories: pa.Table, sink: BinaryIO, made_from: dict[str, Any]) -> None:
        """Ray Data's tasks score blocks of users; they are written here, in order."""
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        size = self.users_of_a_task
        blocks = [histories.slice(start, size) for start in range(0, len(histories), size)]
        where = {"settings": Settings(home=self.home.root, storage=self.settings.storage), "home": self.home}
        scored = ray.data.from_arrow(blocks).map_batches(
            self.score,
            fn_kwargs=where | {"ref": self.ref} | self.more,
            batch_format="pyarrow",
            batch_size=size,
        )
        writer: pq.ParquetWriter | None = None
        with progress(self.description, len(histories)) as advance:
            for batch in scored.iter_batches(batch_format="pyarrow", batch_size=size):
                if writer is None:
                    metadata = {_MADE_FROM: json.dumps(made_from).encode()}
                    writer = pq.ParquetWriter(sink, batch.schema.with_metadata(metadata))
                writer.write_table(batch.cast(writer.schema))
                advance(len(batch))
        assert writer is not None, "there are users"
        writer.close()


def user_histories(dataset: Dataset, bundle: Bundle, max_length: int) -> pa.Table:
    """Each user's newest items as rows of the bundle, oldest first and each once, as serving reads them.

    Users without an item that the bundle knows are left out.

    Raises:
        DataError: That is all of them.
    """
    index_of = [bundle.index_of(item_id) for item_id in dataset.item_ids]
    row_N = np.array([-1 if row is None else row for row in index_of], np.int64)[dataset.item_index]
    at = np.flatnonzero(row_N >= 0)
    if not len(at):
        raise DataError("users with an item of the champion", value=0, limit="at least 1", mend="retrain")
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
            HISTORY: pa.LargeListArray.from_arrays(offsets, pa.array(items, pa.int32())),
            LENGTH: pa.array(length.astype(np.int32)),
            NEWEST: pa.array(dataset.timestamp_ms[at][end - 1]),
        }
    )


def is_made_from(file: Path, made_from: dict[str, Any]) -> bool:
    """Whether the file is there and was made from just that."""
    try:
        found: dict[str, Any] = json.loads(pq.read_schema(file).metadata[_MADE_FROM])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return False  # absent, or not ours: it is written anew
    return found == made_from


def remove_others(file: Path, bundles: frozenset[str]) -> None:
    """Removes the files beside `file` of bundles that are not among these."""
    for other in file.parent.glob("*.parquet"):
        if other.stem not in bundles:
            other.unlink(missing_ok=True)


def _last_uses(key_N: Int64) -> Int64:
    """Positions of each key's last occurrence, ascending."""
    last_N: Int64 = np.sort(len(key_N) - 1 - np.unique(key_N[::-1], return_index=True)[1])
    return last_N
