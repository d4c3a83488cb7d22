"""What users were shown, saw and left: impressions without a positive event, as of each example's time.

Shape letters: N impressions, P positive events, B examples, V items of all examples.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tastemaker.data.schema import Dataset
from tastemaker.data.splits import Histories
from tastemaker.features.impressions import Impressions
from tastemaker.features.ragged import ranges
from tastemaker.types import Bool, Int64


class Rejected(NamedTuple):
    """Items shown, seen and not clicked before each example, end to end: the next `lengths_B[b]` are example b's."""

    item_V: Int64
    lengths_B: Int64


def rejections(interactions: pa.Table, dataset: Dataset, window_ms: int) -> Histories:
    """Each user's rejected items, oldest first; `timestamp_ms` is when the rejection was known.

    An impression is an item that was seen. It is a rejection where its user has no positive event of the item within
    `window_ms` of it, which is known when the window ends. Users without positive events have no examples: they are
    left out, as are items that the dataset lacks.

    Args:
        interactions: Rows with `INTERACTIONS_SCHEMA`, impressions among them.
        dataset: Of the same rows; whose users and items the result's are.
        window_ms: Time that an impression has to lead to something.
    """
    user, item, time, _ = Impressions.of(interactions, dataset)
    left = ~_followed(dataset, user, item, time, window_ms)
    order = np.lexsort((time[left], user[left]))
    counts = np.bincount(user[left], minlength=dataset.num_users)
    return Histories(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        item[left][order].astype(np.int32),
        time[left][order] + window_ms,
    )


def rejected_before(rejections: Histories, user_B: Int64, before_ms_B: Int64, newest: int) -> Rejected:
    """The `newest` rejections of each example's user that were known before its target's time, oldest first."""
    assert rejections.timestamp_ms is not None, "rejections carry times"
    first_B = rejections.offsets[user_B]
    end_B = _first_from(rejections.timestamp_ms, first_B, rejections.offsets[user_B + 1], before_ms_B)
    begin_B = np.maximum(first_B, end_B - newest)
    at = ranges(begin_B, end_B - begin_B)
    return Rejected(rejections.item_index[at].astype(np.int64), end_B - begin_B)


def _followed(dataset: Dataset, user_N: Int64, item_N: Int64, time_N: Int64, window_ms: int) -> Bool:
    """Whether each impression's user has a positive event of its item within the window."""
    pair_P = dataset.user_index.astype(np.int64) * dataset.num_items + dataset.item_index
    order_P = np.lexsort((dataset.timestamp_ms, pair_P))
    pair_P, time_P = pair_P[order_P], dataset.timestamp_ms[order_P]
    pair_N = user_N * dataset.num_items + item_N
    end_N = np.searchsorted(pair_P, pair_N, side="right")
    next_N = _first_from(time_P, np.searchsorted(pair_P, pair_N), end_N, time_N)
    after_N = np.append(time_P, 0)[next_N] - time_N
    followed_N: Bool = (next_N < end_N) & (after_N <= window_ms)
    return followed_N


def _first_from(time_N: Int64, begin_B: Int64, end_B: Int64, moment_B: Int64) -> Int64:
    """Where in each rising `time_N[begin:end]` the first time not before the moment stands; `end` where none does.

    >>> _first_from(np.array([1, 5, 2, 9]), np.array([0, 2]), np.array([2, 4]), np.array([5, 10]))
    array([1, 4])
    """
    begin_B, end_B = begin_B.copy(), end_B.copy()
    while (open_B := begin_B < end_B).any():
        middle_B = np.where(open_B, (begin_B + end_B) // 2, 0)
        early_B = open_B & (time_N[middle_B] < moment_B)
        begin_B = np.where(early_B, middle_B + 1, begin_B)
        end_B = np.where(open_B & ~early_B, middle_B, end_B)
    return begin_B
