"""What a query tells of single items: those that the user took or did not want, with weight and time, as rows.

The user's record says it where there is one; the items that the request itself names as its visit count as clicked now.

Shape letters: L items.
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Self

import numpy as np

from tastemaker.features.user_state import Signal, state_in
from tastemaker.types import EVENT_WEIGHTS, Float64, Int32, Int64, Query

RowOf = Callable[[str], int | None]
"""The row of an item id; None where it is unknown."""
VISIT_WEIGHT: Final = EVENT_WEIGHTS["click"]


class Signals(NamedTuple):
    """Rows (L,), weights (L,), below 0 where an item was not wanted, and times (L,), oldest first."""

    row_L: Int32
    weight_L: Float64
    at_ms_L: Int64

    def __len__(self) -> int:
        return len(self.row_L)

    @classmethod
    def of(cls, signals: Iterable[Signal], visit_L: Int32, now_ms: int, row_of: RowOf) -> Self:
        """Those of known items, then those of the visit that are not among the wanted ones already."""
        found = [(row, s.weight, s.at_ms) for s in signals if (row := row_of(s.item_id)) is not None]
        wanted = {row for row, weight, _ in found if weight > 0}
        found += [(row, VISIT_WEIGHT, now_ms) for row in visit_L.tolist() if row not in wanted]
        rows, weights, times = zip(*found, strict=True) if found else ((), (), ())
        return cls(np.array(rows, np.int32), np.array(weights, np.float64), np.array(times, np.int64))


def taken(query: Query, row_of: RowOf) -> Signals:
    """What the user took lately, the visit included; nothing where no record was read and there is no visit."""
    return Signals.of(state_in(query.record).taken, query.visit_L, query.now_ms, row_of)


def under_way(query: Query, row_of: RowOf) -> Signals:
    """What the user took and did not want in the session that goes on, the visit included."""
    signals = state_in(query.record).signals(query.now_ms)
    return Signals.of(signals, query.visit_L, query.now_ms, row_of)
