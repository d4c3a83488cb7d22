"""A catalogue on a Redis Cluster, and what its consumers made of its events."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import redis
from streams import NOW_MS, event, make_consumer, records

from tastemaker.config import Settings
from tastemaker.events.log import append
from tastemaker.events.schema import Event
from tastemaker.features.counters import Counters, row_of
from tastemaker.features.rankings import top
from tastemaker.home import Home
from tastemaker.state.connection import connect_async
from tastemaker.state.keys import Keys

PARTITIONS = 16
USERS, ITEMS = [f"u{n}" for n in range(60)], [f"i{n}" for n in range(12)]


@dataclass(frozen=True)
class State:
    """A catalogue of a test's own, on the Valkey or cluster that runs."""

    client: redis.Redis
    keys: Keys
    home: Home
    settings: Settings
    url: str


def some_events(number: int, start: int = 0) -> list[Event]:
    return [
        event(USERS[n * 7 % len(USERS)], ITEMS[n * n % len(ITEMS)], event_id=f"e{n}")
        for n in range(start, start + number)
    ]


def apply(state: State, events: list[Event]) -> None:
    append(state.client, state.keys, events, state.settings.state, NOW_MS)
    worker = make_consumer(state)
    assert worker.drain()
    worker.close()


def run_async(state: State, action: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = connect_async(state.url, text=False)
        try:
            return await action(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def clicks(state: State) -> Counter[str]:
    """Clicks by item, as the totals have them."""
    found = Counters.decode(records(state, state.keys.item_totals, ITEMS))
    numbers = found.value_NKW[:, row_of("click"), -1]
    return Counter({item: round(n) for item, n in zip(ITEMS, numbers, strict=True) if n})


def popular(state: State, k: int) -> list[str]:
    found: list[str] = top(state.client, state.keys, "popular", k, NOW_MS).item_ids
    return found
