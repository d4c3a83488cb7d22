"""What each decision earned, in numbers: counted while the events of its part of the log are at hand. Not what metrics make of it (`measures`).

Shape letters: R decisions, E events.
"""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from tastemaker.experiments.metrics import METRICS, Metric
from tastemaker.experiments.reporting.joining import Slates, Touches
from tastemaker.experiments.reporting.narrow import Narrow, narrow
from tastemaker.types import EventKind, Float64, Int64

What = Literal["items", "value", "rating", "rated"]


class Tally(NamedTuple):
    """What is counted of events of some kinds that came within a window of their decision.

    "items" is the number of distinct items, "value" the sum of the events' values, "rating" the sum of the rated items' last
    values and "rated" how many those are.
    """

    what: What
    events: tuple[EventKind, ...]
    window_ms: int


LOOKED_AT: Final[tuple[EventKind, ...]] = ("impression",)
CLICKED: Final[tuple[EventKind, ...]] = ("click",)
(TAIL,) = (metric for metric in METRICS.values() if metric.measure == "tail items")
"""The metric whose items are looked at one by one, once all of them are known: its events are kept."""


@dataclass(frozen=True, slots=True)
class Clicks:
    """Events that `TAIL` counts: their decision's row, and the item's number."""

    row_E: Narrow
    item_E: Narrow


def tallies_of(metric: Metric, attribution_window_ms: int) -> tuple[Tally, ...]:
    """What a metric's numerator is made from, and behind it what its denominator is, where that is of events too."""
    events, window_ms = metric.events, metric.window_of(attribution_window_ms)
    if metric.measure in ("any", "items"):
        own = (Tally("items", events, window_ms),)
        return (*own, Tally("items", LOOKED_AT, window_ms)) if metric.per == "impression" else own
    if metric.measure == "value":
        return (Tally("value", events, window_ms),)
    if metric.measure == "mean value":
        return Tally("rating", events, window_ms), Tally("rated", events, window_ms)
    return ()


def all_tallies(attribution_window_ms: int) -> tuple[Tally, ...]:
    """What all metrics are made from, each once, and the lists' own impressions and clicks."""
    told = [Tally("items", kind, attribution_window_ms) for kind in (LOOKED_AT, CLICKED)]
    for metric in METRICS.values():
        told += tallies_of(metric, attribution_window_ms)
    return tuple(dict.fromkeys(told))


def earned(slates: Slates, touches: Touches, num: int, tally: Tally) -> Narrow:
    """A tally of `num` decisions, by row. Shape (R,)."""
    return narrow(_counted(slates, touches.within(tally.events, tally.window_ms), num, tally.what))


def _counted(slates: Slates, touches: Touches, num: int, what: What) -> Int64 | Float64:
    if what == "value":
        return np.bincount(touches.row_E, weights=touches.value_E, minlength=num).astype(np.float64)
    pair_E = slates.keys(touches.row_E, touches.item_E)
    if what == "items":
        rows = np.unique(pair_E) // max(1, len(slates.items))
        return np.bincount(rows, minlength=num)
    last = _last(pair_E, touches.received_ms_E)  # a rating that was given again stands for the one before
    weight_E = touches.value_E[last] if what == "rating" else None
    return np.bincount(touches.row_E[last], weights=weight_E, minlength=num)


def _last(pair_E: Int64, received_ms_E: Int64) -> Int64:
    """The place of each pair's latest event."""
    order = np.argsort(-received_ms_E, kind="stable")
    _, newest = np.unique(pair_E[order], return_index=True)
    found: Int64 = order[newest]
    return found
