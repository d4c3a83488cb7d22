"""What a source of candidates is, and how the hard rules stand in its lists.

Not for how sources are merged: see `retrieval`.

Shape letters: B requests, K candidates, N rows at hand, I catalogue.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tastemaker.types import Bool, Float32, Int32, Query


class Asked(Protocol):
    """A source with one batch of queries already encoded. Used by one thread at a time."""

    def propose(self, k: int) -> tuple[Int32, Float32]:
        """The k best rows that the hard rules allow, (B, k), best first with their scores.

        Where a source has fewer, -1 and -inf fill the end.
        """
        ...

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        """Scores of given rows, one array per query; NaN where the source has nothing to say."""
        ...


class Source(ABC):
    """What proposes candidates. Sources are immutable and may be asked from several threads.

    `is_light` says that it answers from lists at hand, by no search that could take long.
    """

    name: str
    needs_history: bool = True
    is_light: bool = False

    @abstractmethod
    def ask(self, queries: Sequence[Query]) -> Asked:
        """Encodes the queries, once for both proposing and scoring."""

    def propose(self, queries: Sequence[Query], k: int) -> tuple[Int32, Float32]:
        """See `Asked.propose`."""
        return self.ask(queries).propose(k)

    def score(self, queries: Sequence[Query], items: Sequence[Int32]) -> list[Float32]:
        """See `Asked.score`."""
        return self.ask(queries).score(items)


class AskedLists:
    """For each query rows, each once, and their scores; all other items score 0.

    `known_B` says which queries the source can answer; it proposes only rows that score above `least`. Of equal scores the row
    that is listed first comes first.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        lists: Sequence[tuple[Int32, Float32]],
        known_B: Bool | None = None,
        least: float = -np.inf,
    ) -> None:
        self._queries, self._lists, self._least = queries, lists, least
        self._known_B = np.ones(len(queries), bool) if known_B is None else known_B

    def propose(self, k: int) -> tuple[Int32, Float32]:
        """See `Asked.propose`."""
        found = []
        for query, (row_N, score_N), known in zip(self._queries, self._lists, self._known_B, strict=True):
            speaks_N = (score_N > self._least) & known
            found.append(best_allowed(row_N[speaks_N], score_N[speaks_N], query, k))
        return filled(found, k)

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        """See `Asked.score`."""
        return [
            looked_up(row_K, *listed) if known else np.full(len(row_K), np.nan, np.float32)
            for row_K, listed, known in zip(items, self._lists, self._known_B, strict=True)
        ]


def has_history(queries: Sequence[Query]) -> Bool:
    """Which queries (B,) have one."""
    return np.array([len(query.history_L) > 0 for query in queries], bool)


def forbidden(query: Query) -> Int32:
    """Rows that the query's lists forbid, repeats included; `query.allowed` stands beside it."""
    return np.concatenate((query.exclude, query.history_L)) if query.exclude_seen else query.exclude


def best_allowed(row_N: Int32, score_N: Float32, query: Query, k: int) -> tuple[Int32, Float32]:
    """The at most k best of some rows, each once, that the hard rules allow; ties in the order given.

    >>> query = Query(history_L=np.array([7], np.int32), allowed=np.arange(10) != 5)
    >>> rows, scores = best_allowed(np.array([7, 5, 2, 9], np.int32), np.array([9, 8, 1, 3], np.float32), query, 3)
    >>> rows.tolist(), scores.tolist()
    ([9, 2], [3.0, 1.0])
    """
    if query.allowed is not None:
        allowed_N = row_N < len(query.allowed)  # a list may be of more items than a query knows
        allowed_N[allowed_N] = query.allowed[row_N[allowed_N]]
        row_N, score_N = row_N[allowed_N], score_N[allowed_N]
    gone = forbidden(query)
    enough = k + len(gone)
    if len(row_N) > enough:
        border = np.partition(score_N, len(score_N) - enough)[len(score_N) - enough]
        near_N = score_N >= border  # all ties at the border: the first of them stay
        row_N, score_N = row_N[near_N], score_N[near_N]
    if len(gone):
        gone = np.sort(gone)
        kept_N = gone[np.minimum(np.searchsorted(gone, row_N), len(gone) - 1)] != row_N
        row_N, score_N = row_N[kept_N], score_N[kept_N]
    order = np.argsort(-score_N, kind="stable")[:k]
    return row_N[order].astype(np.int32, copy=False), score_N[order].astype(np.float32, copy=False)


def top_allowed(score_I: Float32, query: Query, k: int, least: float = -np.inf) -> tuple[Int32, Float32]:
    """The at most k best rows above `least` that the query's hard rules allow, with their scores; ties by row.

    It looks at the whole catalogue: for sources that have its scores at hand anyhow.
    """
    rows = np.flatnonzero(score_I > least).astype(np.int32)
    return best_allowed(rows, score_I[rows], query, k)


def filled(found: Sequence[tuple[Int32, Float32]], k: int) -> tuple[Int32, Float32]:
    """Lists of at most k rows and scores as (B, k), -1 and -inf at the ends."""
    row_BK = np.full((len(found), k), -1, np.int32)
    score_BK = np.full((len(found), k), -np.inf, np.float32)
    for b, (row_N, score_N) in enumerate(found):
        row_BK[b, : len(row_N)], score_BK[b, : len(row_N)] = row_N, score_N
    return row_BK, score_BK


def looked_up(row_K: Int32, row_N: Int32, score_N: Float32) -> Float32:
    """The scores (K,) of some rows in a list, 0 for those that are not in it.

    >>> looked_up(np.array([4, 1, 8]), np.array([8, 4]), np.array([0.5, 0.25], np.float32)).tolist()
    [0.25, 0.0, 0.5]
    """
    if not len(row_N):
        return np.zeros(len(row_K), np.float32)
    order_N = np.argsort(row_N, kind="stable")
    place_K = np.minimum(np.searchsorted(row_N, row_K, sorter=order_N), len(row_N) - 1)
    at_K = order_N[place_K]
    found_K: Float32 = np.where(row_N[at_K] == row_K, score_N[at_K], np.float32(0))
    return found_K
