"""What the two-tower is trained on, as a folder: example files of both fits, item counts, validation users, the catalogue.

Made by the driver, read by the ranks; nothing of it is read whole but what has one value for each item.
Shape letters: I catalogue, U users.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Histories, Split
from tastemaker.features.vocabulary import Vocabulary, VocabularyConfig
from tastemaker.types import Int32, Int64
from tastemaker_training.artifacts import load_model, load_tensors, save_model, save_tensors
from tastemaker_training.rows.example_files import write_examples, write_histories

FITS = ("train", "refit")
_COUNTS, _ITEMS, _VALIDATION = "counts.safetensors", "items.parquet", "validation.parquet"


@dataclass(frozen=True)
class ExampleSet:
    """The folder."""

    folder: Path

    def files(self, fit: str) -> list[Path]:
        """Example files of one of the `FITS`."""
        return sorted((self.folder / fit).glob("*.parquet"))

    def counts(self, fit: str) -> Int64:
        """How often each item is a target (I,)."""
        counts_I: Int64 = load_tensors(self.folder / _COUNTS)[fit]
        return counts_I

    def items(self) -> pa.Table:
        """The catalogue."""
        return pq.read_table(self.folder / _ITEMS)

    def vocabulary(self, fit: str) -> Vocabulary:
        """Which items have a row of their own."""
        return load_model(self.folder, _vocabulary(fit), Vocabulary)

    def validation(self) -> tuple[Histories, Histories]:
        """Histories of the users that validation asks about, and their targets with times and devices."""
        table = pq.read_table(self.folder / _VALIDATION)
        targets = _histories(table["targets"])
        times, devices = (_flat(table[name]) for name in ("timestamp_ms", "device"))
        return _histories(table["history"]), replace(targets, timestamp_ms=times, device_row=devices)


def write_example_set(
    folder: Path,
    dataset: Dataset,
    split: Split,
    max_history: int,
    max_validation_users: int,
    ids: VocabularyConfig,
    rejections: Histories | None = None,
) -> None:
    """Makes the folder's content.

    Args:
        folder: There, and empty.
        dataset: The catalogue and its events.
        split: Of the events.
        max_history: Newest items that an example has at most.
        max_validation_users: Users that validation asks about at most: evenly over all that have targets.
        ids: Which items have a row of their own.
        rejections: What the dataset's users were shown, saw and left; unset: nothing.
    """
    pq.write_table(dataset.items, folder / _ITEMS)
    counts = {}
    for fit, histories in zip(FITS, (split.train, split.train_validation), strict=True):
        (folder / fit).mkdir()
        whole = folder / f"{fit}.histories.parquet"
        write_histories(whole, histories, rejections)
        write_examples(whole, folder / fit, max_history)
        whole.unlink()
        counts[fit] = np.bincount(_targets(histories), minlength=dataset.num_items).astype(np.int64)
        save_model(folder, _vocabulary(fit), _fit_vocabulary(dataset, histories, ids))
    save_tensors(folder / _COUNTS, counts)
    with_targets = np.flatnonzero(split.validation.lengths > 0)
    chosen = np.linspace(0, len(with_targets) - 1, min(len(with_targets), max_validation_users)).astype(int)
    users = [int(user) for user in with_targets[chosen]] if len(with_targets) else []
    table: dict[str, Any] = {
        "history": pa.array([split.train[user] for user in users], pa.list_(pa.int32())),
        "targets": pa.array([split.validation[user] for user in users], pa.list_(pa.int32())),
        "timestamp_ms": pa.array([split.validation.times_ms(user) for user in users], pa.list_(pa.int64())),
        "device": pa.array([split.validation.device_rows(user) for user in users], pa.list_(pa.int8())),
    }
    pq.write_table(pa.table(table), folder / _VALIDATION)


def _targets(histories: Histories) -> Int32:
    """Items of all examples: each of a history but the first."""
    at = np.arange(len(histories.item_index))
    return histories.item_index[at > np.repeat(histories.offsets[:-1], histories.lengths)]


def _vocabulary(fit: str) -> str:
    return f"{fit}.vocabulary"


def _fit_vocabulary(dataset: Dataset, histories: Histories, config: VocabularyConfig) -> Vocabulary:
    """The items of some histories, by how often and when last they were used; ages are taken at the newest event."""
    times = histories.timestamp_ms
    assert times is not None, "histories of a dataset have times"
    counts_I = np.bincount(histories.item_index, minlength=dataset.num_items)
    last_ms_I = np.zeros(dataset.num_items, np.int64)
    np.maximum.at(last_ms_I, histories.item_index, times)
    return Vocabulary.fit(dataset.item_ids, counts_I, last_ms_I, int(times.max(initial=0)), config)


def _histories(items: Any) -> Histories:
    lengths = items.combine_chunks().value_lengths().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Histories(offsets, _flat(items).astype(np.int32))


def _flat(lists: Any) -> Any:
    return lists.combine_chunks().flatten().to_numpy()
