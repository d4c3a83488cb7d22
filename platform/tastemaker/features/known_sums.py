"""Decayed sums by key, as they were known at any moments: of the amounts that were received before each.

Shape letters: E amounts, Q questions, W windows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tastemaker.features.counters import decay
from tastemaker.features.scan import LastKnown, decayed_sums, running_max, starts_of
from tastemaker.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class Amounts:
    """What adds up under keys; those of a key in the order in which they were received.

    `time_E` is when each happened. A sum is of the moment `newest_E`, which never falls within a key.
    """

    key_E: Int64
    received_E: Int64
    time_E: Int64
    newest_E: Int64
    amount_E: Float64

    def some(self, place_E: Int64) -> "Amounts":
        """Those at some places."""
        return Amounts(
            self.key_E[place_E],
            self.received_E[place_E],
            self.time_E[place_E],
            self.newest_E[place_E],
            self.amount_E[place_E],
        )

    def of_own_time(self) -> "Amounts":
        """The same, but that a sum is of the moment of its key's newest amount."""
        by_key = self._sorted()
        newest_E = running_max(starts_of(by_key.key_E), by_key.time_E)
        return Amounts(by_key.key_E, by_key.received_E, by_key.time_E, newest_E, by_key.amount_E)

    def sums(self, window_ms_W: Float64) -> "Sums":
        """The sums after each amount; see `counters` for windows."""
        own = self._sorted()
        left_EW = decay(np.diff(own.newest_E, prepend=own.newest_E[:1]), window_ms_W)
        added_EW = own.amount_E[:, None] * decay(own.newest_E - own.time_E, window_ms_W)
        sum_EW = decayed_sums(starts_of(own.key_E), left_EW, added_EW)
        return Sums(LastKnown(own.key_E, own.received_E), own.newest_E, sum_EW, window_ms_W)

    def known(self, key_Q: Int64, moment_Q: Int64, now_Q: Int64, window_ms_W: Float64) -> Float64:
        """See `Sums.known`."""
        return self.sums(window_ms_W).known(key_Q, moment_Q, now_Q)

    def _sorted(self) -> "Amounts":
        return self.some(np.argsort(self.key_E, kind="stable"))


@dataclass(frozen=True, slots=True)
class Sums:
    """The sums of `Amounts` after each of them, and where to find them: they may be asked many times."""

    last: LastKnown
    newest_E: Int64
    sum_EW: Float64
    window_ms_W: Float64

    def known(self, key_Q: Int64, moment_Q: Int64 | int, now_Q: Int64) -> Float64:
        """Sums (Q, W), 0 of no amounts.

        Args:
            key_Q: Of the sums.
            moment_Q: Only what was received before it counts.
            now_Q: The moment to decay to; a sum of a later one stays as it is.
        """
        place_Q = self.last(key_Q, moment_Q)
        value_QW = at(self.sum_EW, place_Q) * decay(now_Q - at(self.newest_E, place_Q), self.window_ms_W)
        found: Float64 = np.where(place_Q[:, None] < 0, 0.0, value_QW)
        return found


def at(values: Any, place_Q: Int64) -> Any:
    """Values by place, zeros where there are none at all. What is given for a place of -1 means nothing."""
    return values[place_Q] if len(values) else np.zeros((len(place_Q), *values.shape[1:]), values.dtype)
