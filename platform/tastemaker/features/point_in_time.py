"""What the features of users and items were known to be at a moment: for training sets that do not read the future.

An event is known from when the log took it (`received_ms`), not from when it happened: one that came late was not there
to be served by. An example's features are what the stream consumer's records give at its moment, from the events that
were received before it; but for what a limit of a record cuts off there.

Users are worked on and then items, about a million events of whole records at a time, by scans over all of their events
at once (`scan`). A replay in the order of time would hold every record, and make objects of each event.

Shape letters: E events, Q examples, W windows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.features.counters import ROWS, WEIGHT, WINDOWS_MS, event_weight, row_of
from tastemaker.features.known_sums import Amounts, at
from tastemaker.features.replay import touching
from tastemaker.features.scan import LastKnown, running_max, starts_of
from tastemaker.features.user_state import (
    AFFINITY_WINDOW_MS,
    FORGIVING,
    REFUSING,
    SHOWN_WINDOW_MS,
    Category,
)
from tastemaker.types import Bool, Float64, Int64

_ASKED: Final[dict[str, Any]] = {"user_id": pa.string(), "item_id": pa.string(), "moment_ms": pa.int64()}
EXAMPLE_SCHEMA: Final = pa.schema(list(_ASKED.items()))
"""What is asked: a user, an item, and the moment by the log's clock."""
_EVENTS_AT_ONCE: Final = 1_000_000
_COUNTED: Final = np.array(list(WINDOWS_MS.values()))
_OPINIONS: Final = [row_of(kind) for kind in sorted(REFUSING | FORGIVING)]
_REFUSALS: Final = [row_of(kind) for kind in sorted(REFUSING)]
_Columns = dict[str, Float64 | Int64 | Bool]


