"""What one step of a ranker's training reads: candidates of whole requests, and what of them can be hidden.

Serving does not always know what training does: a request may say nothing of its context, a candidate has no slot yet,
a user's record may be missing. A share of the training's requests is therefore made like those.

Shape letters: B candidates of one batch, F dense features, T targets, G requests (groups), V values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tastemaker.types import Bool, Float32, Int32, Int64

POSITION, QUERY_PREFIX = "position", "query_"
"""Features that training hides at times, so that their row 0 is learned: the slot, and what a request's context says."""


class Bag(NamedTuple):
    """Bags of table rows end to end: the next `lengths[b]` of `values` are bag b's, each with its weight."""

    values: Int64
    lengths: Int64
    weights: Float32

    @classmethod
    def singles(cls, rows_B: Int32 | Int64) -> "Bag":
        """One bag of each row alone."""
        return cls(rows_B.astype(np.int64), np.ones(len(rows_B), np.int64), np.ones(len(rows_B), np.float32))

    @classmethod
    def concat(cls, parts: Sequence["Bag"]) -> "Bag":
        """The bags of all parts, in order."""
        return cls(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def times(self, number: int) -> "Bag":
        """The same bags, `number` times over."""
        values, lengths, weights = self
        return Bag(np.tile(values, number), np.tile(lengths, number), np.tile(weights, number))

    def kept(self, keep_B: Bool) -> "Bag":
        """The bags where `keep_B` is true."""
        keep_V = np.repeat(keep_B, self.lengths)
        return Bag(self.values[keep_V], self.lengths[keep_B], self.weights[keep_V])

    def padded(self, num_bags: int) -> "Bag":
        """The same bags, and empty ones up to `num_bags`."""
        missing = np.zeros(num_bags - len(self.lengths), np.int64)
        return Bag(self.values, np.concatenate([self.lengths, missing]), self.weights)


class RankingBatch(NamedTuple):
    """Whole requests, padded with empty candidates behind the last to a fixed B.

    `offsets_G1[g]:offsets_G1[g + 1]` are request g's candidates; what lies behind `offsets_G1[-1]` is padding. `weight_B` is how much
    each click counts; unset, all count alike.
    """

    dense_BF: Float32
    bags: dict[str, Bag]
    label_BT: Float32
    offsets_G1: Int64
    weight_B: Float32 | None = None

    def without_records(self, nobody_F: Float32, hidden_G: Bool) -> "RankingBatch":
        """The batch where the users of some requests are unknown, see `without_records`; padding stays."""
        hidden_B = np.zeros(len(self.dense_BF), np.bool_)
        hidden_B[: self.offsets_G1[-1]] = np.repeat(hidden_G, np.diff(self.offsets_G1))
        return self._replace(dense_BF=without_records(self.dense_BF, nobody_F, hidden_B))


def without_context(batch: RankingBatch, hidden_G: Bool) -> RankingBatch:
    """The batch with row 0 for context and position of the requests where `hidden_G` is true."""
    if not hidden_G.any():
        return batch
    hidden_B = np.repeat(hidden_G, np.diff(batch.offsets_G1))
    names = [name for name in batch.bags if name == POSITION or name.startswith(QUERY_PREFIX)]
    singles = {name: np.where(hidden_B, 0, batch.bags[name].values) for name in names}
    return batch._replace(
        bags=batch.bags | {name: batch.bags[name]._replace(values=rows) for name, rows in singles.items()}
    )


def without_records(dense_BF: Float32, nobody_F: Float32, hidden_B: Bool) -> Float32:
    """Dense features with those of a user of whom nothing is known where `hidden_B` is true.

    Args:
        dense_BF: As they are where the record is known.
        nobody_F: See `features.request_features.of_nobody`; NaN for features that a record does not change.
        hidden_B: Candidates whose user is to be unknown; all of a request, or none.
    """
    return np.where(hidden_B[:, None] & ~np.isnan(nobody_F), nobody_F, dense_BF)
