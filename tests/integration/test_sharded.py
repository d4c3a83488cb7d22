"""Replicas of the retriever's shards beside a retriever of the whole: the same versions, calls and answers."""

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest
from tagged import NUM_ITEMS, items_table, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config_serving import RetrieverSettings, ServingSettings
from tastemaker.features.content import ContentConfig, ContentSpace
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.graph.shards import shards_of
from tastemaker_services.graph.spread import Retrievers, one_retriever
from tastemaker_services.replicas.shards import RetrieverShard
from tastemaker_services.replicas.stages import Retriever

SECONDS = 60.0
NUM_SHARDS = 3
ALL = ("two_tower", "ease", "als", "content", "recent", "popular", "trending", "editorial")


@pytest.fixture
def state(state: Any) -> Any:
    """Sources and shards have all the time that they take: answers are compared that have them all."""
    serving = ServingSettings(
        source_ms=1000 * SECONDS, retriever=RetrieverSettings(shards=NUM_SHARDS, shard_ms=1000 * SECONDS)
    )
    return dataclasses.replace(state, settings=state.settings.model_copy(update={"serving": serving}))


@pytest.fixture
def bundle(state: Any) -> Bundle:
    """Live; its quotas are such that no equal scores stand at their borders."""
    store = BundleStore.of(state.settings, state.home)
    space = ContentSpace.fit(items_table(), ContentConfig())
    ref = write_bundle(store, space=space, retrieval_sources=[{"name": name, "quota": 40} for name in ALL])
    version = LiveVersion(version=1, uri=ref.uri, sha256=ref.sha256)
    live = LiveAliases(generation=1, aliases={"champion": version})
    state.client.set(state.keys.live, live.model_dump_json())
    return Bundle.open(store, ref)


class Handle:
    """A replica in this process, called as a deployment's handle is."""

    def __init__(self, replica: Any) -> None:
        self._replica = replica

    def options(self, **_: object) -> "Handle":
        return self

    def __getattr__(self, method: str) -> Any:
        return type("Method", (), {"remote": staticmethod(getattr(self._replica, method))})


def graphs(state: Any, bundle: Bundle) -> tuple[Retrievers, Retrievers]:
    """Of the whole, and in shards."""
    face = BundleFace.of(bundle)
    shards = [Handle(RetrieverShard(state.settings, number)) for number in range(NUM_SHARDS)]
    whole = one_retriever(Handle(Retriever(state.settings)))  # type: ignore[arg-type]
    return whole, shards_of(shards, state.settings, {bundle.ref.sha256: face.merging}.get)  # type: ignore[arg-type]


def queries() -> list[Query]:
    rng = np.random.default_rng(0)
    some = [
        Query(rng.permutation(NUM_ITEMS)[:length].astype(np.int32), k=int(rng.integers(1, 30)), seed=seed)
        for seed, length in enumerate([0, 1, 3, 7, 2])
    ]
    mask_I = np.arange(NUM_ITEMS) % 3 > 0
    return [*some, dataclasses.replace(some[2], allowed=mask_I, exclude=np.array([1, 4], np.int32))]


async def answers(graph: Retrievers, sha256: str, query: Query) -> list[Any]:
    return [
        await graph.retrieve((sha256, query), SECONDS),
        await graph.aside((sha256, query), SECONDS),
        await graph.similar((sha256, query, 3), SECONDS),
        await graph.search((sha256, query, "i3 t3", 0.5), SECONDS),
        await graph.say((sha256, query, 20), SECONDS),
    ]


def nearly(mine: Candidates, theirs: Candidates) -> None:
    """Products of the same vectors are summed in another order beside other rows, and so equals stand in another order."""
    one, other = (found.take(np.argsort(found.item_index)) for found in (mine, theirs))
    np.testing.assert_array_equal(one.item_index, other.item_index)
    np.testing.assert_array_equal(one.source_mask, other.source_mask)
    np.testing.assert_allclose(one.source_score_KS, other.source_score_KS, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-4, atol=1e-5)
    assert (one.missing_shards, one.missing_sources) == (0, 0)


def test_shards_answer_what_a_retriever_of_the_whole_does(state: Any, bundle: Bundle) -> None:
    whole, sharded = graphs(state, bundle)
    for query in queries():
        mine = asyncio.run(answers(sharded, bundle.ref.sha256, query))
        theirs = asyncio.run(answers(whole, bundle.ref.sha256, query))
        for n in range(2):
            nearly(mine[n], theirs[n])
        for n in (2, 3):  # equals may be others
            np.testing.assert_allclose(mine[n][1], theirs[n][1], rtol=1e-5, atol=1e-6)
        assert [said.source for said in mine[4]] == list(ALL)
        assert [said.num_proposed for said in mine[4]] == [said.num_proposed for said in theirs[4]]


def test_each_shard_tells_of_its_versions_under_its_own_name(state: Any, bundle: Bundle) -> None:
    _, sharded = graphs(state, bundle)
    names = {name.partition("/")[0] for name in state.client.hgetall(state.keys.ready)}
    assert names - {"retriever"} == set(sharded.calls) == {f"retriever-{n}" for n in range(NUM_SHARDS)}


def test_a_shard_whose_version_is_another_is_missing_and_not_mixed_in(state: Any, bundle: Bundle) -> None:
    whole, sharded = graphs(state, bundle)
    query = queries()[3]
    replica = sharded.handles[1]._replica  # type: ignore[attr-defined]
    replica._versions.drop(bundle.ref.sha256)
    found = asyncio.run(sharded.retrieve((bundle.ref.sha256, query), SECONDS))
    expected = asyncio.run(whole.retrieve((bundle.ref.sha256, query), SECONDS))
    assert found.missing_shards == 1
    third = NUM_ITEMS // NUM_SHARDS
    assert not np.isin(found.item_index, np.arange(third, 2 * third)).any()
    assert set(found.item_index.tolist()) < set(expected.item_index.tolist())
