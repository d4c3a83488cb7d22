"""What joins one user to another: a record, a history and parts of a profile, and the sum of two. Not how it travels (`merging`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgpack

from tastemaker.events.history import NOT_HISTORY
from tastemaker.events.schema import Event
from tastemaker.features.user_state import Category, UserState, after
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command


class Parcel(NamedTuple):
    """What is to join another user: a record, a history (newest first), and parts of a profile."""

    record: bytes = b""
    history: Sequence[str] = ()
    parts: Mapping[str, str] = {}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to join."""
        return not (self.record or self.history or self.parts)

    def posted(self, keys: Keys, user_id: str) -> Command:
        """Puts it into the outbox of the partition of whose it was."""
        packed: bytes = msgpack.packb((self.record, list(self.history), dict(self.parts)))
        return "XADD", keys.outbox(keys.partition(user_id)), "*", "user", user_id, "parcel", packed

    @classmethod
    def unpack(cls, packed: bytes) -> "Parcel":
        """What `posted` packed."""
        return cls(*msgpack.unpackb(packed))


class Known(NamedTuple):
    """A user as kept."""

    record: bytes
    history: list[str]
    parts: dict[str, str]


def parcel_of(events: Sequence[Event], category: Category) -> Parcel:
    """What some events of a merged user are for the one that it is by now."""
    (state,) = after([UserState()], [list(events)], category)
    taken = [event.item_id for event in events if event.kind not in NOT_HISTORY]
    return Parcel(state.encode(), list(dict.fromkeys(reversed(taken))))


def joined(known: Known, parcels: Sequence[Parcel], length: int) -> tuple[UserState, list[str]]:
    """A user's record and history, newest first, with what joins it."""
    state, history = UserState.decode(known.record), known.history
    for parcel in parcels:
        other = UserState.decode(parcel.record)
        history = together(_timed(history, state), _timed(parcel.history, other))[:length]
        state = state.merged(other)
    return state, history


def together(one: Sequence[tuple[int, str]], other: Sequence[tuple[int, str]]) -> list[str]:
    """Two histories as one, newest first, each item at its newest place; of equal times `other`'s goes first.

    >>> together([(9, "a"), (4, "b")], [(7, "c"), (4, "a"), (1, "d")])
    ['a', 'c', 'b', 'd']
    """
    both = sorted([*other, *one], key=lambda taken: taken[0], reverse=True)
    return list(dict.fromkeys(item_id for _, item_id in both))


def _timed(history: Sequence[str], state: UserState) -> list[tuple[int, str]]:
    """A history with times that never rise: an item of which the record says nothing has that of the one before it."""
    newest: dict[str, int] = {}
    for signal in state.taken:
        newest[signal.item_id] = max(signal.at_ms, newest.get(signal.item_id, 0))
    timed, at = [], state.last_ms
    for item_id in history:
        at = min(at, newest.get(item_id, at))
        timed.append((at, item_id))
    return timed