@dataclass(frozen=True, slots=True)
class _Log:
    """Events of some records, sorted by record and then by when they were received.

    `newest_E` is the time of the record's newest event up to each; `other_E` is the item of a user's event, the user of
    an item's.
    """

    record_E: Int64
    received_E: Int64
    time_E: Int64
    newest_E: Int64
    row_E: Int64
    weight_E: Float64
    other_E: Int64

    def amounts(self, some_E: Int64, key_E: Int64, amount_E: Float64) -> Amounts:
        """Amounts of some of the events; sums of them are of the moment that the record is of."""
        return Amounts(key_E, self.received_E, self.time_E, self.newest_E, amount_E).some(some_E)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Examples about the same records. `known_Q` is the time of the newest event that each knows; 0 for none."""

    record_Q: Int64
    moment_Q: Int64
    known_Q: Int64
    other_Q: Int64

    def now(self) -> Int64:
        """The moment, or the newest event's where a client's clock runs ahead: records are never of before it."""
        return np.maximum(self.moment_Q, self.known_Q)


def features_at(examples: pa.Table, events: pa.Table, category: Category, late_days: int) -> pa.Table:
    """The examples with their features: as of `moment_ms`, by the events that were received before it.

    Columns are `user_<row>_<window>` and `item_<row>_<window>` for the rows and windows of `counters`, `user_last_ms` and
    `item_last_ms` (0 for unknown ones), `taste` (the user's weight for the item's category), `shown` (decayed impressions
    of the item to the user) and `refused`.

    Args:
        examples: With `EXAMPLE_SCHEMA`, and other columns, which stay.
        events: With `EVENT_SCHEMA`, each once, in any order: as `archive.read_days` gives them.
        category: Of items; that of the example's item now.
        late_days: See `events.batch.is_late`.
    """
    events = events.filter(touching(late_days))
    _, user_E, user_Q = _codes(events["user_id"], examples["user_id"])
    items, item_E, item_Q = _codes(events["item_id"], examples["item_id"])
    moment_Q = examples["moment_ms"].to_numpy()
    measured = _Measured.of(events)
    category_I = _category_codes(items, category)

    def of_user(log: _Log, asked: _Asked) -> _Columns:
        return {
            **_counts("user", log, asked),
            "taste": _taste(log, asked, category_I),
            "shown": _shown(log, asked, len(items)),
            "refused": _refused(log, asked, len(items)),
        }

    def of_item(log: _Log, asked: _Asked) -> _Columns:
        return _counts("item", log, asked)

    columns = {
        **_by_record(measured, user_E, item_E, user_Q, item_Q, moment_Q, of_user),
        **_by_record(measured, item_E, user_E, item_Q, user_Q, moment_Q, of_item),
    }
    for name, values in columns.items():
        examples = examples.append_column(name, pa.array(values))
    return examples


@dataclass(frozen=True, slots=True)
class _Measured:
    """What counts of each event."""

    received_E: Int64
    time_E: Int64
    row_E: Int64
    weight_E: Float64

    @classmethod
    def of(cls, events: pa.Table) -> "_Measured":
        kinds: list[Any] = events["kind"].to_pylist()
        values: list[Any] = events["value"].to_pylist()
        return cls(
            events["received_ms"].to_numpy(),
            events["timestamp_ms"].to_numpy(),
            np.array([row_of(kind) for kind in kinds], np.int64),
            np.array(
                [event_weight(kind, value) for kind, value in zip(kinds, values, strict=True)], np.float64
            ),
        )


def _by_record(
    events: _Measured,
    record_E: Int64,
    other_E: Int64,
    record_Q: Int64,
    other_Q: Int64,
    moment_Q: Int64,
    columns_of: Callable[[_Log, _Asked], _Columns],
) -> _Columns:
    """Features of all examples, found for some records at a time."""
    order_E = np.lexsort((events.received_E, record_E))
    order_Q = np.argsort(record_Q, kind="stable")
    found: list[_Columns] = []
    for some_E, some_Q in _chunks(record_E[order_E], record_Q[order_Q]):
        e, q = order_E[some_E], order_Q[some_Q]
        first_E, time_E = starts_of(record_E[e]), events.time_E[e]
        log = _Log(
            record_E[e], events.received_E[e], time_E, running_max(first_E, time_E),
            events.row_E[e], events.weight_E[e], other_E[e],
        )  # fmt: skip
        place_Q = LastKnown(log.record_E, log.received_E)(record_Q[q], moment_Q[q])
        known_Q = np.where(place_Q < 0, 0, at(log.newest_E, place_Q))
        found.append(columns_of(log, _Asked(record_Q[q], moment_Q[q], known_Q, other_Q[q])))
    back_Q = np.argsort(order_Q, kind="stable")
    return {name: np.concatenate([part[name] for part in found])[back_Q] for name in found[0]}


def _chunks(record_E: Int64, record_Q: Int64) -> Iterator[tuple[slice, slice]]:
    """Slices of sorted events and examples that belong to the same records, near `_EVENTS_AT_ONCE` each."""
    bounds = [*record_E[_EVENTS_AT_ONCE::_EVENTS_AT_ONCE].tolist(), np.inf]
    start_E = start_Q = 0
    for bound in dict.fromkeys(bounds):
        end_E, end_Q = int(np.searchsorted(record_E, bound)), int(np.searchsorted(record_Q, bound))
        yield slice(start_E, end_E), slice(start_Q, end_Q)
        start_E, start_Q = end_E, end_Q


def _counts(entity: str, log: _Log, asked: _Asked) -> _Columns:
    columns: _Columns = {f"{entity}_last_ms": asked.known_Q}
    for name in ROWS:
        amount_E = log.weight_E if name == WEIGHT else (log.row_E == row_of(name)).astype(np.float64)
        amounts = log.amounts(np.flatnonzero(amount_E), log.record_E, amount_E)
        value_QW = amounts.known(asked.record_Q, asked.moment_Q, asked.now(), _COUNTED)
        columns |= {f"{entity}_{name}_{window}": value_QW[:, w] for w, window in enumerate(WINDOWS_MS)}
    return columns


def _taste(log: _Log, asked: _Asked, category_I: Int64) -> Float64:
    num_categories = int(category_I.max(initial=0)) + 1
    category_E, category_Q = at(category_I, log.other_E), at(category_I, asked.other_Q)
    taken_E = np.flatnonzero((log.weight_E > 0) & (category_E > 0))
    amounts = log.amounts(taken_E, log.record_E * num_categories + category_E, log.weight_E)
    key_Q = asked.record_Q * num_categories + category_Q
    return amounts.known(key_Q, asked.moment_Q, asked.now(), np.array([AFFINITY_WINDOW_MS]))[:, 0]


def _shown(log: _Log, asked: _Asked, num_items: int) -> Float64:
    shown_E = np.flatnonzero(log.row_E == row_of("impression"))
    amounts = log.amounts(shown_E, log.record_E * num_items + log.other_E, np.ones(len(log.row_E)))
    key_Q = asked.record_Q * num_items + asked.other_Q
    window_W = np.array([SHOWN_WINDOW_MS])
    return amounts.of_own_time().known(key_Q, asked.moment_Q, asked.moment_Q, window_W)[:, 0]


def _refused(log: _Log, asked: _Asked, num_items: int) -> Bool:
    """Whether the newest opinion of the item is a refusal; of two of the same time, the refusal counts."""
    some_E = np.flatnonzero(np.isin(log.row_E, _OPINIONS))
    key_E = log.record_E[some_E] * num_items + log.other_E[some_E]
    order = np.argsort(key_E, kind="stable")
    some_E, key_E = some_E[order], key_E[order]
    refuses_E = np.isin(log.row_E[some_E], _REFUSALS)
    opinion_E = running_max(starts_of(key_E), 2 * log.time_E[some_E] + refuses_E)
    key_Q = asked.record_Q * num_items + asked.other_Q
    place_Q = LastKnown(key_E, log.received_E[some_E])(key_Q, asked.moment_Q)
    refused_Q: Bool = (place_Q >= 0) & (at(opinion_E, place_Q) % 2 == 1)
    return refused_Q


def _codes(one: "pa.ChunkedArray[Any]", other: "pa.ChunkedArray[Any]") -> tuple[list[str], Int64, Int64]:
    """The ids of both, and each column as places among them."""
    both = pa.chunked_array([*one.chunks, *other.chunks], pa.string()).combine_chunks().dictionary_encode()
    places = both.indices.to_numpy().astype(np.int64)
    ids: list[Any] = both.dictionary.to_pylist()
    return ids, places[: len(one)], places[len(one) :]


def _category_codes(items: list[str], category: Category) -> Int64:
    """Each item's category as a number from 1; 0 for none."""
    codes: dict[str, int] = {"": 0}
    return np.array([codes.setdefault(category(item_id), len(codes)) for item_id in items], np.int64)
