"""Free texts of new users become vectors in the background, and those the query, on a real Valkey."""

import asyncio
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from gateway_world import World, make_face

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.features.interests import encode_interests
from tastemaker.state.connection import connect_async
from tastemaker.users.profile import Interest, Onboarding, Profile
from tastemaker.users.profiles import put_profiles, read_profile_async
from tastemaker.users.rows import parse_users
from tastemaker_services.gateway.pins import Pin

TITLES = ["a slow film about the sea", "cars and guns", "the sea and its fish"]


@pytest.fixture
def space() -> ContentSpace:
    items = pa.Table.from_pylist(
        [{"item_id": f"i{n}", "title": title} for n, title in enumerate(TITLES)], schema=ITEMS_SCHEMA
    )
    return ContentSpace.fit(items, ContentConfig(dim=64, metadata_dim=16))


def put(state: Any, user_id: str, **onboarding: Any) -> None:
    async def run() -> None:
        client = connect_async(state.url)
        users, rejected = parse_users([{"user_id": user_id, "onboarding": onboarding}])
        assert not rejected
        await put_profiles(client, state.keys, users, 5)
        await client.aclose()

    asyncio.run(run())


def interest(state: Any, user_id: str) -> Interest | None:
    async def run() -> Profile | None:
        client = connect_async(state.url)
        try:
            return await read_profile_async(client, state.keys, user_id)
        finally:
            await client.aclose()

    found = asyncio.run(run())
    return found.interest if found else None


def test_texts_are_encoded_once_and_anew_when_they_change(state: Any, space: ContentSpace) -> None:
    put(state, "ann", text="sea", liked=["i1"])
    put(state, "bob", liked=["i1"])
    assert interest(state, "ann") is None
    assert encode_interests(state.client, state.keys, space) == 2
    assert encode_interests(state.client, state.keys, space) == 0
    first = interest(state, "ann")
    assert first is not None
    assert first.fingerprint == space.fingerprint
    np.testing.assert_allclose(first.vector, space.encode_texts(["sea"])[0], atol=1e-7)
    assert interest(state, "bob") is None
    put(state, "ann", text="guns")
    assert interest(state, "ann") is None  # that of the earlier text is gone at once
    encode_interests(state.client, state.keys, space)
    second = interest(state, "ann")
    assert second is not None
    assert second.vector != first.vector
    put(state, "ann", text="")
    encode_interests(state.client, state.keys, space)
    assert interest(state, "ann") is None


def test_a_text_that_changes_while_it_is_encoded_stays_marked(
    state: Any, space: ContentSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(state, "ann", text="sea")
    kept = space.encode_texts

    def encode(texts: Any) -> Any:
        put(state, "ann", text="guns")
        return kept(texts)

    monkeypatch.setattr(space, "encode_texts", encode)
    encode_interests(state.client, state.keys, space)
    assert interest(state, "ann") is None
    monkeypatch.undo()
    assert encode_interests(state.client, state.keys, space) == 1
    found = interest(state, "ann")
    assert found is not None
    np.testing.assert_allclose(found.vector, space.encode_texts(["guns"])[0], atol=1e-7)


def test_the_query_of_a_new_user_has_the_vector_where_it_is_of_the_bundles_space() -> None:
    world = World()
    face = make_face()
    face.content_fingerprint = "space"
    world.pins["champion"] = Pin(1, face)
    answers = Onboarding(text="sea")
    world.profiles["new"] = Profile(
        onboarding=answers, interest=Interest(fingerprint="space", vector=(1.0, 0.0))
    )
    world.profiles["other"] = Profile(onboarding=answers, interest=Interest(fingerprint="old", vector=(1.0,)))
    world.profiles["old"] = world.profiles["new"]  # who has a history
    for user in ("new", "other", "old"):
        world.graph.queries.clear()
        world.recommend(user)
        _, _, query = world.graph.queries[0]
        found = None if query.interest_D is None else query.interest_D.tolist()
        assert found == ([1.0, 0.0] if user == "new" else None)
