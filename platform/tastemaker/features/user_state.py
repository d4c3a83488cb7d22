"""What is kept of a user between two events: counters, taste by category, the session, what was refused and shown.

One record a user, written by the stream consumer alone and read by serving in one command. Each part is a function of
the user's events alone, whatever their order and batches, but for what its limit has cut off. Not the long history of
taken items, which is a list of its own (`events.history`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple, Self, TypeVar

import msgpack
import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.events.schema import Event
from tastemaker.features.counters import WEIGHT, Counters, event_weight, row_of
from tastemaker.types import EVENT_WEIGHTS

SCHEMA: Final = 2
AFFINITY_WINDOW_MS: Final = 10 * 86_400_000.0
"""Taste loses a tenth a day: exp(-0.1 * days)."""
SHOWN_WINDOW_MS: Final = 7 * 86_400_000.0
SESSION_GAP_MS: Final = 30 * 60_000
"""Silence after which a session has ended."""
_RECORDS_KEPT: Final = 64
MOST_CATEGORIES, MOST_SESSION, MOST_REFUSED, MOST_SHOWN = 64, 50, 500, 200
REFUSAL_WEIGHTS: Final[Mapping[str, float]] = {"skip": -0.25, "dislike": -0.75, "hide": -1.0}
"""What says that an item was not wanted, and how much; `counters.event_weight` has what was."""
REFUSING: Final = frozenset({"dislike", "hide"})
FORGIVING: Final = frozenset({"like", "purchase"})
T = TypeVar("T")
Category = Callable[[str], str]
"""The category of an item; empty where it has none or the item is unknown."""


class Signal(NamedTuple):
    """What an event said of an item: its weight, below 0 where the item was not wanted."""

    at_ms: int
    item_id: str
    weight: float


class Shown(NamedTuple):
    """Impressions of an item, decayed by `SHOWN_WINDOW_MS` to the moment of the newest."""

    times: float
    last_ms: int

    def at(self, now_ms: int) -> float:
        """How often, as of a moment; see `counters.decay`."""
        return self.times * _left(now_ms - self.last_ms, SHOWN_WINDOW_MS)


_NEVER: Final = Shown(0.0, 0)
_NONE: Final = (-1, False)


@dataclass(slots=True)
class UserState:
    """A user's record. `affinity` is as of the time of `counters`, which hold one record.

    `taken` are the newest items that the user took, `declined` the newest that were not wanted, both oldest first.
    """

    counters: Counters = field(default_factory=lambda: Counters.zeros(1))
    affinity: dict[str, float] = field(default_factory=dict)
    taken: list[Signal] = field(default_factory=list)
    declined: list[Signal] = field(default_factory=list)
    opinions: dict[str, tuple[int, bool]] = field(default_factory=dict)
    shown: dict[str, Shown] = field(default_factory=dict)

    @property
    def last_ms(self) -> int:
        """Time of the newest event; 0 before the first."""
        return int(self.counters.last_ms_N[0])

    def session(self, now_ms: int) -> list[str]:
        """Items taken in the session that goes on, oldest first; none after `SESSION_GAP_MS` of silence."""
        return [signal.item_id for signal in _going_on(self.taken, now_ms)]

    def signals(self, now_ms: int) -> list[Signal]:
        """What was taken and what was not wanted in the session that goes on, oldest first."""
        return _going_on(sorted(self.taken + self.declined), now_ms)

    def refused(self) -> list[str]:
        """Items that the user disliked or hid, and did not like or buy later."""
        return [item_id for item_id, (_, refuses) in self.opinions.items() if refuses]

    def tastes(self, now_ms: int) -> dict[str, float]:
        """Weight by category as of a moment."""
        left = _left(now_ms - self.last_ms, AFFINITY_WINDOW_MS)
        return {name: value * left for name, value in self.affinity.items()}

    def merged(self, other: "UserState") -> "UserState":
        """The record of one who is both users: that of all their events, but for what a limit has cut off."""
        counters = self.counters.merged(other.counters)
        now_ms = int(counters.last_ms_N[0])
        mine, others = self.tastes(now_ms), other.tastes(now_ms)
        both = UserState(
            counters,
            {name: mine.get(name, 0.0) + others.get(name, 0.0) for name in mine | others},
            self.taken + other.taken,
            self.declined + other.declined,
            {
                item_id: max(self.opinions.get(item_id, _NONE), other.opinions.get(item_id, _NONE))
                for item_id in self.opinions | other.opinions
            },
            {
                item_id: _together(self.shown.get(item_id, _NEVER), other.shown.get(item_id, _NEVER))
                for item_id in self.shown | other.shown
            },
        )
        _cut(both)
        return both

    def encode(self) -> bytes:
        """The record as kept."""
        parts = (self.affinity, self.taken, self.declined, self.opinions, self.shown)
        packed: bytes = msgpack.packb((SCHEMA, self.counters.encode()[0], *parts))
        return packed

    @classmethod
    def decode(cls, record: bytes | None) -> Self:
        """What `encode` gave; None is a user of whom nothing is known.

        Records of schema 1, which had no weights, are read as if each item taken had been clicked.

        Raises:
            CompatibilityError: It is no record, or one of a newer release.
        """
        if not record:
            return cls()
        try:
            schema, *parts = msgpack.unpackb(record)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise _foreign(record[:8]) from error
        if schema == 1:
            counters, affinity, taken, opinions, shown = parts
            taken, declined = [(at, item_id, EVENT_WEIGHTS["click"]) for at, item_id in taken], []
        elif schema == SCHEMA:
            counters, affinity, taken, declined, opinions, shown = parts
        else:
            raise _foreign(schema)
        return cls(
            Counters.decode([counters]),
            affinity,
            list(map(Signal._make, taken)),
            list(map(Signal._make, declined)),
            {item_id: (at, refuses) for item_id, (at, refuses) in opinions.items()},
            dict(zip(shown, map(Shown._make, shown.values()), strict=True)),
        )


@lru_cache(_RECORDS_KEPT)
def state_in(record: bytes | None) -> UserState:
    """The state of a record, decoded once for all who ask of a request. Do not change it.

    Raises:
        CompatibilityError: See `UserState.decode`.
    """
    return UserState.decode(record)


def after(
    states: Sequence[UserState], events: Sequence[Sequence[Event]], category: Category
) -> list[UserState]:
    """Users' states after some more events of each, in whatever order; all users at once, which is quicker.

    Args:
        states: They may be changed in place; use the answer.
        events: Each user's own.
        category: Of items.
    """
    counters = Counters(
        np.concatenate([state.counters.value_NKW for state in states]),
        np.concatenate([state.counters.last_ms_N for state in states]),
    )
    owners = [(n, event) for n, own in enumerate(events) for event in own]
    counters = count_events(counters, owners)
    for n, (state, own) in enumerate(zip(states, events, strict=True)):
        _decay_to(state, Counters(counters.value_NKW[n : n + 1], counters.last_ms_N[n : n + 1]))
        for event in own:
            _apply(state, event, category)
        _cut(state)
    return list(states)


def count_events(counters: Counters, events: Sequence[tuple[int, Event]]) -> Counters:
    """Counters after some events, each beside the record that counts it.

    An event adds 1 to the row of its kind and, where it weighs anything, its weight to that of `weight`.
    """
    weights = [event_weight(event.kind, event.value) for _, event in events]
    heavy = [n for n, weight in enumerate(weights) if weight]
    record = np.array([n for n, _ in events], np.int64)
    row = np.array([row_of(event.kind) for _, event in events], np.int64)
    time_ms = np.array([event.timestamp_ms for _, event in events], np.int64)
    return counters.plus(
        np.concatenate([record, record[heavy]]),
        np.concatenate([row, np.full(len(heavy), row_of(WEIGHT))]),
        np.concatenate([np.ones(len(events)), np.array(weights)[heavy]]),
        np.concatenate([time_ms, time_ms[heavy]]),
    )


def _decay_to(state: UserState, counters: Counters) -> None:
    """Gives a state newer counters; its tastes, which are of the same time, fade to it."""
    left = _left(int(counters.last_ms_N[0]) - state.last_ms, AFFINITY_WINDOW_MS)
    state.affinity = {name: value * left for name, value in state.affinity.items()}
    state.counters = counters


def _apply(state: UserState, event: Event, category: Category) -> None:
    at, item_id = event.timestamp_ms, event.item_id
    if event.kind == "impression":
        state.shown[item_id] = _together(state.shown.get(item_id, _NEVER), Shown(1.0, at))
        return
    if event.kind in REFUSING or event.kind in FORGIVING:
        opinion = (at, event.kind in REFUSING)
        state.opinions[item_id] = max(opinion, state.opinions.get(item_id, opinion))
    if event.kind in REFUSAL_WEIGHTS:
        state.declined.append(Signal(at, item_id, REFUSAL_WEIGHTS[event.kind]))
    elif (weight := event_weight(event.kind, event.value)) > 0:
        state.taken.append(Signal(at, item_id, weight))
        if name := category(item_id):
            faded = weight * _left(state.last_ms - at, AFFINITY_WINDOW_MS)
            state.affinity[name] = state.affinity.get(name, 0.0) + faded


def _cut(state: UserState) -> None:
    """Keeps each part within its limit: the strongest tastes, the newest of the rest."""
    state.taken = sorted(state.taken)[-MOST_SESSION:]
    state.declined = sorted(state.declined)[-MOST_SESSION:]
    state.affinity = _most(state.affinity, MOST_CATEGORIES, lambda value: value)
    state.opinions = _most(state.opinions, MOST_REFUSED, lambda opinion: opinion[0])
    state.shown = _most(state.shown, MOST_SHOWN, lambda shown: shown.last_ms)


def _going_on(signals: Sequence[Signal], now_ms: int) -> list[Signal]:
    """The newest of them with no silence of `SESSION_GAP_MS` between two, or between the last and now."""
    after_ms, first = now_ms, len(signals)
    while first and after_ms - signals[first - 1].at_ms <= SESSION_GAP_MS:
        first -= 1
        after_ms = signals[first].at_ms
    return list(signals[first:])


def _left(elapsed_ms: float, window_ms: float) -> float:
    return math.exp(-max(elapsed_ms, 0) / window_ms)


def _together(one: Shown, other: Shown) -> Shown:
    last = max(one.last_ms, other.last_ms)
    return Shown(one.at(last) + other.at(last), last)


def _most(parts: dict[str, T], most: int, key: Callable[[T], float]) -> dict[str, T]:
    if len(parts) <= most:
        return parts
    return dict(sorted(parts.items(), key=lambda part: key(part[1]), reverse=True)[:most])


def _foreign(found: object) -> CompatibilityError:
    return CompatibilityError(
        "a user's record",
        value=found,
        limit=f"schema 1 or {SCHEMA}",
        mend="rebuild it with `tastemaker features rebuild`",
    )
