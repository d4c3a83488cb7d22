"""Users' records and items' counters as they were known at any moment of a log: for requests of the past.

A record is what the stream consumer's own functions make of a user's events that were known before the moment; items'
counters are those of `count_events`, found for all candidates at once by sums over the whole log (`known_sums`). The
features of a request are then made by the code that serves.

Shape letters: E events, K candidates.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.events.history import NOT_HISTORY
from tastemaker.events.schema import Event
from tastemaker.features.counters import ROWS, WEIGHT, WINDOWS_MS, Counters, event_weight, row_of
from tastemaker.features.item_store import CandidateRows, ItemFacts
from tastemaker.features.known_sums import Amounts, Sums
from tastemaker.features.places import Place, place_of
from tastemaker.features.request_features import features_for
from tastemaker.features.scan import LastKnown, running_max, starts_of
from tastemaker.features.user_state import Category, UserState, after
from tastemaker.features.view_rows import item_rows
from tastemaker.types import Float32, Float64, Int32, Int64, Query

_FIELDS: Final = ("event_id", "user_id", "item_id", "kind", "timestamp_ms", "value")
_WINDOWS: Final = np.array(list(WINDOWS_MS.values()))
_event = Event.__pydantic_validator__.validate_python


def known_from(events: pa.Table) -> Int64:
    """When each event is known to a training: when it was received, and never before its own time.

    A client's clock may run ahead: by the log's clock the very event that is to be predicted came before its time.
    """
    known_E: Int64 = np.maximum(events["received_ms"].to_numpy(), events["timestamp_ms"].to_numpy())
    return known_E


class KnownRecords:
    """Gives the features of requests as of their moments: a `stages.hydration.RequestFeatures`. Thread-safe.

    Args:
        events: With columns of `archive.EVENT_SCHEMA`, each once, in any order; all of them touch state.
        known_E: From when each is known, in ms.
        facts: Of the items; events of others count for their users alone.
        homes: Where users are at home: there a request comes from that does not say where.
        category: Of items, as users' records count them; unset, that of the facts.
    """

    def __init__(
        self,
        events: pa.Table,
        known_E: Int64,
        facts: ItemFacts,
        homes: Mapping[str, Place] | None = None,
        category: Category | None = None,
    ) -> None:
        self._facts, self._homes, self._category = facts, homes or {}, category or facts.category
        self._items = _KnownItems(events, known_E, facts)
        self._users = _KnownUsers(events, known_E)

    def __call__(self, query: Query, item_index: Int32) -> Float32:
        """The `REQUEST_FEATURES` (K, F) of candidates of a query, as of its `now_ms`; the query's record is not read."""
        place = place_of(query.context) or self._homes.get(query.user_id)
        return self.features(query.user_id, item_index, query.now_ms, query.now_ms, place)

    def of_strangers(self, query: Query, item_index: Int32) -> Float32:
        """The same where nothing is known of the user: what serving computes for a query without a record."""
        place = place_of(query.context) or self._homes.get(query.user_id)
        return features_for(UserState(), self.candidates(item_index, query.now_ms), query.now_ms, place)

    def features(
        self, user_id: str, item_index: Int32, moment_ms: int, now_ms: int, place: Place | None = None
    ) -> Float32:
        """The `REQUEST_FEATURES` (K, F) by the events that were known before a moment, decayed to `now_ms`."""
        user, candidates = self.user(user_id, moment_ms), self.candidates(item_index, moment_ms)
        return features_for(user, candidates, now_ms, place)

    def changes(self, user_id: str, after_ms: int, until_ms: int) -> list[int]:
        """The moments in a span of time before which another event of a user was known, in order."""
        known_E = self._users.known_from(user_id)
        within_E = known_E[(known_E >= after_ms) & (known_E < until_ms)]
        moments: list[int] = (np.unique(within_E) + 1).tolist()
        return moments

    def user(self, user_id: str, moment_ms: int) -> UserState:
        """A user's record by the events that were known before a moment."""
        events = self._users.events(user_id, moment_ms)
        return after([UserState()], [events], self._category)[0] if events else UserState()

    def history(self, user_id: str, moment_ms: int, length: int) -> list[str]:
        """The newest items that a user took by then, each once, oldest first: as serving reads them."""
        taken = [e.item_id for e in self._users.events(user_id, moment_ms) if e.kind not in NOT_HISTORY]
        return list(dict.fromkeys(reversed(taken)))[:length][::-1]

    def candidates(self, item_index: Int32, moment_ms: int) -> CandidateRows:
        """Items' rows by the events that were known before a moment."""
        counters, popularity = item_rows(self._items.counters(item_index, moment_ms))
        return CandidateRows(self._facts, item_index, counters, popularity)


