"""Decayed sums at every event of many records at once: what a replay event by event would give, without its loop.

A sum is carried from event to event by s' = s * left + amount, where `left` is what remains of it at the next event's
moment. That recurrence is associative, so that all of them are found in log2(longest run) passes over the rows [Blelloch
1990]. All factors are at most 1 and all amounts positive: nothing overflows or cancels, whatever the span of time. Prefix
sums of amounts scaled up to one common moment would, within days for a window of an hour.

Shape letters: E events, Q questions, W windows.
"""

import numpy as np

from tastemaker.types import Bool, Float64, Int64


def decayed_sums(first_E: Bool, left_EW: Float64, amount_EW: Float64) -> Float64:
    """The sum after each event (E, W).

    Args:
        first_E: Whether a record begins with this event; what was before it counts no more.
        left_EW: What is left at this event of the sum at the event before it; from 0 to 1.
        amount_EW: What the event adds.

    >>> half, one = np.full((4, 1), 0.5), np.ones((4, 1))
    >>> decayed_sums(np.array([True, False, False, True]), half, one).ravel().tolist()
    [1.0, 1.5, 1.75, 1.0]
    """
    sum_EW = amount_EW.copy()
    left_EW = np.where(first_E[:, None], 0.0, left_EW)
    step, longest = 1, _longest(first_E)
    while step < longest:
        sum_EW[step:] += left_EW[step:] * sum_EW[:-step]
        left_EW[step:] = left_EW[step:] * left_EW[:-step]
        step *= 2
    return sum_EW


def running_max(first_E: Bool, value_E: Int64) -> Int64:
    """The largest value of the record so far, at each event.

    >>> running_max(np.array([True, False, False, True]), np.array([5, 9, 7, 2])).tolist()
    [5, 9, 9, 2]
    """
    values, rank_E = np.unique(value_E, return_inverse=True)
    place_E = np.cumsum(first_E) * len(values) + rank_E
    found: Int64 = values[np.maximum.accumulate(place_E) % len(values)] if len(values) else value_E
    return found


def starts_of(key_E: Int64) -> Bool:
    """Whether each of some sorted keys is another than the one before it.

    >>> starts_of(np.array([4, 4, 7])).tolist()
    [True, False, True]
    """
    return np.append(np.ones(min(1, len(key_E)), bool), key_E[1:] != key_E[:-1])


class LastKnown:
    """Finds the last event of a key that was received before a moment.

    >>> last = LastKnown(np.array([1, 1, 2]), np.array([5, 8, 6]))
    >>> last(np.array([1, 1, 2]), np.array([8, 9, 6])).tolist()
    [0, 1, -1]

    Args:
        key_E: Of the events, sorted.
        received_E: When each was received, sorted within a key.
    """

    def __init__(self, key_E: Int64, received_E: Int64) -> None:
        self._key_E = key_E
        self._received, rank_E = np.unique(received_E, return_inverse=True)
        self._place_E = key_E * (len(self._received) + 1) + rank_E

    def __call__(self, key_Q: Int64, moment_Q: Int64 | int) -> Int64:
        """The place of each among the events; -1 for none.

        Args:
            key_Q: What is asked.
            moment_Q: As of when.
        """
        rank_Q = np.searchsorted(self._received, moment_Q)
        wanted_Q = key_Q * (len(self._received) + 1) + rank_Q
        place_Q = np.searchsorted(self._place_E, wanted_Q).astype(np.int64) - 1
        if not len(self._key_E):
            return place_Q
        found: Int64 = np.where((place_Q >= 0) & (self._key_E[place_Q] == key_Q), place_Q, -1)
        return found


def _longest(first_E: Bool) -> int:
    starts = np.append(np.flatnonzero(first_E), len(first_E))
    return int(np.max(np.diff(starts), initial=0))
