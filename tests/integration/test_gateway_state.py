"""What the gateway reads and keeps of its users, on a real Valkey."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gateway_world import candidates
from histories import put_histories

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.events.schema import Event
from tastemaker.features.user_state import UserState, after
from tastemaker.state.connection import connect_async
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.cache import MOST_LISTS, Kept, ResultCache
from tastemaker_services.gateway.users import User, read_user

NOW_MS = 1_750_000_000_000
_KEYS = Keys("unreachable", 4)


def using(url: str, action: Callable[[Any], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = connect_async(url, text=False)
        try:
            return await action(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def read(state: Any, user_id: str) -> User:
    found: User = using(state.url, lambda client: read_user(client, state.keys, user_id))
    return found


def write_record(state: Any, user_id: str, *kinds: str) -> None:
    events = [
        Event(event_id=f"e{n}", user_id=user_id, item_id=f"ï{n}", kind=kind, timestamp_ms=NOW_MS + n)  # type: ignore[arg-type]
        for n, kind in enumerate(kinds)
    ]
    (record,) = after([UserState()], [events], category=lambda _: "")
    state.client.set(state.keys.user(user_id), record.encode())


def test_history_and_record_are_read_together(state: Any) -> None:
    put_histories(state.client, state.keys, {"ann": ["a", "ü", "b"]})
    write_record(state, "ann", "click", "dislike", "hide", "impression")
    user = read(state, "ann")
    assert user.history == ["a", "ü", "b"]
    assert user.state is not None
    assert sorted(user.state.refused()) == ["ï1", "ï2"]
    assert set(user.state.shown) == {"ï3"}


def test_a_user_of_whom_nothing_is_known_is_empty(state: Any) -> None:
    user = read(state, "nobody")
    assert user.history == []
    assert user.state is not None
    assert user.state.encode() == UserState().encode()


def test_the_version_is_another_after_whatever_changes_history_or_record(state: Any) -> None:
    versions = [read(state, "ann").version]
    for change in (
        lambda: put_histories(state.client, state.keys, {"ann": ["a", "bc"]}),
        lambda: put_histories(state.client, state.keys, {"ann": ["ca", "b"]}),
        lambda: write_record(state, "ann", "click"),
        lambda: write_record(state, "ann", "click", "impression"),
        lambda: state.client.delete(state.keys.user("ann"), state.keys.history("ann")),
    ):
        change()
        versions.append(read(state, "ann").version)
    assert versions[0] == versions[-1]  # nothing is known, again
    assert len(set(versions)) == len(versions) - 1
    assert read(state, "ann").version == read(state, "bob").version == versions[0]


def test_a_record_of_another_release_leaves_the_history(state: Any) -> None:
    put_histories(state.client, state.keys, {"ann": ["a"]})
    state.client.set(state.keys.user("ann"), b"\x93\xcd\x03\xe7\x00\x00")
    user = read(state, "ann")
    assert (user.history, user.state) == (["a"], None)


def test_a_state_that_cannot_be_reached_says_so() -> None:
    with pytest.raises(StateError, match="cannot read a user"):
        using("redis://127.0.0.1:1", lambda client: read_user(client, _KEYS, "u"))


# Kept lists


def kept(made_ms: int = NOW_MS, rows: tuple[int, ...] = (3, 1)) -> Kept:
    return Kept(b"v", "r1", made_ms, candidates(rows))


def test_a_list_is_kept_for_its_time_under_one_key_of_its_user(state: Any) -> None:
    async def keep_and_get(client: Any) -> list[Kept | None]:
        cache = ResultCache(client, state.keys, seconds=60)
        cache.keep("ann", b"q1", kept())
        cache.keep("ann", b"q2", kept(rows=(7,)))
        await cache.settle()
        asked = [
            ("ann", b"q1", 0),
            ("ann", b"q2", 59_999),
            ("ann", b"q2", 60_000),
            ("ann", b"q3", 0),
            ("bob", b"q1", 0),
        ]
        return [await cache.get(user, question, 2, NOW_MS + later) for user, question, later in asked]

    found = using(state.url, keep_and_get)
    assert [one and one.slate.item_index.tolist() for one in found] == [[3, 1], [7], None, None, None]
    key = state.keys.cached_lists("ann")
    assert 0 < state.client.ttl(key) <= 60
    state.client.delete(key)  # an erasure

    async def get(client: Any) -> Kept | None:
        return await ResultCache(client, state.keys, 60).get("ann", b"q1", 2, NOW_MS)

    assert using(state.url, get) is None


def test_a_user_who_asks_everything_does_not_fill_the_cache(state: Any) -> None:
    async def ask(client: Any) -> None:
        cache = ResultCache(client, state.keys, seconds=60)
        for n in range(10 * MOST_LISTS):
            cache.keep("ann", f"q{n}".encode(), kept())
            await cache.settle()

    using(state.url, ask)
    assert state.client.hlen(state.keys.cached_lists("ann")) <= MOST_LISTS


def test_a_cache_that_cannot_be_reached_is_counted_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    lost = telemetry.CACHE.labels(_KEYS.catalogue, "not-kept")
    before = lost._value.get()

    async def keep(client: Any) -> None:
        cache = ResultCache(client, _KEYS, seconds=60)
        for _ in range(3):
            cache.keep("ann", b"q", kept())
        await cache.settle()
        with pytest.raises(StateError, match="cannot read a kept list"):
            await cache.get("ann", b"q", 2, NOW_MS)

    using("redis://127.0.0.1:1", keep)
    assert lost._value.get() == before + 3
    assert len(caplog.records) == 1