class _KnownUsers:
    """The events of each user in the order in which they became known."""

    def __init__(self, events: pa.Table, known_E: Int64) -> None:
        users: Any = events["user_id"].combine_chunks().dictionary_encode()
        user_E = users.indices.to_numpy()
        order_E = np.lexsort((_sequence(events), known_E, user_E))
        self._columns = events.select(_FIELDS).take(order_E).combine_chunks()
        self._known_E = known_E[order_E]
        names = users.dictionary.to_pylist()
        bounds = np.searchsorted(user_E[order_E], np.arange(len(names) + 1))
        self._place = {name: slice(*bounds[u : u + 2].tolist()) for u, name in enumerate(names)}

    def known_from(self, user_id: str) -> Int64:
        """When each event of a user became known, in order."""
        return self._known_E[self._place.get(user_id, slice(0, 0))]

    def events(self, user_id: str, moment_ms: int) -> list[Event]:
        """Those of a user that were known before a moment, oldest first."""
        own = self._place.get(user_id, slice(0, 0))
        count = int(np.searchsorted(self.known_from(user_id), moment_ms))
        columns: list[list[Any]] = [c.to_pylist() for c in self._columns.slice(own.start, count).columns]
        return [_event(dict(zip(_FIELDS, row, strict=True))) for row in zip(*columns, strict=True)]


class _KnownItems:
    """Sums over the events of each item, by what was counted."""

    def __init__(self, events: pa.Table, known_E: Int64, facts: ItemFacts) -> None:
        items: Any = events["item_id"].combine_chunks().dictionary_encode()
        index_D = np.array(
            [facts.index.get(item_id, -1) for item_id in items.dictionary.to_pylist()], np.int64
        )
        item_E = index_D[items.indices.to_numpy()] if len(index_D) else np.empty(0, np.int64)
        order_E = np.lexsort((known_E, item_E))
        order_E = order_E[item_E[order_E] >= 0]
        item_E, known_E = item_E[order_E], known_E[order_E]
        time_E = events["timestamp_ms"].to_numpy()[order_E]
        self._newest_E = running_max(starts_of(item_E), time_E)
        self._last = LastKnown(item_E, known_E)
        self._sums: dict[int, Sums] = {}
        for row, amount_E in _amounts(events.select(["kind", "value"]).take(order_E)).items():
            amounts = Amounts(item_E, known_E, time_E, self._newest_E, amount_E)
            self._sums[row] = amounts.some(np.flatnonzero(amount_E)).sums(_WINDOWS)

    def counters(self, item_index: Int32, moment_ms: int) -> Counters:
        """The record of each item, as of its newest event that was known before a moment."""
        key_K = item_index.astype(np.int64)
        found = Counters.zeros(len(key_K))
        place_K = self._last(key_K, moment_ms)
        if len(self._newest_E):
            found.last_ms_N[:] = np.where(place_K < 0, 0, self._newest_E[place_K])
        for row, sums in self._sums.items():
            found.value_NKW[:, row] = sums.known(key_K, moment_ms, found.last_ms_N)
        return found


def _amounts(events: pa.Table) -> dict[int, Float64]:
    """What each event adds to each of `counters.ROWS` to which any adds something."""
    kinds: list[Any] = events["kind"].to_pylist()
    values: list[Any] = events["value"].to_pylist()
    row_E = np.array([row_of(kind) for kind in kinds], np.int64)
    weights = [event_weight(kind, value) for kind, value in zip(kinds, values, strict=True)]
    amounts = {row_of(kind): (row_E == row_of(kind)).astype(np.float64) for kind in ROWS if kind != WEIGHT}
    amounts[row_of(WEIGHT)] = np.array(weights, np.float64)
    return {row: amount_E for row, amount_E in amounts.items() if amount_E.any()}


def _sequence(events: pa.Table) -> Int64:
    """The log's order within a ms; 0 where it is unknown."""
    sequence_E: Int64 = events["sequence"].fill_null(pa.scalar(0, pa.int64())).to_numpy()
    return sequence_E
