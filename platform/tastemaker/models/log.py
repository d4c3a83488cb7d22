"""What models learn from and whom they are asked for: logs, askers, and what may stand in their lists.

Shape letters: N rows of a log, U users, I items, J some of them, B askers, L history.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from tastemaker.errors import DataError
from tastemaker.types import Bool, Float32, Int32, Int64

NOBODY = -1
"""In place of a user's row: somebody who was not in the log."""
_MOST_ITEMS = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True)
class Log:
    """What a model learns from: who had which item, how much it was worth, and when.

    Rows are sorted by user, then time (ties in the order in which they were given). `value_N` is a rating or a weight;
    `items` and `users`, where given, have one row for each item and each user: what is known of them beside the log.
    """

    num_users: int
    num_items: int
    user_N: Int32
    item_N: Int32
    value_N: Float32
    timestamp_ms_N: Int64
    items: pa.Table | None = None
    users: pa.Table | None = None

    @classmethod
    def of(
        cls,
        user_N: Int32,
        item_N: Int32,
        *,
        num_users: int,
        num_items: int,
        value_N: Float32 | None = None,
        timestamp_ms_N: Int64 | None = None,
        items: pa.Table | None = None,
        users: pa.Table | None = None,
    ) -> "Log":
        """A log of rows in any order; values are 1 and times 0 where they are not given.

        Raises:
            DataError: Columns of unequal length, a row out of range, a value that is not finite, or a table of items or users
                that has not a row for each.
        """
        user_N, item_N = np.asarray(user_N), np.asarray(item_N)
        num_rows = len(user_N)
        value_N = np.ones(num_rows, np.float32) if value_N is None else np.asarray(value_N, np.float32)
        times_N = (
            np.zeros(num_rows, np.int64) if timestamp_ms_N is None else np.asarray(timestamp_ms_N, np.int64)
        )
        if not num_rows == len(item_N) == len(value_N) == len(times_N):
            raise DataError("columns of a log differ in length", mend="give one value of each a row")
        for name, rows_N, limit in (("user", user_N, num_users), ("item", item_N, num_items)):
            if num_rows and not (rows_N.min() >= 0 and rows_N.max() < limit):
                raise DataError(
                    f"{name} row of a log", value=f"{rows_N.min()} to {rows_N.max()}", limit=f"0 to {limit - 1}",
                    mend="number them from 0",
                )  # fmt: skip
        if not np.isfinite(value_N).all():
            raise DataError("a value of a log is not finite", mend="leave such rows out")
        for name, table, size in (("items", items, num_items), ("users", users, num_users)):
            if table is not None and table.num_rows != size:
                raise DataError(
                    f"rows of the table of {name} of a log", value=table.num_rows, limit=size,
                    mend="give one row for each",
                )  # fmt: skip
        order_N = np.lexsort((times_N, user_N))
        return cls(
            num_users, num_items, user_N[order_N].astype(np.int32), item_N[order_N].astype(np.int32),
            value_N[order_N], times_N[order_N], items, users,
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.user_N)

    @property
    def offsets(self) -> Int64:
        """(U + 1,) where each user's rows begin."""
        return np.searchsorted(self.user_N, np.arange(self.num_users + 1)).astype(np.int64)

    def histories(self) -> list[Int32]:
        """Each user's items, oldest first."""
        return _cut(self.item_N, self.offsets)

    def matrix(self, *, values: bool = False) -> sp.csr_matrix:
        """(U, I) float32: 1 where a user has an item, or the sum of its values."""
        data_N = self.value_N if values else np.ones(len(self), np.float32)
        matrix = _of_rows(self.offsets, self.item_N, data_N, self.num_items)
        if not values:
            matrix.data[:] = 1.0
        return matrix


