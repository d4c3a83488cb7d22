"""What users were shown: the impressions of a dataset's users and items, and the slots of those behind some requests.

Not for what users left of it (`rejected`).

Shape letters: N impressions, P pairs of a user and an item, U users, K candidates of one request.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.data.schema import Column, Dataset, slots_of
from tastemaker.data.splits import Histories
from tastemaker.types import Int32, Int64


class Impressions(NamedTuple):
    """Impressions in the order of the log, by rows of the dataset; a slot of 0 is unknown."""

    user_N: Int64
    item_N: Int64
    timestamp_ms_N: Int64
    slot_N: Int64

    @classmethod
    def of(cls, interactions: pa.Table, dataset: Dataset) -> "Impressions":
        """The impressions among rows with `INTERACTIONS_SCHEMA`, without users and items that the dataset lacks."""
        shown = interactions.filter(pc.equal(interactions[Column.KIND], pa.scalar("impression")))
        user_N = pc.index_in(shown[Column.USER_ID], pa.array(dataset.user_ids, pa.string()))
        item_N = pc.index_in(shown[Column.ITEM_ID], pa.array(dataset.item_ids, pa.string()))
        known = pc.and_(pc.is_valid(user_N), pc.is_valid(item_N))
        columns = (user_N, item_N, shown[Column.TIMESTAMP_MS], slots_of(shown))
        return cls(*(pc.filter(column, known).to_numpy().astype(np.int64) for column in columns))


@dataclass(frozen=True, slots=True)
class Slots:
    """Where the candidates of each user's request were shown.

    A request is what a user was shown after the last item `before` and until the last that was `taken`. Of several slots
    of an item the one in which it was taken counts, else the first.
    """

    taken: Histories
    num_items: int
    pair_P: Int64
    slot_P: Int64

    @classmethod
    def of(cls, interactions: pa.Table, dataset: Dataset, before: Histories, taken: Histories) -> Self:
        """The slots of the dataset's users.

        Args:
            interactions: Rows with `INTERACTIONS_SCHEMA`, impressions among them.
            dataset: Of the same rows; its users and items are those of the histories.
            before: What each user had when asking.
            taken: What each user took then.
        """
        seen = Impressions.of(interactions, dataset)
        after = seen.timestamp_ms_N > _last_ms(before)[seen.user_N]
        within = after & (seen.timestamp_ms_N <= _last_ms(taken)[seen.user_N])
        order = np.flatnonzero(within)[np.argsort(seen.timestamp_ms_N[within], kind="stable")]
        assert taken.slot is not None, "what was taken comes from a dataset"
        user = np.concatenate([taken.user_index, seen.user_N[order]])
        item = np.concatenate([taken.item_index, seen.item_N[order]])
        slot = np.concatenate([taken.slot, seen.slot_N[order]])
        pair_P, first = np.unique(_pairs(user, item, dataset.num_items)[slot > 0], return_index=True)
        return cls(taken, dataset.num_items, pair_P, slot[slot > 0][first])

    @property
    def num_left(self) -> int:
        """How many pairs have a slot though the item was not taken."""
        pairs = _pairs(self.taken.user_index, self.taken.item_index, self.num_items)
        return int((~np.isin(self.pair_P, pairs)).sum())

    def __call__(self, user: int, item_K: Int32) -> Int64:
        """The slot (K,) of each candidate of the user's request, from 1; 0 where it is unknown.

        All are unknown where no candidate that was left has one: a slot would then tell that its item was taken.
        """
        pair_K = user * self.num_items + item_K.astype(np.int64)
        at_K = np.searchsorted(self.pair_P, pair_K)
        known_K = np.append(self.pair_P, -1)[at_K] == pair_K
        slot_K = np.where(known_K, np.append(self.slot_P, 0)[at_K], 0)
        left_K = ~np.isin(item_K, self.taken[user])
        return slot_K if slot_K[left_K].any() else np.zeros_like(slot_K)


def _last_ms(histories: Histories) -> Int64:
    """When each user had the last item (U,); -1 where there is none."""
    assert histories.timestamp_ms is not None, "histories of a dataset have times"
    last_U = np.full(len(histories), -1, np.int64)
    has_U = histories.lengths > 0
    last_U[has_U] = histories.timestamp_ms[histories.offsets[1:][has_U] - 1]
    return last_U


def _pairs(user: Int32 | Int64, item: Int32 | Int64, num_items: int) -> Int64:
    pair_P: Int64 = user.astype(np.int64) * num_items + item
    return pair_P
