"""A fused gateway's stages beside those of a spread graph: the same versions, calls and answers."""

import asyncio
import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from tagged import NUM_ITEMS, write_bundle

from tastemaker import telemetry
from tastemaker.bundle.store import BundleStore
from tastemaker.config_serving import ServingSettings
from tastemaker.registry.live import LiveAliases, LiveVersion
from tastemaker.stages.pipeline import Pipeline
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.graph.fused import FUSED, FusedGraph
from tastemaker_services.replicas.calls import Failed, Send, StageCalls, StageError
from tastemaker_services.replicas.stages import Ranker, Reranker, Retriever

SECONDS = 30.0
COLUMNS = ("item_index", "score", "source_mask", "source_score_KS", "features_KF", "propensity")


@pytest.fixture
def state(state: Any) -> Any:
    """Sources have all the time that they take: answers are compared that have them all."""
    patient = state.settings.model_copy(update={"serving": ServingSettings(source_ms=1000 * SECONDS)})
    return dataclasses.replace(state, settings=patient)


@pytest.fixture
def sha256(state: Any) -> str:
    """Of a bundle that is live."""
    ref = write_bundle(BundleStore.of(state.settings, state.home), hydration={"request_features": ["all"]})
    version = LiveVersion(version=1, uri=ref.uri, sha256=ref.sha256)
    live = LiveAliases(generation=1, aliases={"champion": version})
    state.client.set(state.keys.live, live.model_dump_json())
    return ref.sha256


def spread(state: Any) -> Stages:
    """The stages as plain objects, each called by messages."""
    retriever, ranker, reranker = (kind(state.settings) for kind in (Retriever, Ranker, Reranker))
    sends: list[Send] = [retriever.retrieve, ranker.rank, reranker.rerank, retriever.similar]
    return Stages(*(StageCalls(send) for send in sends))


def queries() -> list[Query]:
    generator = np.random.default_rng(0)
    found = [
        Query(
            generator.permutation(NUM_ITEMS)[:length].astype(np.int32), k=int(generator.integers(1, 12)), seed=seed,
            now_ms=1_764_547_200_000, explore=True, keep_features=bool(seed % 2),
        )
        for seed, length in enumerate([0, 1, 3, 7, 12, 3, 5, 2])
    ]  # fmt: skip
    mask_I = np.arange(NUM_ITEMS) % 3 > 0
    return [*found, Query(found[2].history_L, allowed=mask_I, exclude=np.array([1, 4], np.int32))]


async def answers(stages: Stages, sha256: str, query: Query) -> list[Any]:
    retrieved = await stages.retrieve((sha256, query), SECONDS)
    ranked = await stages.rank((sha256, query, retrieved), SECONDS)
    reranked = await stages.rerank((sha256, query, ranked), SECONDS)
    return [retrieved, ranked, reranked, await stages.similar((sha256, query, 3), SECONDS)]


async def all_answers(stages: Stages, sha256: str) -> list[list[Any]]:
    return await asyncio.gather(*(answers(stages, sha256, query) for query in queries()))


def same(one: Candidates | Sequence[Any], other: Candidates | Sequence[Any]) -> None:
    if isinstance(one, Candidates):
        one, other = ([getattr(found, name) for name in COLUMNS] for found in (one, other))
    for mine, others in zip(one, other, strict=True):
        np.testing.assert_array_equal(mine, others)


def test_a_fused_graph_answers_what_a_spread_one_does(state: Any, sha256: str) -> None:
    fused = asyncio.run(all_answers(FusedGraph(state.settings).stages, sha256))
    asked = asyncio.run(all_answers(spread(state), sha256))
    for mine, others in zip(fused, asked, strict=True):
        for one, other in zip(mine, others, strict=True):
            same(one, other)
    assert any(len(slate) for _, _, slate, _ in fused)


def test_going_through_the_stages_gives_what_each_gives_by_itself(state: Any, sha256: str) -> None:
    stages = FusedGraph(state.settings).stages
    assert stages.through is not None
    limits = dict.fromkeys(("retrieve", "rank", "rerank"), SECONDS)

    async def both(query: Query) -> tuple[list[Any], list[Any]]:
        assert stages.through is not None
        way = await stages.through(sha256, query, limits)
        return [one.answer for one in way.went.values()], (await answers(stages, sha256, query))[:3]

    for query in queries():
        through, by_stage = asyncio.run(both(query))
        for one, other in zip(through, by_stage, strict=True):
            same(one, other)


def test_a_fused_gateway_tells_of_its_versions_under_a_name_of_its_own(state: Any, sha256: str) -> None:
    graph = FusedGraph(state.settings)
    reports = state.client.hgetall(state.keys.ready)
    assert graph.names == {FUSED}
    assert [name.partition("/")[0] for name in reports] == [FUSED]
    assert all(sha256 in report for report in reports.values())
    assert (graph.has_settled(sha256), graph.has_settled("0" * 64)) == (True, False)


def test_a_version_that_is_not_held_is_the_fault_of_that_call(state: Any, sha256: str) -> None:
    stages = FusedGraph(state.settings).stages
    with pytest.raises(StageError, match="the stage failed") as raised:
        asyncio.run(stages.retrieve(("0" * 64, Query(np.empty(0, np.int32))), SECONDS))
    assert "is not loaded here" in str(raised.value.mend)


def test_no_request_waits_for_an_explanation(
    state: Any, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker, query = Ranker(state.settings), queries()[3]
    [retrieved] = asyncio.run(Retriever(state.settings).retrieve([(sha256, query)]))
    assert isinstance(retrieved, Candidates)
    threads: list[str] = []

    def noting(work: Any) -> Any:
        def noted(*args: Any) -> Any:
            threads.append(threading.current_thread().name.rpartition("_")[0])
            return work(*args)

        return noted

    for name in ("rank", "contributions"):
        monkeypatch.setattr(Pipeline, name, noting(getattr(Pipeline, name)))
    [ranked] = asyncio.run(ranker.rank([(sha256, query, retrieved)]))
    assert isinstance(ranked, Candidates)
    [said] = asyncio.run(ranker.contributions([(sha256, query, ranked, int(ranked.item_index[0]))]))
    assert not isinstance(said, Failed)
    assert threads == ["ranker", "ranker-aside"]


def test_all_calls_of_a_message_were_as_long_in_the_stages_process(state: Any, sha256: str) -> None:
    retriever, (one, other, *_) = Retriever(state.settings), queries()
    histogram = telemetry.STAGE_WORK_SECONDS.labels(state.settings.catalogue, "retrieve")
    before = histogram._sum.get()
    calls = [(sha256, one), ("0" * 64, one), (sha256, other)]
    first, gone, last = asyncio.run(retriever.retrieve(calls))
    assert isinstance(first, Candidates)
    assert isinstance(gone, Failed)
    assert isinstance(last, Candidates)
    assert first.worked_seconds == last.worked_seconds > 0
    assert histogram._sum.get() == pytest.approx(before + 3 * first.worked_seconds)