@dataclass(frozen=True, slots=True)
class Askers:
    """Whom lists are for. A model uses what it knows how to use, the row or the history.

    `row_B` is the user's row in the log, `NOBODY` for others. Histories are rows of items, oldest first; rows out of the
    catalogue's range stand for items that nobody knows and are passed over. `values` are what each item of the histories
    was worth, in the log's units, and NaN where that is not known; unset, none is. `attributes` has a row for each asker
    of what else is known of them, with the columns of the log's table of users.
    """

    row_B: Int32
    histories: Sequence[Int32]
    values: Sequence[Float32] | None = None
    attributes: pa.Table | None = None

    def __post_init__(self) -> None:
        """Own invariant: one history for each row, one value for each item, one row of attributes for each row."""
        assert len(self.row_B) == len(self.histories)
        assert self.attributes is None or self.attributes.num_rows == len(self.row_B)
        assert self.values is None or [*map(len, self.values)] == [*map(len, self.histories)]

    def __len__(self) -> int:
        return len(self.row_B)

    def __getitem__(self, at: slice) -> "Askers":
        values = None if self.values is None else self.values[at]
        return Askers(
            self.row_B[at], self.histories[at], values, self._attributes_at(np.arange(len(self))[at])
        )

    @classmethod
    def known(cls, log: Log, user_B: Int32 | None = None) -> "Askers":
        """Users of a log with the histories that they have in it; all of them where none are named."""
        user_B = np.arange(log.num_users, dtype=np.int32) if user_B is None else user_B
        offsets = log.offsets
        rows = [slice(offsets[user], offsets[user + 1]) for user in user_B]
        told = None if log.users is None else log.users.take(user_B)
        return cls(user_B, [log.item_N[row] for row in rows], [log.value_N[row] for row in rows], told)

    @classmethod
    def strangers(cls, histories: Sequence[Int32], attributes: pa.Table | None = None) -> "Askers":
        """People who were not in the log, of whom no more than a history, and attributes where given, is known."""
        return cls(np.full(len(histories), NOBODY, np.int32), histories, attributes=attributes)

    def without(self, place: Int64) -> tuple[Int64, "Askers"]:
        """All but those at some places: where they are among these, and themselves."""
        left = np.setdiff1d(np.arange(len(self)), place)
        values = None if self.values is None else [self.values[at] for at in left]
        histories = [self.histories[at] for at in left]
        return left, Askers(self.row_B[left], histories, values, self._attributes_at(left))

    def _attributes_at(self, place: Int64) -> pa.Table | None:
        return None if self.attributes is None else self.attributes.take(place)

    def users(self, num_users: int) -> tuple[Int64, Int32]:
        """Those who have a row in a log of so many users: their places among the askers, and their rows."""
        place = np.flatnonzero((self.row_B >= 0) & (self.row_B < num_users))
        return place, self.row_B[place]

    def taken(self, num_items: int) -> tuple[Int64, Int32, Float32]:
        """All known items of the histories, end to end: whose they are (a place), which, and their values or NaN."""
        place_N = np.repeat(np.arange(len(self)), [len(history_L) for history_L in self.histories])
        item_N = _joined(self.histories, np.int32)
        values = np.full(len(item_N), np.nan, np.float32)
        if self.values is not None:
            values = _joined(self.values, np.float32)
        known_N = (item_N >= 0) & (item_N < num_items)
        if known_N.all():  # as nearly always: nothing need be copied
            return place_N, item_N, values
        return place_N[known_N], item_N[known_N], values[known_N]

    def matrix(self, num_items: int) -> sp.csr_matrix:
        """(B, I) float32: 1 where an asker has an item."""
        place_N, item_N, _ = Askers(self.row_B, self.histories).taken(num_items)  # no values need be joined
        begin_B1 = np.searchsorted(place_N, np.arange(len(self) + 1))
        found = _of_rows(begin_B1, item_N, np.ones(len(item_N), np.float32), num_items)
        found.data[:] = 1.0
        return found


