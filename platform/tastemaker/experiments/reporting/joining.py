"""Which decision earned which event. Not what is counted of it (`measures`), nor the live rewards of bandits.

An event belongs to the decision whose request_id it carries, if that showed its item. One without a request_id
belongs to the last decision before it that showed its item to its user (last touch). So each event has at most one decision. One
that names a request which is not among the decisions belongs to none of them.

How long after its decision an event came is told by the log's clock. An event that reached the log late counts by the time that its
client gave it, where that lies between its decision and its arrival; a client's clock that says otherwise is not believed.
Shape letters: R decisions, S places of their slates, E events.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.types import EVENT_KINDS, Bool, Float64, Int8, Int32, Int64


@dataclass(frozen=True, slots=True)
class Slates:
    """What the decisions showed: of each place its decision's row and its item's number in `items`."""

    row_S: Int32
    item_S: Int32
    items: "pa.Array[Any]"

    @classmethod
    def of(cls, item_ids: Any) -> "Slates":
        """Slates of a column of lists of item ids."""
        lists = item_ids.combine_chunks() if isinstance(item_ids, pa.ChunkedArray) else item_ids
        encoded: Any = pc.dictionary_encode(pc.list_flatten(lists))
        row_S = pc.list_parent_indices(lists).to_numpy().astype(np.int32)
        return cls(row_S, encoded.indices.to_numpy().astype(np.int32), encoded.dictionary)

    def keys(self, row: Int32 | Int64, item: Int32 | Int64) -> Int64:
        """One number for each pair of a row and an item."""
        return row.astype(np.int64) * max(1, len(self.items)) + item


@dataclass(frozen=True, slots=True)
class Touches:
    """Events that belong to a decision: its row, the item's number, the kind's place in `EVENT_KINDS`, how many ms after it, and the event's own value (0 for none)."""

    row_E: Int32
    item_E: Int32
    kind_E: Int8
    delay_ms_E: Int64
    value_E: Float64
    received_ms_E: Int64

    def __len__(self) -> int:
        return len(self.row_E)

    def within(self, kinds: Sequence[str], window_ms: int) -> "Touches":
        """Those of some kinds that came within a window."""
        return self.take((self.delay_ms_E <= window_ms) & np.isin(self.kind_E, kind_numbers(kinds)))

    def take(self, keep_E: Bool) -> "Touches":
        """Those of a mask."""
        return Touches(
            self.row_E[keep_E], self.item_E[keep_E], self.kind_E[keep_E], self.delay_ms_E[keep_E],
            self.value_E[keep_E], self.received_ms_E[keep_E],
        )  # fmt: skip


def kind_numbers(kinds: Sequence[str]) -> list[int]:
    """Places of kinds in `EVENT_KINDS`."""
    return [EVENT_KINDS.index(kind) for kind in kinds]


@dataclass(frozen=True, slots=True)
class Joined:
    """The touches; and of how many events with a request_id the request is none of the decisions', or did not show the item."""

    touches: Touches
    num_unknown_requests: int
    num_not_shown: int


def join(decisions: pa.Table, slates: Slates, events: pa.Table) -> Joined:
    """Gives events to decisions.

    Args:
        decisions: With `request_id`, `user_id` and `received_ms`; of one origin.
        slates: Theirs.
        events: With `request_id`, `user_id`, `item_id`, `kind`, `timestamp_ms`, `received_ms` and `value`; of the same origin, each once.
    """
    shown_ms_R = decisions["received_ms"].to_numpy()
    item_E = _place(events["item_id"], slates.items)
    row_E = _place(events["request_id"], decisions["request_id"].combine_chunks())
    named_E = pc.is_valid(events["request_id"]).to_numpy()
    shown_E = np.isin(slates.keys(row_E, item_E), slates.keys(slates.row_S, slates.item_S))
    unknown_E, wrong_E = named_E & (row_E < 0), named_E & (row_E >= 0) & ((item_E < 0) | ~shown_E)
    row_E[wrong_E] = -1
    received_ms_E = events["received_ms"].to_numpy()
    free_E = ~named_E & (item_E >= 0)
    row_E[free_E] = _last_touch(decisions, slates, events.filter(pa.array(free_E)), item_E[free_E])
    found = np.flatnonzero(row_E >= 0)
    row_E, item_E, received_ms_E = row_E[found], item_E[found], received_ms_E[found]
    kept = events.take(found)
    values: Any = pc.fill_null(kept["value"], pa.scalar(0.0))
    own_ms_E, shown_ms_E = kept["timestamp_ms"].to_numpy(), shown_ms_R[row_E]
    believed_E = (own_ms_E >= shown_ms_E) & (own_ms_E <= received_ms_E)
    touches = Touches(
        row_E.astype(np.int32), item_E.astype(np.int32), _place(kept["kind"], pa.array(EVENT_KINDS)).astype(np.int8),
        np.where(believed_E, own_ms_E, received_ms_E) - shown_ms_E,
        values.to_numpy(), received_ms_E,
    )  # fmt: skip
    return Joined(touches, int(unknown_E.sum()), int(wrong_E.sum()))


def _place(values: Any, among: Any) -> Int64:
    """Of each value its first place in `among`; -1 where it is in none or null."""
    place: Any = pc.index_in(values, value_set=among, skip_nulls=True)
    found: Int64 = pc.fill_null(place, -1).to_numpy().astype(np.int64)
    return found


def _last_touch(decisions: pa.Table, slates: Slates, events: pa.Table, item_E: Int64) -> Int64:
    """Of each event the row of the last decision up to it that showed its item to its user; -1 where there is none."""
    if len(item_E) == 0 or len(slates.row_S) == 0:
        return np.full(len(item_E), -1, np.int64)
    users: Any = pc.dictionary_encode(decisions["user_id"].combine_chunks())
    user_E = _place(events["user_id"], users.dictionary)
    pair_S, place_S = np.unique(
        slates.keys(users.indices.to_numpy().astype(np.int64)[slates.row_S], slates.item_S),
        return_inverse=True,
    )
    shown_ms_S, received_ms_E = (
        decisions["received_ms"].to_numpy()[slates.row_S],
        events["received_ms"].to_numpy(),
    )
    first_ms = min(int(shown_ms_S.min()), int(received_ms_E.min()))
    span = max(int(shown_ms_S.max()), int(received_ms_E.max())) - first_ms + 1
    order = np.argsort(place_S * span + (shown_ms_S - first_ms), kind="stable")
    moment_S = (place_S * span + (shown_ms_S - first_ms))[order]
    pair_E = slates.keys(user_E, item_E)
    place_E = np.minimum(np.searchsorted(pair_S, pair_E), len(pair_S) - 1)
    before_E = np.searchsorted(moment_S, place_E * span + (received_ms_E - first_ms), side="right") - 1
    last_S = order[np.maximum(before_E, 0)]
    right_E = (user_E >= 0) & (pair_S[place_E] == pair_E) & (before_E >= 0) & (place_S[last_S] == place_E)
    return np.where(right_E, slates.row_S[last_S], -1)
