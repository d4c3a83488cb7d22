"""What a step of the two-tower learns from: examples of (items before, target), and the items that stand against them.

Rows come from example files, which training streams; here they become bags of table rows. Everything drawn is a function
of a generator that the caller seeds for the step, so that any step can be repeated alone.

Shape letters: B examples of one rank's step, M items of it, V items of all histories, I catalogue.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tastemaker.features.columns import HISTORY, ItemColumns, share_of_history
from tastemaker.features.context import ContextTable, context_bags, context_rows
from tastemaker.features.negatives import NegativeSampler
from tastemaker.features.ragged import ranges
from tastemaker.features.ranking_batch import Bag
from tastemaker.features.rejected import Rejected
from tastemaker.types import Float32, Int32, Int64

HISTORY_COLUMN, TARGET_COLUMN, REJECTED_COLUMN = "history", "target", "rejected"
TIME_COLUMN, DEVICE_COLUMN = "timestamp_ms", "device"
EXAMPLE_COLUMNS = (HISTORY_COLUMN, TARGET_COLUMN, TIME_COLUMN, DEVICE_COLUMN, REJECTED_COLUMN)


class RetrievalBatch(NamedTuple):
    """One rank's step: B queries, and M items of which the first B are the targets and the rest negatives.

    `step` counts all steps before it. `log_q_M` is the log of how often each item is expected among its kind in a batch: what logQ correction takes off
    its logit. `owner_M` is the one query that an item stands against, -1 where all.
    """

    query_bags: dict[str, Bag]
    item_bags: dict[str, Bag]
    item_M: Int64
    log_q_M: Float32
    owner_M: Int64
    step: int = 0


class ExampleBatches:
    """Makes batches of example rows. Thread-safe.

    Args:
        columns: Of the catalogue.
        sampler: Of what stands against the targets.
        half_life: Of the weights in the query's bag, in items.
        max_history: Newest items that a query has at most.
        context: Of the request's context, what a query reads. Of past events time and device are known.
    """

    def __init__(
        self,
        columns: ItemColumns,
        sampler: NegativeSampler,
        half_life: float | None,
        max_history: int,
        context: Sequence[ContextTable] = (),
    ) -> None:
        self._context = tuple(context)
        self._columns, self._sampler, self._max_history = columns, sampler, max_history
        shares = [share_of_history(length, half_life) for length in range(max_history + 1)]
        self._shares = np.concatenate(shares)
        self._shares_at = np.cumsum([0, *(len(share) for share in shares[:-1])])

    def batch(
        self,
        rows: pa.Table,
        generator: np.random.Generator,
        step: int = 0,
        *,
        neighbour_IH: Int32 | None = None,
    ) -> RetrievalBatch:
        """The batch of some rows of `EXAMPLE_COLUMNS`; see `NegativeSampler.draw` for the rest."""
        target_B = rows[TARGET_COLUMN].to_numpy().astype(np.int64)
        rejected = Rejected(*_items_and_lengths(rows[REJECTED_COLUMN].combine_chunks()))
        sample = self._sampler.draw(generator, target_B, neighbour_IH=neighbour_IH, rejected=rejected)
        query_bags = {HISTORY: self.history_bag(rows[HISTORY_COLUMN].combine_chunks())}
        if self._context:
            found = context_rows(rows[TIME_COLUMN].to_numpy(), rows[DEVICE_COLUMN].to_numpy())
            query_bags |= context_bags(self._context, found)
        item_bags = self._columns.item_bags(sample.item_M)
        return RetrievalBatch(query_bags, item_bags, sample.item_M, sample.log_q_M, sample.owner_M, step)

    def history_bag(self, histories: Any) -> Bag:
        """A list array of histories as bags whose weights, by recency, sum to 1."""
        items_V, lengths = _items_and_lengths(histories)
        kept = np.minimum(lengths, self._max_history)
        if len(items_V) > kept.sum():
            ends = np.cumsum(lengths)
            items_V = items_V[ranges(ends - kept, kept)]
        return Bag(items_V, kept, self._shares[ranges(self._shares_at[kept], kept)])


def _items_and_lengths(lists: Any) -> tuple[Int64, Int64]:
    """The items of all lists of a list array, end to end, and how many each has."""
    return lists.flatten().to_numpy().astype(np.int64), lists.value_lengths().to_numpy().astype(np.int64)
