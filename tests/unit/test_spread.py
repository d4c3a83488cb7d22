"""A spread graph's calls through handles: what travels, who is asked, and what it says of itself."""

import asyncio
from typing import Any

import numpy as np

from tastemaker.types import Candidates, Query
from tastemaker_services.graph.spread import SpreadGraph, one_retriever

ALLOWED = np.array([True, False, True])


class Handle:
    """A deployment's handle whose methods note what was sent, and answer with it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.sent: list[tuple[str, Any]] = []
        self._fails = fails

    def options(self, **_: object) -> "Handle":
        return self

    def __getattr__(self, method: str) -> Any:
        return _Method(self, method)


class _Method:
    def __init__(self, handle: Handle, name: str) -> None:
        self._handle, self._name = handle, name

    async def remote(self, *arguments: Any) -> Any:
        self._handle.sent.append((self._name, arguments))
        if self._handle._fails:
            raise RuntimeError("gone")
        return arguments[-1] if arguments else []


def graph_of(*handles: Handle) -> SpreadGraph:
    retriever, *others = handles
    return SpreadGraph(one_retriever(retriever), *others)  # type: ignore[arg-type]


def test_ranking_is_not_sent_the_mask_of_what_is_allowed() -> None:
    handles = [Handle() for _ in range(3)]
    query, none = Query(np.array([1], np.int32), k=7, allowed=ALLOWED), Candidates.empty(1)

    async def ask() -> list[Any]:
        stages = graph_of(*handles).stages
        return [
            await stages.retrieve(("sha", query), 5.0),
            await stages.rank(("sha", query, none), 5.0),
            await stages.rerank(("sha", query, none), 5.0),
        ]

    retrieved, (sha256, sent, candidates), reranked = asyncio.run(ask())
    assert (retrieved[1], reranked[1:]) == (query, (query, none))
    assert (sha256, sent.allowed, sent.k, candidates) == ("sha", None, 7, none)
    assert [handle.sent[0][0] for handle in handles] == ["retrieve", "rank", "rerank"]


def test_calls_of_one_moment_travel_together() -> None:
    handles = [Handle() for _ in range(3)]

    async def ask() -> int:
        graph = graph_of(*handles)
        query = Query(np.empty(0, np.int32))
        await asyncio.gather(*(graph.stages.retrieve((str(n), query), 5.0) for n in range(20)))
        return len(handles[0].sent)

    assert asyncio.run(ask()) == 2  # 16 and 4


def test_a_handle_that_does_not_answer_is_named() -> None:
    assert asyncio.run(graph_of(Handle(), Handle(), Handle()).why_not_ready()) is None
    reason = asyncio.run(graph_of(Handle(), Handle(fails=True), Handle()).why_not_ready())
    assert reason == "a stage that does not answer: gone"
