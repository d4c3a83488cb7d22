"""The events' intake of a gateway on a Valkey of one's own, for as long as something is done with it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tastemaker.config import Settings, StateSettings
from tastemaker.events.schema import Event
from tastemaker.home import Home
from tastemaker.state.connection import connect, connect_async
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.intake import Intake

NOW_MS = 1_750_000_000_000
KEYS = Keys("shop", 4)


def settings_of(**state: Any) -> Settings:
    return Settings(catalogue="shop", state=StateSettings(partitions=4, **state))


@asynccontextmanager
async def intake_at(url: str, home: Home, **state: Any) -> AsyncIterator[Intake]:
    client = connect_async(url)
    intake = Intake(client, url, KEYS, settings_of(**state), home)
    await asyncio.to_thread(intake.start)
    try:
        yield intake
    finally:
        await asyncio.to_thread(intake.stop)
        await client.aclose()


def use(url: str, home: Home, action: Callable[[Intake], Awaitable[Any]], **state: Any) -> Any:
    async def run() -> Any:
        async with intake_at(url, home, **state) as intake:
            return await action(intake)

    return asyncio.run(run())


def events(start: int, count: int, user: str = "u") -> list[Event]:
    return [
        Event(event_id=f"e{n}", user_id=f"{user}{n % 7}", item_id="i", kind="click", timestamp_ms=NOW_MS)
        for n in range(start, start + count)
    ]


def logged(url: str) -> list[str]:
    """Event ids in the log, in each partition's order."""
    with connect(url) as client:
        entries = [entry for p in range(KEYS.partitions) for entry in client.xrange(KEYS.events(p))]
    return [json.loads(fields["e"])["event_id"] for _, fields in entries]
