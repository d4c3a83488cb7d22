"""One catalogue's vectors as several indexes of ranges of its rows, whose results are merged. Not for where those run.

A part is a `Shard`; who holds one answers `Shard.search` in the catalogue's rows, and `merge_top` makes one answer of all
parts', wherever they were asked.

Shape letters: B requests, I catalogue, D dimension, K results, S shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from tastemaker.errors import ConfigError
from tastemaker.index.building import build_index
from tastemaker.index.config import IndexConfig
from tastemaker.index.rules import Allowed, of_request
from tastemaker.index.vector_index import VectorIndex
from tastemaker.types import Bool, Float32, Int32

Found = tuple[Int32, Float32]
"""Rows and scores (B, K), see `FaissIndex.search`."""


def row_ranges(num_items: int, num_shards: int) -> list[range]:
    """The rows of each shard: ranges in order, whose lengths differ by at most 1.

    Raises:
        ConfigError: There are more shards than items.

    >>> row_ranges(7, 3)
    [range(0, 3), range(3, 5), range(5, 7)]
    """
    if not 0 < num_shards <= num_items:
        raise ConfigError("shards of an index", value=num_shards, limit=f"1 to {num_items}, its items")
    size, more = divmod(num_items, num_shards)
    begins = [shard * size + min(shard, more) for shard in range(num_shards + 1)]
    return [range(begin, end) for begin, end in pairwise(begins)]


class ShardOf(NamedTuple):
    """One of the shards of a catalogue, counted from 0."""

    number: int
    num_shards: int

    def rows(self, num_bundle: int) -> range:
        """Its rows of a bundle of so many items.

        Raises:
            ConfigError: There are more shards than items.
        """
        return row_ranges(num_bundle, self.num_shards)[self.number]


@dataclass(frozen=True, slots=True)
class Shard:
    """An index of some of the catalogue's rows, from `first_row` on."""

    index: VectorIndex
    first_row: int

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> Found:
        """The k best of this shard's items, in the catalogue's rows; `allowed` and `exclude` are of the catalogue."""
        begin, end = self.first_row, self.first_row + self.index.num_items
        masks = [of_request(allowed, b) for b in range(len(queries_BD))]
        own = None if allowed is None else [_part(mask, begin, end) for mask in masks]
        gone = None if exclude is None else [rows - begin for rows in exclude]
        rows_BK, score_BK = self.index.search(queries_BD, k, own, gone)
        return np.where(rows_BK < 0, -1, rows_BK + begin).astype(np.int32), score_BK


def _part(mask: Bool | None, begin: int, end: int) -> Bool | None:
    """What a mask says of some rows; None where it allows all of them: searching without one is quicker."""
    own = None if mask is None else mask[begin:end]
    return None if own is None or own.all() else own


def merge_top(parts: Sequence[Found], k: int) -> Found:
    """The k best of several answers to the same requests; ties go by row, and -1 with -inf fills the end.

    >>> one = np.array([[4, 0]], np.int32), np.array([[0.9, 0.5]], np.float32)
    >>> two = np.array([[7, -1]], np.int32), np.array([[0.7, -np.inf]], np.float32)
    >>> merge_top([one, two], 3)[0].tolist()
    [[4, 7, 0]]
    """
    rows_BM = np.concatenate([rows for rows, _ in parts], axis=1)
    score_BM = np.concatenate([scores for _, scores in parts], axis=1)
    best_BK = np.lexsort((rows_BM, -score_BM), axis=1)[:, :k]
    rows_BK, score_BK = np.take_along_axis(rows_BM, best_BK, 1), np.take_along_axis(score_BM, best_BK, 1)
    missing = ((0, 0), (0, k - rows_BK.shape[1]))
    return np.pad(rows_BK, missing, constant_values=-1), np.pad(score_BK, missing, constant_values=-np.inf)


class ShardedIndex:
    """A `VectorIndex` of shards in one process, asked one after the other.

    Args:
        shards: Of consecutive rows, from 0 on.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        ends = np.cumsum([shard.index.num_items for shard in shards])
        assert [shard.first_row for shard in shards] == [0, *ends[:-1]], "consecutive shards"
        self.shards, self.num_items = tuple(shards), int(ends[-1])

    @classmethod
    def build(cls, vectors_ID: Float32, num_shards: int, config: IndexConfig) -> "ShardedIndex":
        """Shards of about equal size, each with an index of `config`.

        Raises:
            ConfigError: There are more shards than items.
            BundleError: See `FaissIndex.build`.
        """
        ranges = row_ranges(len(vectors_ID), num_shards)
        return cls([Shard(build_index(vectors_ID[r.start : r.stop], config).index, r.start) for r in ranges])

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.shards[0].index.dim

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> Found:
        """See `FaissIndex.search`."""
        return merge_top([shard.search(queries_BD, k, allowed, exclude) for shard in self.shards], k)

    def vectors(self) -> Float32:
        """All vectors (I, D), read-only: a copy of the shards', made when first asked for."""
        return self._all

    @cached_property
    def _all(self) -> Float32:
        vectors_ID = np.concatenate([shard.index.vectors() for shard in self.shards])
        vectors_ID.setflags(write=False)
        return vectors_ID
