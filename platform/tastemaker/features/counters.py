"""Windowed counts of events as decayed sums: one arithmetic for the stream, for rebuilds and for training sets.

The count of a window W at time t is the sum over events of amount * exp(-(t - event's time) / W) [forward decay,
Cormode et al. 2009]: an event counts fully when it happens and a third of that one window later. It is kept as a value
with the time that it is of. The sum is linear, so events may come late, in any order and in any batches, and the sums
of two partitions add up to that of both. Not for exact counts within a window.

Shape letters: N records, E events, K rows of a record, W windows, P parts.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final, Self

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.types import EVENT_KINDS, EVENT_WEIGHTS, Bool, Float64, Int64

_HOUR_MS = 3_600_000.0
WINDOWS_MS: Final[Mapping[str, float]] = {
    "1h": _HOUR_MS, "1d": 24 * _HOUR_MS, "7d": 168 * _HOUR_MS, "30d": 720 * _HOUR_MS, "all": np.inf,
}  # fmt: skip
"""Time after which an event counts exp(-1); `all` never forgets."""
WEIGHT: Final = "weight"
ROWS: Final = (*EVENT_KINDS, WEIGHT)
"""What is counted: each kind, and the sum of the positive events' weights."""

_ROW: Final = {name: row for row, name in enumerate(ROWS)}
_WINDOW_W: Final = np.array(list(WINDOWS_MS.values()))
_HEAD: Final = struct.Struct("<qH")
_BITS: Final = tuple(1 << row for row in range(len(ROWS)))
_HEADS: Final = np.dtype([("last_ms", "<i8"), ("mask", "<u2")])
"""The same as `_HEAD`, of many records."""
_MANY: Final = 8
"""From here on records are decoded all at once: ten times as fast for a thousand, and slower for one."""
_ROW_BYTES: Final = 8 * len(WINDOWS_MS)


def event_weight(kind: str, value: float | None) -> float:
    """What an event adds to the `weight` row: its kind's weight, a rating's value where positive, else 0.

    >>> event_weight("purchase", 19.9), event_weight("rating", 4.0), event_weight("skip", None)
    (1.0, 4.0, 0.0)
    """
    if kind == "rating":
        return max(value or 0.0, 0.0)
    if kind == "watch":
        return EVENT_WEIGHTS["view"]
    return EVENT_WEIGHTS.get(kind, 0.0)


def decay(elapsed_ms: Int64 | Float64, window_ms_W: Float64 = _WINDOW_W) -> Float64:
    """What is left of an amount after some time (…,), by window (…, W); what lies in the future is whole.

    >>> decay(np.array([3_600_000]))[0, [0, -1]].round(3).tolist()  # an hour later, of "1h" and of "all"
    [0.368, 1.0]
    """
    left: Float64 = np.exp(-np.maximum(elapsed_ms, 0)[..., None] / window_ms_W)
    return left


