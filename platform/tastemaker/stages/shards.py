"""Which rows of a catalogue a shard proposes: ranges of the bundle's, and of those behind them every so many-th.

Each row is proposed by one shard, so that what several say of a request can be put together. Ranges, not hashes: a range is one block of an
index's file and of a mask, and needs no table of which row is where.

Shape letter: I catalogue.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tastemaker.types import Bool, Int32, Query

if TYPE_CHECKING:
    from tastemaker.index.sharded import ShardOf


@dataclass(frozen=True)
class OwnRows:
    """The rows of one shard at one moment of a catalogue: `num_bundle` of a bundle, and others behind them up to `num_items`."""

    shard: "ShardOf"
    num_bundle: int
    num_items: int

    @cached_property
    def mask(self) -> Bool:
        """Which rows it proposes (I,), read-only."""
        own = self.shard.rows(self.num_bundle)
        mask: Bool = np.arange(self.num_items) % self.shard.num_shards == self.shard.number
        mask[: self.num_bundle] = False
        mask[own.start : own.stop] = True
        mask.setflags(write=False)
        return mask

    def only(self, query: Query) -> Query:
        """The query, in the rows of this moment, that allows own rows alone."""
        allowed_I = self.mask if query.allowed is None else self.mask & query.allowed
        return replace(query, allowed=allowed_I)

    def among(self, rows: Int32) -> Int32:
        """Rows of which those that are another's, or none, are -1; the others stay in their places."""
        known = (rows >= 0) & (rows < self.num_items)
        is_own = known & self.mask[np.where(known, rows, 0)]
        own: Int32 = np.where(is_own, rows, np.int32(-1))
        return own
