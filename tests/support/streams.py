"""Events and consumers for tests on a real Valkey."""

import itertools
import time
from collections.abc import Sequence
from typing import Any

from tastemaker.events.consumer import StreamConsumer
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.features.stream import StreamFeatures
from tastemaker.features.user_state import UserState

_ids = itertools.count()
NOW_MS = int(time.time() * 1000)
DAY_MS = 86_400_000


def make_consumer(state: Any, lease_seconds: float = 15.0) -> StreamConsumer:
    return StreamConsumer(
        state.client, state.keys, state.home, state.settings, RewardJoiner(state.client, state.keys),
        StreamFeatures(state.client, state.keys, state.home, state.settings.state.trend_window), lease_seconds,
    )  # fmt: skip


def event(user: str, item: str, kind: str = "click", **fields: Any) -> Event:
    defaults = {"event_id": f"s{next(_ids)}", "timestamp_ms": NOW_MS, "origin": "live"}
    return Event(user_id=user, item_id=item, kind=kind, **defaults | fields)


def send(state: Any, *events: Event) -> None:
    append(state.client, state.keys, events, state.settings.state, NOW_MS, durable=False)


def records(state: Any, key: str, names: Sequence[str]) -> list[bytes | None]:
    """Fields of a hash, not decoded."""
    found: list[bytes | None] = state.client.execute_command("HMGET", key, *names, NEVER_DECODE=True)
    return found


def user_state(state: Any, user: str) -> UserState:
    return UserState.decode(state.client.execute_command("GET", state.keys.user(user), NEVER_DECODE=True))
