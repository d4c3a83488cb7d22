"""Records of users and items, written as the stream consumer writes them, for the tests of what reads them."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters
from tastemaker.features.user_state import UserState, after, count_events
from tastemaker.state.keys import Keys

NOW_MS = 1_750_000_000_000
CATEGORIES = {"a": "comedy", "b": "drama", "c": "drama"}
_ids = count()


def event(user_id: str, item_id: str, kind: str, at_ms: int = NOW_MS, value: float | None = None) -> Event:
    return Event(
        event_id=f"e{next(_ids)}",
        user_id=user_id,
        item_id=item_id,
        kind=kind,
        timestamp_ms=at_ms,
        value=value,
    )


def state_of(*events: Event) -> UserState:
    (state,) = after([UserState()], [list(events)], lambda item_id: CATEGORIES.get(item_id, ""))
    return state


def counters_of(events: Sequence[Event], item_ids: Sequence[str]) -> Counters:
    index = {item_id: i for i, item_id in enumerate(item_ids)}
    return count_events(Counters.zeros(len(item_ids)), [(index[one.item_id], one) for one in events])


def write_users(client: Any, keys: Keys, states: Mapping[str, UserState]) -> None:
    for user_id, state in states.items():
        client.set(keys.user(user_id), state.encode())
        client.sadd(keys.changed_users(keys.partition(user_id)), user_id)


def write_items(client: Any, keys: Keys, totals: Mapping[str, bytes]) -> None:
    client.hset(keys.item_totals, mapping=dict(totals))
    client.hset(keys.item_totals_guard, "version", next(_ids))
    client.sadd(keys.changed_totals, *totals)
