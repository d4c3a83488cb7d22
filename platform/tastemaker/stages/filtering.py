"""The hard rules as one final filter that no answer may skip, cached and popular lists included.

Retrieval already searches under the same rules, so that k results are k allowed ones; this filter is what guarantees them.
Not for soft rules: those live in reranking.

Shape letters: K candidates.
"""

from typing import Final

import numpy as np

from tastemaker.types import Bool, Candidates, Int32, Query

_ENOUGH: Final = 2
"""Times k, the first candidates that are looked at: mostly all may be shown."""


def permitted(query: Query, item_index_K: Int32) -> Bool:
    """Which of the items (K,) the query may be shown: first occurrences that no hard rule forbids.

    Forbidden are rows below 0 (padding), rows beyond `query.allowed` or not allowed by it, `query.exclude`, the history
    where `query.exclude_seen`, and every repetition of an item.

    >>> query = Query(history_L=np.array([3], np.int32), exclude=np.array([5], np.int32))
    >>> permitted(query, np.array([5, 4, 3, 4, -1, 2], np.int32)).tolist()
    [False, True, False, False, False, True]
    """
    keep_K = item_index_K >= 0
    if query.allowed is not None:
        inside_K = keep_K & (item_index_K < len(query.allowed))
        keep_K = inside_K.copy()
        keep_K[inside_K] = query.allowed[item_index_K[inside_K]]
    forbidden = np.concatenate([query.exclude, query.history_L]) if query.exclude_seen else query.exclude
    if len(forbidden):
        keep_K &= ~np.isin(item_index_K, forbidden)
    return keep_K & _first_occurrence(item_index_K)


def _first_occurrence(item_index_K: Int32) -> Bool:
    first_K = np.zeros(len(item_index_K), bool)
    first_K[np.unique(item_index_K, return_index=True)[1]] = True
    return first_K


def hard_filter(query: Query, candidates: Candidates) -> Candidates:
    """The candidates that `query` may be shown, in the order given, cut to `query.k`."""
    rows_K = candidates.item_index
    places = np.flatnonzero(permitted(query, rows_K[: _ENOUGH * query.k]))
    if len(places) < query.k < len(rows_K):  # what stands behind decides nothing of those before it
        places = np.flatnonzero(permitted(query, rows_K))
    return candidates.take(places[: query.k])
