"""When units were there: their signs of life drawn together into visits. Nothing but first and last moments is kept.

Shape letters: A signs of life, N visits, R decisions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from tastemaker.experiments.reporting.narrow import Narrow, narrow, wide
from tastemaker.features.user_state import SESSION_GAP_MS
from tastemaker.types import Bool, Int64


@dataclass(frozen=True, slots=True)
class Visits:
    """Visits by unit and then by time: from a first to a last sign of life, with no longer silence in between than `SESSION_GAP_MS`.

    Times are of the log's clock. Two visits of a unit are further apart than that.
    """

    unit_N: Narrow
    start_ms_N: Int64
    lasted_ms_N: Narrow

    def __len__(self) -> int:
        return len(self.unit_N)

    @classmethod
    def of(cls, unit_A: Int64, ms_A: Int64) -> Self:
        """The visits that moments make.

        Half an hour of silence at most lies between the first three:

        >>> found = Visits.of(np.array([1, 1, 1, 1, 0]), np.array([0, 1_800_000, 3_600_000, 5_400_001, 7]))
        >>> found.unit_N.tolist(), found.start_ms_N.tolist(), found.lasted_ms_N.tolist()
        ([0, 1, 1], [7, 0, 5400001], [0, 3600000, 0])
        """
        return cls._joined(unit_A, ms_A, ms_A)

    @classmethod
    def together(cls, parts: Sequence["Visits"], units: Sequence[Int64]) -> Self:
        """Visits of several parts of a log as one: what was a visit in two of them may be one.

        Args:
            parts: Of each part.
            units: Of each, the number of each of its units among all.
        """
        unit_N = np.concatenate([unit_of[part.unit_N] for part, unit_of in zip(parts, units, strict=True)])
        start_ms_N = np.concatenate([part.start_ms_N for part in parts])
        return cls._joined(unit_N, start_ms_N, np.concatenate([part.end_ms() for part in parts]))

    @classmethod
    def _joined(cls, unit_A: Int64, start_ms_A: Int64, end_ms_A: Int64) -> Self:
        """The visits that spells of activity make: one ends where the next begins later than the gap after all before it."""
        order = np.lexsort((start_ms_A, unit_A))
        unit_A, start_ms_A, end_ms_A = unit_A[order], start_ms_A[order], end_ms_A[order]
        del order
        new_A = np.r_[True, np.diff(unit_A) != 0][: len(unit_A)]
        latest_A = _latest(end_ms_A, new_A)
        new_A[1:] |= start_ms_A[1:] - latest_A[:-1] > SESSION_GAP_MS
        first = np.flatnonzero(new_A)
        last = np.r_[first[1:], len(unit_A)] - 1
        start_ms_N = start_ms_A[first]
        return cls(narrow(unit_A[first]), start_ms_N, narrow(latest_A[last[: len(first)]] - start_ms_N))

    def end_ms(self) -> Int64:
        """The last moment of each. Shape (N,)."""
        return self.start_ms_N + self.lasted_ms_N

    def take(self, keep_N: Bool) -> "Visits":
        """Those of a mask."""
        return Visits(self.unit_N[keep_N], self.start_ms_N[keep_N], self.lasted_ms_N[keep_N])

    def visit_of(self, unit_R: Int64, ms_R: Int64) -> Int64:
        """The visit in which each moment lies, one of the moments that the visits were made of. Shape (R,)."""
        clock = _Clock.of(self)
        return (
            np.searchsorted(
                clock.at(wide(self.unit_N), self.start_ms_N), clock.at(unit_R, ms_R), side="right"
            )
            - 1
        )

    def was_there(self, unit_R: Int64, from_ms_R: Int64, to_ms_R: Int64) -> Bool:
        """Whether each unit gave a sign of life from one moment to another, both included. Shape (R,).

        The two lie at least `SESSION_GAP_MS` apart: a visit that covers them both has a sign of life in between.
        """
        assert (to_ms_R - from_ms_R >= SESSION_GAP_MS).all()
        clock = _Clock.of(self)
        unit_N = wide(self.unit_N)
        begun_R = np.searchsorted(clock.at(unit_N, self.start_ms_N), clock.at(unit_R, to_ms_R), side="right")
        over_R = np.searchsorted(clock.at(unit_N, self.end_ms()), clock.at(unit_R, from_ms_R), side="left")
        found: Bool = begun_R > over_R
        return found


@dataclass(frozen=True, slots=True)
class _Clock:
    """Makes moments of units numbers that rise by unit and then by time."""

    first_ms: int
    span: int

    @classmethod
    def of(cls, visits: Visits) -> Self:
        first_ms = int(visits.start_ms_N.min()) if len(visits) else 0
        last_ms = int(visits.end_ms().max()) if len(visits) else 0
        return cls(first_ms, last_ms - first_ms + 3)

    def at(self, unit: Int64, ms: Int64) -> Int64:
        """Moments before the first or after the last of all stand beside them."""
        found: Int64 = unit * self.span + np.clip(ms - self.first_ms + 1, 0, self.span - 1)
        return found


def _latest(end_ms_A: Int64, new_A: Bool) -> Int64:
    """The latest end so far of each unit's; `new_A` says where a unit begins."""
    if not len(end_ms_A):
        return end_ms_A
    first_ms = int(end_ms_A.min())
    span = int(end_ms_A.max()) - first_ms + 1
    unit_A = np.cumsum(new_A, dtype=np.int64) - 1
    found: Int64 = np.maximum.accumulate(unit_A * span + (end_ms_A - first_ms)) - unit_A * span + first_ms
    return found
