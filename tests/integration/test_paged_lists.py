"""Where long lists are kept that are shown page by page, on a real Valkey."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tastemaker.errors import StateError
from tastemaker.events.erasure import erase_online
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.assignment import Assignment
from tastemaker.state.connection import connect_async
from tastemaker.state.keys import Keys
from tastemaker_services.gateway.pages import MOST_LISTS, PagedList, PageStore

NOW_MS = 1_750_000_000_000
DRAWN = Assignment("front", "B", "challenger", 0.25, (0.75, 0.25), "thompson-3", "h", 7, arm_context=(0, 3))
ASSIGNED = Assigned((DRAWN,))


def paged(number: int = 0, made_ms: int = NOW_MS) -> PagedList:
    items = [{"item_id": f"ü{n}", "score": 0.5, "rank": n + 1, "because": None} for n in range(3)]
    return PagedList(f"r{number}", made_ms, ("b", 4), '{"user_id":"-"}', True, items, [1, 2, 3], ASSIGNED)


def using(state: Any, action: Callable[[PageStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = connect_async(state.url, text=False)
        try:
            return await action(PageStore(client, state.keys, 60))
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_a_list_comes_back_as_it_was_kept_by_its_name_and_user_alone(state: Any) -> None:
    async def keep_and_get(store: PageStore) -> list[PagedList | None]:
        name, other = await store.keep("ann", paged(1)), await store.keep("ann", paged(2))
        assert name != other
        asked = [
            ("ann", name, 0),
            ("ann", other, 59_999),
            ("ann", name, 60_000),
            ("bob", name, 0),
            ("ann", b"x", 0),
        ]
        return [await store.get(user, which, NOW_MS + later) for user, which, later in asked]

    assert using(state, keep_and_get) == [paged(1), paged(2), None, None, None]
    assert 0 < state.client.ttl(state.keys.paged_lists("ann")) <= 60


def test_one_user_does_not_fill_the_cache_and_keeps_the_newest(state: Any) -> None:
    async def keep(store: PageStore) -> PagedList | None:
        for number in range(3 * MOST_LISTS):
            name = await store.keep("ann", paged(number))
        return await store.get("ann", name, NOW_MS)

    assert using(state, keep) == paged(3 * MOST_LISTS - 1)
    assert state.client.hlen(state.keys.paged_lists("ann")) <= MOST_LISTS


def test_an_erasure_takes_a_users_lists(state: Any) -> None:
    using(state, lambda store: store.keep("ann", paged()))
    using(state, lambda store: store.keep("bob", paged()))
    removed = erase_online(state.client, state.client, state.keys, "ann", NOW_MS)
    assert removed["lists"] == 1
    assert not state.client.exists(state.keys.paged_lists("ann"))
    assert state.client.exists(state.keys.paged_lists("bob"))


def test_a_list_of_another_release_is_none() -> None:
    assert PagedList.decode(None) is None
    assert PagedList.decode(b"\x92\x63\x01") is None  # schema 99


def test_a_cache_that_cannot_be_reached_says_so() -> None:
    async def ask() -> None:
        client = connect_async("redis://127.0.0.1:1", text=False)
        store = PageStore(client, Keys("unreachable", 4), 60)
        with pytest.raises(StateError, match="cannot keep a list for its pages"):
            await store.keep("ann", paged())
        with pytest.raises(StateError, match="cannot read a list for its pages"):
            await store.get("ann", b"n", NOW_MS)
        await client.aclose()

    asyncio.run(ask())
