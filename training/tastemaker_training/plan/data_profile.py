"""What a dataset is like, in a few kilobytes: a bundle keeps it, for the next retrain to compare its own data with.

Not for what may differ (`data_gate`). Shape letters: N rows, U users, I items.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute
from pydantic import Field

from tastemaker.data.schema import POSITIVE_KINDS, Column, Dataset
from tastemaker.errors import DataError
from tastemaker.strict import Strict
from tastemaker.types import Int64

pc: Any = pyarrow.compute  # its stubs know neither list arrays nor chunked ones
_HOUR_MS = 3_600_000
_SKETCH_SIZE = 2048
_VALUE_EDGES = np.concatenate([np.arange(0, 10, 0.25), 10 * 2.0 ** np.arange(18)])
"""A bin for each quarter up to 10, as ratings and weights need, then for each doubling, as seconds watched do."""
_POPULARITY_EDGES = np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
_LENGTH_BUCKETS = 16


class IdSketch(Strict):
    """A set of ids by its `_SKETCH_SIZE` smallest hashes: overlap is exact for small sets, else within 2 points.

    The bottom-k sketch of [Cohen & Kaplan 2007]. The hashes are 53 bits, so that any JSON reader keeps them.
    """

    num_ids: int = Field(ge=0, description="ids in the set")
    hashes: tuple[int, ...] = Field(description="the smallest hashes, ascending")

    @classmethod
    def of(cls, ids: Sequence[str]) -> "IdSketch":
        """The sketch of distinct ids."""
        hashes = sorted(
            int.from_bytes(hashlib.blake2b(one.encode(), digest_size=8).digest()) >> 11 for one in ids
        )
        return cls(num_ids=len(ids), hashes=tuple(hashes[:_SKETCH_SIZE]))

    def share_outside(self, other: "IdSketch") -> float:
        """Share of these ids that `other` has not.

        >>> IdSketch.of(["a", "b", "c", "d"]).share_outside(IdSketch.of(["d", "e"]))
        0.75
        """
        known, up_to = set(other.hashes), min(self._complete_up_to, other._complete_up_to)
        mine = [one for one in self.hashes if one <= up_to]
        return sum(one not in known for one in mine) / max(len(mine), 1)

    @property
    def _complete_up_to(self) -> int:
        return self.hashes[-1] if self.num_ids > len(self.hashes) else 1 << 53


class DataProfile(Strict):
    """Counts, histograms and sketches of one dataset. Only users and items with events count."""

    fingerprint: str = Field(description="of the dataset")
    num_rows: int = Field(ge=1, description="events")
    num_invalid: int = Field(ge=0, description="rows that an import refused, such as ratings without a value")
    num_duplicates: int = Field(
        ge=0, description="events of a user, item and time that another event has as well"
    )
    missing: dict[str, float] = Field(description="share of the catalogue's items without it, by column")
    first_ms: int = Field(description="time of the oldest event")
    last_ms: int = Field(description="time of the newest event")
    largest_gap_ms: int = Field(ge=0, description="longest time without any event between the two")
    kinds: tuple[int, ...] = Field(description="events by kind, as in POSITIVE_KINDS")
    values: tuple[int, ...] = Field(description="events by their value's bin")
    hours: tuple[int, ...] = Field(description="events by hour of the UTC day")
    popularity: tuple[int, ...] = Field(description="events by their item's place among the most used")
    histories: tuple[int, ...] = Field(description="users by doubling number of events")
    users: IdSketch = Field(description="ids of users")
    items: IdSketch = Field(description="ids of items")


def profile(dataset: Dataset, num_invalid: int = 0) -> DataProfile:
    """The profile of a dataset.

    Args:
        dataset: At least one event.
        num_invalid: Rows that did not get into it.

    Raises:
        DataError: There is no event.
    """
    if not len(dataset):
        raise DataError("events that show use", value=0, limit="at least 1", mend="import events")
    time_N = np.sort(dataset.timestamp_ms)
    count_U, count_I = np.bincount(dataset.user_index), np.bincount(dataset.item_index)
    used_U, used_I = np.flatnonzero(count_U), np.flatnonzero(count_I)
    return DataProfile(
        fingerprint=dataset.fingerprint,
        num_rows=len(dataset),
        num_invalid=num_invalid,
        num_duplicates=_num_duplicates(dataset),
        missing=_missing(dataset),
        first_ms=int(time_N[0]),
        last_ms=int(time_N[-1]),
        largest_gap_ms=int(np.diff(time_N).max(initial=0)),
        kinds=_histogram(dataset.kind_index, len(POSITIVE_KINDS)),
        values=_histogram(np.searchsorted(_VALUE_EDGES, dataset.value, side="right"), len(_VALUE_EDGES) + 1),
        hours=_histogram(time_N // _HOUR_MS % 24, 24),
        popularity=popularity_histogram(count_I[used_I]),
        histories=_histogram(np.minimum(np.log2(count_U[used_U]), _LENGTH_BUCKETS - 1), _LENGTH_BUCKETS),
        users=IdSketch.of([dataset.user_ids[user] for user in used_U]),
        items=IdSketch.of([dataset.item_ids[item] for item in used_I]),
    )


def popularity_histogram(count_I: Int64) -> tuple[int, ...]:
    """Events on the most used 0.1% of items, on those up to 0.3%, 1%, 3%, 10%, 30%, and on the rest.

    >>> popularity_histogram(np.array([1, 6, 1, 2]))
    (0, 0, 0, 0, 0, 6, 4)
    """
    rank_I = np.arange(1, len(count_I) + 1) / len(count_I)
    bucket_I = np.searchsorted(_POPULARITY_EDGES, rank_I)
    events = np.bincount(bucket_I, weights=np.sort(count_I)[::-1], minlength=len(_POPULARITY_EDGES))
    return tuple(int(count) for count in events)


def _num_duplicates(dataset: Dataset) -> int:
    rows = np.stack([dataset.user_index, dataset.item_index, dataset.timestamp_ms])
    order = np.lexsort(rows)
    return int((np.diff(rows[:, order], axis=1) == 0).all(axis=0).sum())


def _missing(dataset: Dataset) -> dict[str, float]:
    items = dataset.items
    missing = {
        Column.TITLE: pc.equal(items[Column.TITLE], items[Column.ITEM_ID]),
        Column.CATEGORY: pc.equal(items[Column.CATEGORY], ""),
        Column.TAGS: pc.equal(pc.list_value_length(items[Column.TAGS]), 0),
        Column.CREATED_AT_MS: pc.is_null(items[Column.CREATED_AT_MS]),
    }
    return {name: float(pc.mean(mask.cast("int8")).as_py()) for name, mask in missing.items()}


def _histogram(bin_N: np.ndarray, num_bins: int) -> tuple[int, ...]:
    return tuple(np.bincount(bin_N.astype(np.int64), minlength=num_bins).tolist())
