"""What the two-tower learns from: each item of a history as target, given only the items before it.

Batches are a function of (seed, epoch, rank): any rank can be replayed alone. Negatives are drawn by popularity^0.75
[Mikolov et al. 2013] among items that some example targets.

Shape letters: B examples of one rank's step, N negatives, M = B + N items, E examples, I catalogue.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tastemaker.data.splits import Histories
from tastemaker.errors import DataError
from tastemaker.features.columns import HISTORY, ItemColumns, share_of_history
from tastemaker.features.ragged import ranges
from tastemaker.features.ranking_data import Bag
from tastemaker.types import Float32, Int64

NEGATIVE_POWER = 0.75


class RetrievalBatch(NamedTuple):
    """One rank's step: B queries, and M items of which the first B are the targets and the rest negatives.

    `log_q_M` is the log of how often each item is expected among its kind in a batch: what logQ correction takes off
    its logit.
    """

    query_bags: dict[str, Bag]
    item_bags: dict[str, Bag]
    item_M: Int64
    log_q_M: Float32


class Examples:
    """All (items before, target) pairs of some histories.

    Args:
        histories: Oldest first. Histories of one item give no example.
        columns: Of the catalogue that the histories are rows of.
        half_life: Of the weights in the query's bag, in items.
        max_history: Newest items that a query has at most.

    Raises:
        DataError: No history has two items.
    """

    def __init__(
        self, histories: Histories, columns: ItemColumns, half_life: float | None, max_history: int
    ) -> None:
        at = np.arange(len(histories.item_index))
        start = np.repeat(histories.offsets[:-1], histories.lengths)
        self._items = histories.item_index
        self._at_E = at[at > start]
        if not len(self._at_E):
            raise DataError(
                "histories of two items or more", value=0, limit="at least 1", mend="import more events"
            )
        self._begin_E = np.maximum(start[at > start], self._at_E - max_history)
        self._columns = columns
        shares = [share_of_history(length, half_life) for length in range(max_history + 1)]
        self._shares = np.concatenate(shares)
        self._shares_at = np.cumsum([0, *(len(share) for share in shares[:-1])])
        count_I = np.bincount(self._items[self._at_E], minlength=len(columns)).astype(np.float64)
        self._frequency_I = count_I / count_I.sum()
        self._sampling_I = count_I**NEGATIVE_POWER / (count_I**NEGATIVE_POWER).sum()
        self._cumulative_I = np.cumsum(self._sampling_I)

    def __len__(self) -> int:
        return len(self._at_E)

    def num_steps(self, batch_size: int, num_ranks: int = 1) -> int:
        """Steps of an epoch: whole batches only, and at least one."""
        return max(len(self) // self._global_batch(batch_size, num_ranks), 1)

    def batches(
        self, *, seed: int, epoch: int, batch_size: int, num_negatives: int, rank: int = 0, num_ranks: int = 1
    ) -> Iterator[RetrievalBatch]:
        """One epoch of one rank's batches; the ranks' examples are disjoint and all ranks get equally many.

        Args:
            seed: Of the run.
            epoch: From 0; each has an order of its own.
            batch_size: Examples of a step, all ranks together; a smaller number of examples makes it smaller.
            num_negatives: Sampled items that this rank adds to a step.
            rank: This rank.
            num_ranks: All ranks.
        """
        size = self._global_batch(batch_size, num_ranks)
        order = np.random.default_rng((seed, epoch)).permutation(len(self))
        negatives = np.random.default_rng((seed, epoch, rank + 1))
        each = size // num_ranks
        for step in range(self.num_steps(batch_size, num_ranks)):
            begin = step * size + rank * each
            yield self._batch(order[begin : begin + each], negatives.random(num_negatives))

    def _global_batch(self, batch_size: int, num_ranks: int) -> int:
        size = min(batch_size, len(self)) // num_ranks * num_ranks
        if size == 0:
            raise DataError(
                "examples of a step", value=min(batch_size, len(self)), limit=f"at least one for each of {num_ranks} ranks",
                mend="use fewer workers or a larger batch_size",
            )  # fmt: skip
        return size

    def _batch(self, examples_B: Int64, draws_N: np.ndarray) -> RetrievalBatch:
        target_B = self._items[self._at_E[examples_B]].astype(np.int64)
        negative_N = np.searchsorted(self._cumulative_I, draws_N * self._cumulative_I[-1], side="right")
        item_M = np.concatenate([target_B, negative_N])
        log_q_M = np.concatenate(
            [
                np.log(len(target_B) * self._frequency_I[target_B]),
                np.log(len(negative_N) * self._sampling_I[negative_N]),
            ]
        ).astype(np.float32)
        query_bags = {HISTORY: self.history_bag(examples_B)}
        return RetrievalBatch(query_bags, self._columns.item_bags(item_M), item_M, log_q_M)

    def history_bag(self, examples_B: Int64) -> Bag:
        """The items before each example's target, with weights that sum to 1."""
        lengths = self._at_E[examples_B] - self._begin_E[examples_B]
        at = ranges(self._begin_E[examples_B], lengths)
        return Bag(
            self._items[at].astype(np.int64), lengths, self._shares[ranges(self._shares_at[lengths], lengths)]
        )
