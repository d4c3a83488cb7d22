"""Users whose profiles are put and read as the gateway does, and what a consumer made of their events."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from streams import event, make_consumer, records

from tastemaker.features.counters import Counters
from tastemaker.home import Home
from tastemaker.state.connection import connect_async
from tastemaker.users.rows import parse_users
from tastemaker_services.gateway.profiles import Profiles
from tastemaker_services.gateway.users import User, read_user


def with_home(state: Any, root: Path) -> Any:
    """The same state beside a home of its own."""
    home = Home.make(root)
    settings = state.settings.model_copy(update={"home": home.root})
    return dataclasses.replace(state, home=home, settings=settings)


def using(state: Any, action: Callable[[Profiles], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client, raw = connect_async(state.url), connect_async(state.url, text=False)
        try:
            return await action(Profiles(client, raw, client, state.keys))
        finally:
            await client.aclose()
            await raw.aclose()

    return asyncio.run(run())


def put(state: Any, *rows: dict[str, Any]) -> None:
    users, rejected = parse_users(rows)
    assert not rejected
    using(state, lambda profiles: profiles.put(users))


def read(state: Any, user_id: str) -> User:
    async def run() -> User:
        raw = connect_async(state.url, text=False)
        try:
            return await read_user(raw, state.keys, user_id)
        finally:
            await raw.aclose()

    return asyncio.run(run())


def drain(state: Any) -> None:
    worker = make_consumer(state)
    assert worker.drain(20)
    worker.close()


def clicks(user: str, *items: str, **fields: Any) -> list[Any]:
    return [event(user, item, "click", **fields) for item in items]


def weight(state: Any, user: str, item: str) -> float:
    found = records(state, state.keys.item_counters(state.keys.partition(user)), [item])
    return float(Counters.decode(found).value_NKW[0].max())


def has_past(state: Any, user: str) -> bool:
    return bool(state.client.exists(state.keys.user(user), state.keys.history(user)))