@dataclass(frozen=True, slots=True)
class Counters:
    """Decayed sums of N records: `value_NKW` of the moment `last_ms_N`, the time of each record's newest event.

    A record without events is all zeros, and of time 0.
    """

    value_NKW: Float64
    last_ms_N: Int64

    @classmethod
    def zeros(cls, num_records: int) -> Self:
        """Records that have seen nothing."""
        return cls(np.zeros((num_records, len(ROWS), len(WINDOWS_MS))), np.zeros(num_records, np.int64))

    def __len__(self) -> int:
        return len(self.last_ms_N)

    def plus(self, record_E: Int64, row_E: Int64, amount_E: Float64, time_ms_E: Int64) -> "Counters":
        """The same after some more events, in whatever order.

        Args:
            record_E: Which record each event belongs to.
            row_E: Which of `ROWS` it adds to.
            amount_E: What it adds.
            time_ms_E: When it happened.
        """
        last_ms_N = self.last_ms_N.copy()
        np.maximum.at(last_ms_N, record_E, time_ms_E)
        value_NKW = self.value_NKW * decay(last_ms_N - self.last_ms_N)[:, None, :]
        added_EW = amount_E[:, None] * decay(last_ms_N[record_E] - time_ms_E)
        np.add.at(value_NKW, (record_E, row_E), added_EW)
        return Counters(value_NKW, last_ms_N)

    def merged(self, other: "Counters") -> "Counters":
        """Record by record, the counters of the events of both."""
        last_ms_N = np.maximum(self.last_ms_N, other.last_ms_N)
        return Counters(
            self.value_NKW * decay(last_ms_N - self.last_ms_N)[:, None, :]
            + other.value_NKW * decay(last_ms_N - other.last_ms_N)[:, None, :],
            last_ms_N,
        )

    def folded(self, num_parts: int) -> "Counters":
        """Sums of records that lie in parts of equal length, one after another: each record with those at its place."""
        last_ms_PN = self.last_ms_N.reshape(num_parts, -1)
        last_ms_N = last_ms_PN.max(axis=0)
        value_PNKW = self.at(np.tile(last_ms_N, num_parts)).reshape(
            *last_ms_PN.shape, *self.value_NKW.shape[1:]
        )
        return Counters(value_PNKW.sum(axis=0), last_ms_N)

    def at(self, now_ms: int | Int64) -> Float64:
        """The counts (N, K, W) as of a moment not before the newest event."""
        found: Float64 = self.value_NKW * decay(np.asarray(now_ms - self.last_ms_N))[:, None, :]
        return found

    def encode(self) -> list[bytes]:
        """Each record as bytes: time, which rows are not zero, and those rows; little-endian."""
        used_NK: Bool = np.any(self.value_NKW, axis=2)
        masks = (used_NK @ np.array(_BITS)).tolist()
        return [
            _HEAD.pack(last, mask) + self.value_NKW[n][used_NK[n]].tobytes()
            for n, (last, mask) in enumerate(zip(self.last_ms_N.tolist(), masks, strict=True))
        ]

    @classmethod
    def decode(cls, records: Sequence[bytes | None]) -> Self:
        """What `encode` gave; None is a record that has seen nothing.

        Raises:
            CompatibilityError: A record is cut short, or of another layout.
        """
        if len(records) >= _MANY and (parts := _decode_many(records)) is not None:
            return cls(*parts)
        found = cls.zeros(len(records))
        for n, record in enumerate(records):
            if record:
                last, mask = _HEAD.unpack_from(record)
                rows = list(compress(range(len(ROWS)), (mask & bit for bit in _BITS)))
                if len(record) != _HEAD.size + _ROW_BYTES * len(rows) or mask >> len(ROWS):
                    raise CompatibilityError(
                        "a record of counters", value=f"{len(record)} bytes", limit=f"{len(rows)} rows of {_ROW_BYTES}",
                        mend="rebuild it with `tastemaker features rebuild`",
                    )  # fmt: skip
                found.last_ms_N[n] = last
                if rows:
                    found.value_NKW[n, rows] = np.frombuffer(record, offset=_HEAD.size).reshape(len(rows), -1)
        return found


def _decode_many(records: Sequence[bytes | None]) -> tuple[Float64, Int64] | None:
    """Values and times of records; None where one cannot be read."""
    there = [n for n, record in enumerate(records) if record]
    kept = [record for record in records if record]
    found = Counters.zeros(len(records))
    if not kept:
        return found.value_NKW, found.last_ms_N
    sizes = np.array(list(map(len, kept)))
    if sizes.min() < _HEAD.size:
        return None
    heads = np.frombuffer(b"".join([record[: _HEAD.size] for record in kept]), _HEADS)
    mask = heads["mask"].astype(np.int64)
    used_NK = np.zeros((len(records), len(ROWS)), np.bool_)
    used_NK[there] = mask[:, None] & np.array(_BITS) != 0
    if (mask >> len(ROWS)).any() or (sizes != _HEAD.size + _ROW_BYTES * used_NK[there].sum(axis=1)).any():
        return None
    found.last_ms_N[there] = heads["last_ms"]
    rows = np.frombuffer(b"".join([record[_HEAD.size :] for record in kept]), "<f8")
    found.value_NKW[used_NK] = rows.reshape(-1, len(WINDOWS_MS))
    return found.value_NKW, found.last_ms_N


def row_of(name: str) -> int:
    """The place of a kind, or of `weight`, in a record."""
    return _ROW[name]
