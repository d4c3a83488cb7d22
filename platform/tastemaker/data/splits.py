"""Splits of a dataset by time, never at random. Ties in time are broken by file order (see `Dataset`).

A user's later row of an item that the user already has is left out of every split: seen items are masked when
recommending, so such a target could never be found. Shape letters: N rows, U users, I items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from tastemaker.data.schema import Dataset
from tastemaker.errors import DataError
from tastemaker.types import Bool, Float32, Int8, Int32, Int64


@dataclass(frozen=True, slots=True)
class Histories:
    """Each user's items, oldest first: user u has `item_index[offsets[u]:offsets[u + 1]]`.

    `timestamp_ms`, `slot` and `device_row` are row by row beside `item_index` where the rows come from a dataset, as it
    has them.
    """

    offsets: Int64
    item_index: Int32
    timestamp_ms: Int64 | None = None
    slot: Int32 | None = None
    device_row: Int8 | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, user: int) -> Int32:
        return self.item_index[self.offsets[user] : self.offsets[user + 1]]

    def __iter__(self) -> Iterator[Int32]:
        return (self[user] for user in range(len(self)))

    def times_ms(self, user: int) -> Int64:
        """When the user had each item; there are times where the rows come from a dataset."""
        assert self.timestamp_ms is not None, "these histories do not come from a dataset"
        return self.timestamp_ms[self.offsets[user] : self.offsets[user + 1]]

    def first_time_ms(self, user: int) -> int:
        """When a user, who must have items, took the first of them; 0 where times are unknown."""
        return 0 if self.timestamp_ms is None else int(self.timestamp_ms[self.offsets[user]])

    def device_rows(self, user: int) -> Int8:
        """From what device the user took each item; 0 where that is unknown."""
        if self.device_row is None:
            return np.zeros(self.offsets[user + 1] - self.offsets[user], np.int8)
        return self.device_row[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> Int64:
        """(U,) number of items of each user."""
        return np.diff(self.offsets)

    @property
    def user_index(self) -> Int32:
        """(N,) the user of each row."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int] | Int32]) -> "Histories":
        """Histories of the given item rows, oldest first."""
        lengths = [len(items) for items in lists]
        flat = [np.asarray(items, np.int32) for items in lists if len(items)]
        return cls(
            np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            np.concatenate(flat) if flat else np.empty(0, np.int32),
        )

    def to_csr(self, num_items: int, half_life: float | None = None) -> sp.csr_matrix:
        """(U, I) float32 matrix of the histories.

        Args:
            num_items: Width.
            half_life: Weight of an item is 0.5 ** (age / half_life), where age counts the user's newer items:
                the newest weighs 1. Unset weighs all 1. An item that occurs twice has the sum.

        >>> Histories.from_lists([[0, 2]]).to_csr(3, half_life=1).toarray()
        array([[0.5, 0. , 1. ]], dtype=float32)
        """
        shape = (len(self), num_items)
        # Of a copy: scipy sorts the rows that it is given in place, and their order here is time.
        matrix = sp.csr_matrix((self.weights(half_life), self.item_index.copy(), self.offsets), shape=shape)
        matrix.sum_duplicates()
        return matrix

    def weights(self, half_life: float | None = None) -> Float32:
        """(N,) weight of each row, as `to_csr` has them."""
        if half_life is None:
            return np.ones(len(self.item_index), np.float32)
        age_N = np.repeat(self.offsets[1:], self.lengths) - 1 - np.arange(len(self.item_index))
        weight_N: Float32 = (0.5 ** (age_N / half_life)).astype(np.float32)
        return weight_N


@dataclass(frozen=True, slots=True)
class Split:
    """Train, then validation, then test of every user; a user may have none of the latter two."""

    train: Histories
    validation: Histories
    test: Histories
    train_validation: Histories


@dataclass(frozen=True, slots=True)
class GlobalCutoff:
    """A split at one moment: what a launch on that day would have seen. `split.validation` is empty.

    A test user is warm when there are rows of the user before the cutoff.
    """

    split: Split
    cutoff_ms: int
    num_test_users: int
    num_warm_users: int


def leave_last(dataset: Dataset, num_test: int = 5, num_validation: int = 5) -> Split:
    """Each user's newest `num_test` rows for test, the `num_validation` before them for validation.

    A user without at least one row more than these keeps all of them in train.
    """
    rows = _first_uses(dataset)
    user_N = dataset.user_index[rows]
    size_U = np.bincount(user_N, minlength=dataset.num_users)
    left_N = np.cumsum(size_U)[user_N] - np.arange(
        len(rows)
    )  # rows of the user from here on, this one included
    enough_N = size_U[user_N] > num_test + num_validation
    test_N = enough_N & (left_N <= num_test)
    validation_N = enough_N & ~test_N & (left_N <= num_test + num_validation)
    return _split(dataset, rows, validation_N, test_N)


def global_cutoff(dataset: Dataset, share: float = 0.8) -> GlobalCutoff:
    """Test is every row at or after the moment before which `share` of all rows lie."""
    if not 0 < share < 1:
        raise DataError("share of the global cutoff", value=share, limit="between 0 and 1", mend="correct it")
    rows = _first_uses(dataset)
    time_N = dataset.timestamp_ms[rows]
    cutoff_ms = int(np.sort(time_N)[int(share * len(rows))])
    test_N = time_N >= cutoff_ms
    split = _split(dataset, rows, np.zeros(len(rows), np.bool_), test_N)
    has_test_U = split.test.lengths > 0
    warm = int((has_test_U & (split.train.lengths > 0)).sum())
    return GlobalCutoff(split, cutoff_ms, int(has_test_U.sum()), warm)


def _first_uses(dataset: Dataset) -> Int64:
    key_N = dataset.user_index.astype(np.int64) * dataset.num_items + dataset.item_index
    first_N: Int64 = np.sort(np.unique(key_N, return_index=True)[1])  # np.unique gives the first of equals
    return first_N


def _split(dataset: Dataset, rows: Int64, validation_N: Bool, test_N: Bool) -> Split:
    def histories(mask_N: Bool) -> Histories:
        chosen = rows[mask_N]
        sizes = np.bincount(dataset.user_index[chosen], minlength=dataset.num_users)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return Histories(
            offsets, dataset.item_index[chosen], dataset.timestamp_ms[chosen], dataset.slot[chosen],
            dataset.device_row[chosen],
        )  # fmt: skip

    return Split(
        train=histories(~validation_N & ~test_N),
        validation=histories(validation_N),
        test=histories(test_N),
        train_validation=histories(~test_N),
    )
