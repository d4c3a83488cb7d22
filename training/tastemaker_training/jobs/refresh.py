"""Users' vectors by the champion's query tower, from the log, as one Parquet file.

Not for serving, which encodes each request's own history.

Shape letters: B users, D dimension.
"""

import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.models.two_tower import QueryEncoder
from tastemaker.types import catalogue_name
from tastemaker_training.jobs.user_scoring import (
    HISTORY,
    ChampionsUsers,
    Scoring,
    is_made_from,
    remove_others,
)

VECTOR = "vector"


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
        users = ChampionsUsers.of(settings, home)
        dataset, num_users = users.dataset.fingerprint, len(users.histories)
        file = vectors_file(home, settings.catalogue, users.bundle.bundle_id)
        made_from = users.made_from | {"history_length": settings.state.history_length}
        done = is_made_from(file, made_from)
        scoring = Scoring(settings, home, users.ref, encode, {}, "encoding users")
        seconds_start = 0.0 if done else scoring.write(file, users.histories, made_from)
        remove_others(file, users.live)
    return Refreshed(
        "up to date" if done else "written", file, users.bundle.bundle_id, dataset, num_users, users.num_skipped,
        seconds_start, round(time.monotonic() - started, 2),
    )  # fmt: skip


def vectors_file(home: Home, catalogue: str, bundle_id: str) -> Path:
    """Where a bundle's user vectors lie."""
    return home / "events" / catalogue_name(catalogue) / "user_vectors" / f"{bundle_id}.parquet"


def encode(batch: pa.Table, settings: Settings, home: Home, ref: BundleRef) -> pa.Table:
    """The batch with vectors in place of histories. Runs in Ray's worker processes."""
    histories = [np.asarray(history, np.int32) for history in batch[HISTORY].to_pylist()]
    vector_BD = _encoder(settings, home, ref).encode(histories)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(vector_BD.ravel()), vector_BD.shape[1])
    return batch.drop_columns([HISTORY]).append_column(VECTOR, vectors)


@functools.cache
def _encoder(settings: Settings, home: Home, ref: BundleRef) -> QueryEncoder:
    """The query tower, opened once in each process."""
    import torch

    torch.set_num_threads(1)
    return Bundle.open(BundleStore.of(settings, home), ref).towers("two_tower", QueryEncoder)
