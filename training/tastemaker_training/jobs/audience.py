"""Which users an item should be shown to: those whose vectors are nearest to its own.

A new item has no audience yet and its own traffic to earn; this says with whom to begin. It reads the vectors of
`refresh`, a block at a time, and the item's from the champion.

Shape letters: B users of a block, D dimension.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.data.log import read_log
from tastemaker.data.schema import Column, Dataset
from tastemaker.errors import DataError, UsageError
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.terminal import progress
from tastemaker_training.jobs.refresh import VECTOR, vectors_file
from tastemaker_training.jobs.user_scoring import ALIAS


@dataclass(frozen=True, slots=True)
class Member:
    """A user of an audience, and how near the item is: the product of the two unit vectors."""

    user_id: str
    score: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def audience(settings: Settings, home: Home, item_id: str, k: int) -> list[Member]:
    """The k users nearest to an item, nearest first, without those who took it; ties by user id.

    Raises:
        UsageError: The champion does not know the item, or `k` is not positive.
        RegistryError: The catalogue has no champion.
        DataError: There are no vectors of the champion, or they cannot be read.
    """
    if k < 1:
        raise UsageError("--k", value=k, limit="at least 1", mend="ask for one or more")
    ref = Registry(settings, home).version(settings.catalogue, ALIAS).ref
    bundle = Bundle.open(BundleStore.of(settings, home), ref)
    row = bundle.index_of(item_id)
    if row is None:
        raise UsageError(
            "item", value=item_id, limit=f"one of bundle {bundle.bundle_id}", mend="train on it first"
        )
    file = vectors_file(home, settings.catalogue, bundle.bundle_id)
    if not file.exists():
        raise DataError(
            f"bundle {bundle.bundle_id} has no users' vectors", mend="run `tastemaker refresh-users`"
        )
    had = _had(read_log(home, settings.catalogue), item_id)
    best: list[Member] = []
    reader = pq.ParquetFile(file)
    with progress("looking at users", reader.metadata.num_rows) as advance:
        for block in reader.iter_batches(columns=[Column.USER_ID, VECTOR]):
            best = _best([*best, *_members(block, bundle.index().vectors()[row], had)], k)
            advance(len(block))
    return best


def _had(dataset: Dataset, item_id: str) -> frozenset[str]:
    """Users who took the item."""
    if item_id not in dataset.item_ids:
        return frozenset()
    rows = dataset.user_index[dataset.item_index == dataset.item_ids.index(item_id)]
    return frozenset(dataset.user_ids[user] for user in np.unique(rows))


def _members(block: Any, item_D: np.ndarray, had: frozenset[str]) -> list[Member]:
    vector_BD = block.column(1).flatten().to_numpy().reshape(len(block), -1)
    pairs = zip(block.column(0).to_pylist(), (vector_BD @ item_D).tolist(), strict=True)
    return [Member(user_id, score) for user_id, score in pairs if user_id not in had]


def _best(members: list[Member], k: int) -> list[Member]:
    return sorted(members, key=lambda member: (-member.score, member.user_id))[:k]
