"""The hard rules as one final filter that no answer may skip, cached and popular lists included.

Retrieval already searches under the same rules, so that k results are k allowed ones; this filter is what guarantees them.
Not for soft rules: those live in reranking.

Shape letters: K candidates.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from tastemaker.types import Bool, Candidates, Int32, Query

_ENOUGH: Final = 2
"""Times k, the first candidates that are looked at: mostly all may be shown."""
_MANY: Final = 2000
"""So many forbidden rows are narrowed to the candidates' by arrays first: of 40 candidates that takes 34 us, as a set of all does, and of 20,000
rows 80 us instead of 870; below, the set is faster (50 rows: 4 us instead of 17)."""


def permitted(query: Query, item_index_K: Int32) -> Bool:
    """Which of the items (K,) the query may be shown: first occurrences that no hard rule forbids.

    Forbidden are rows below 0 (padding), rows beyond `query.allowed` or not allowed by it, `query.exclude`, the history
    where `query.exclude_seen`, and every repetition of an item.

    >>> query = Query(history_L=np.array([3], np.int32), exclude=np.array([5], np.int32))
    >>> permitted(query, np.array([5, 4, 3, 4, -1, 2], np.int32)).tolist()
    [False, True, False, False, False, True]
    >>> permitted(query, np.array([], np.int32)).tolist()
    []
    """
    keep_K = item_index_K >= 0
    if query.allowed is not None:
        inside_K = keep_K & (item_index_K < len(query.allowed))
        keep_K = inside_K.copy()
        keep_K[inside_K] = query.allowed[item_index_K[inside_K]]
    keep_K &= np.array(_new_and_not_of(_forbidden(query, item_index_K), item_index_K.tolist()), np.bool_)
    return keep_K


def _forbidden(query: Query, item_index_K: Int32) -> set[int]:
    """The forbidden rows, or those of them that are among the candidates."""
    rows: set[int] = set()
    for forbidden in (query.exclude, query.history_L) if query.exclude_seen else (query.exclude,):
        few = forbidden if len(forbidden) < _MANY else forbidden[np.isin(forbidden, item_index_K)]
        rows.update(few.tolist())
    return rows


def _new_and_not_of(seen: set[int], rows: Sequence[int]) -> list[bool]:
    """Which rows are not in `seen`, where all of them go too: of some tens in a fifth of the time that arrays take."""
    found = []
    for row in rows:
        found.append(row not in seen)
        seen.add(row)
    return found


def nothing_fits(query: Query, num_items: int) -> bool:
    """Whether the hard rules forbid the query every item of a catalogue.

    `query` is in the rows of that catalogue, as `Overlay.fit` makes it: `allowed` (num_items,) where there is one, `exclude` and the
    history rows from 0 to num_items - 1 that may repeat.

    >>> odd_I = np.arange(6) % 2 == 1
    >>> nothing_fits(Query(np.array([3], np.int32), exclude=np.array([5, 3], np.int32), allowed=odd_I), 6)
    False
    >>> nothing_fits(Query(np.array([3], np.int32), exclude=np.array([5, 1], np.int32), allowed=odd_I), 6)
    True
    """
    forbidden = np.concatenate([query.exclude, query.history_L]) if query.exclude_seen else query.exclude
    num_left = num_items if query.allowed is None else int(np.count_nonzero(query.allowed))
    if num_left > len(forbidden):  # nearly always: to be exact costs more
        return False
    if query.allowed is not None:
        forbidden = forbidden[query.allowed[forbidden]]
    return len(np.unique(forbidden)) == num_left


def hard_filter(query: Query, candidates: Candidates) -> Candidates:
    """The candidates that `query` may be shown, in the order given, cut to `query.k`."""
    rows_K = candidates.item_index
    places = np.flatnonzero(permitted(query, rows_K[: _ENOUGH * query.k]))
    if len(places) < query.k < len(rows_K):  # what stands behind decides nothing of those before it
        places = np.flatnonzero(permitted(query, rows_K))
    return candidates.take(places[: query.k])