@dataclass(frozen=True, slots=True)
class Filters:
    """What may stand in a list.

    `exclude_seen` leaves out the history, `exclude` rows of each asker, `allowed_I` all that it does not name.
    """

    exclude_seen: bool = True
    exclude: Sequence[Int32] | None = None
    allowed_I: Bool | None = None

    def block(self, score_BJ: Float32, askers: Askers, begin: int = 0, first: int = 0) -> None:
        """Sets to -inf what may not stand in the lists of `askers`, the first of whom is asker `begin` of `exclude`.

        Scores are of the items from `first` on, or of some of these.
        """
        self.blocking(askers, begin)(score_BJ, first)

    def blocking(self, askers: Askers, begin: int = 0) -> Callable[[Float32, int], None]:
        """`block` of such askers, for scores and the item that they are of first: ranges share what is found of the askers."""
        gone = [Askers(askers.row_B, askers.histories)] if self.exclude_seen else []
        if self.exclude is not None:
            gone.append(Askers(askers.row_B, self.exclude[begin : begin + len(askers)]))
        pairs = [one.taken(_MOST_ITEMS)[:2] for one in gone]

        def block(score_BJ: Float32, first: int) -> None:
            end = first + score_BJ.shape[1]
            if self.allowed_I is not None:
                score_BJ[:, ~self.allowed_I[first:end]] = -np.inf
            for place_N, item_N in pairs:
                inside_N = (item_N >= first) & (item_N < end)
                inside = (
                    slice(None) if inside_N.all() else inside_N
                )  # the whole catalogue's scores: no copies
                score_BJ[place_N[inside], item_N[inside] - first] = -np.inf

        return block


def _of_rows(begin_R1: Int64, item_N: Int32, data_N: Float32, num_items: int) -> sp.csr_matrix:
    """(R, I) of rows end to end, in the order of the items, what a row has twice summed."""
    shape = (len(begin_R1) - 1, num_items)
    if len(item_N) > num_items:  # turned twice, which sorts in linear time
        found = sp.csr_matrix((data_N, item_N, begin_R1), shape).tocsc().tocsr()
    else:
        found = sp.csr_matrix((data_N.copy(), item_N.copy(), begin_R1), shape)
    found.sum_duplicates()
    return found


def known_rows(history_L: Int32, num_items: int) -> Int32:
    """The rows of a history that are items of the catalogue, in its order."""
    rows = np.asarray(history_L, np.int32)
    return rows[(rows >= 0) & (rows < num_items)]


def each_once(history_L: Int32) -> Int32:
    """A history with each item once, at its newest place.

    >>> each_once(np.array([7, 5, 7, 9], np.int32)).tolist()
    [5, 7, 9]
    """
    _, back_K = np.unique(history_L[::-1], return_index=True)
    if len(back_K) == len(history_L):
        return history_L
    return history_L[np.sort(len(history_L) - 1 - back_K)]


def newest_places(history_L: Int32) -> tuple[Int32, Int64]:
    """A history with each item once, in the order of their newest places; and to which of these each place belongs.

    >>> item_K, of_L = newest_places(np.array([7, 5, 7, 9], np.int32))
    >>> item_K.tolist(), of_L.tolist()
    ([5, 7, 9], [1, 0, 1, 2])
    """
    item_K, back_K, of_L = np.unique(history_L[::-1], return_index=True, return_inverse=True)
    order_K = np.argsort(-back_K)
    rank_K = np.empty_like(order_K)
    rank_K[order_K] = np.arange(len(order_K))
    return item_K[order_K], rank_K[of_L[::-1]]


def _cut(row_N: Int32, offsets: Int64) -> list[Int32]:
    return [row_N[begin:end] for begin, end in pairwise(offsets)]


def _joined(parts: Sequence[Any], kind: type[np.generic]) -> Any:
    return np.concatenate([*parts, np.empty(0, kind)]).astype(kind, copy=False)
