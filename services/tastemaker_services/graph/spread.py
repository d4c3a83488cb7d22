"""What the gateway's process holds of the graph: here, handles of stages that are processes of their own.

`fused.FusedGraph` is the other kind, which runs the stages in the gateway's process.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from tastemaker import telemetry
from tastemaker_services.gateway.ladder import Call, Stages
from tastemaker_services.gateway.pins import STAGES
from tastemaker_services.replicas.calls import MAX_BATCH, Send, StageCalls

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

READY_SECONDS = 5.0
_PLAIN_PICKLE = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""Between our own processes, under Ray's token; the default, cloudpickle, costs three times as much."""


class Graph(Protocol):
    """The stages behind a gateway, wherever they run."""

    stages: Stages

    @property
    def aside(self) -> Sequence[Call]:
        """Retrieval, ranking and reranking in threads of their own, for what must hold up no request."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """Under which names those who run them tell which versions they hold."""
        ...

    def follow(self, num_replicas: Mapping[str, int]) -> None:
        """Takes note of how many replicas there are, by name."""
        ...

    async def why_not_ready(self) -> str | None:
        """Which stage does not answer; None where all do."""
        ...


class SpreadGraph:
    """Stages in processes of their own.

    Args:
        retriever: Its handle.
        ranker: Its handle.
        reranker: Its handle.
        most: Calls that travel together.
    """

    names = STAGES

    def __init__(
        self,
        retriever: "DeploymentHandle",
        ranker: "DeploymentHandle",
        reranker: "DeploymentHandle",
        most: int = MAX_BATCH,
        catalogue: str = "default",
    ) -> None:
        self._handles = [handle.options(**_PLAIN_PICKLE) for handle in (retriever, ranker, reranker)]
        retrieval, ranking, reranking = self._handles
        self._calls = {
            "retriever": StageCalls(_sender(retrieval.retrieve), most, _counted(catalogue, "retriever")),
            "ranker": StageCalls(_lightly(_sender(ranking.rank)), most, _counted(catalogue, "ranker")),
            "reranker": StageCalls(_sender(reranking.rerank), most, _counted(catalogue, "reranker")),
        }
        self.stages = Stages(
            retrieve=self._calls["retriever"],
            rank=self._calls["ranker"],
            rerank=self._calls["reranker"],
            similar=StageCalls(_sender(retrieval.similar), most),
            search=StageCalls(_sender(retrieval.search), most),
            say=StageCalls(_sender(retrieval.say), most),
            reorder=StageCalls(_sender(reranking.reorder), most),
        )

        self.aside = tuple(
            StageCalls(_aside(handle, part), most)
            for handle, part in zip(self._handles, ("retrieve", "rank", "rerank"), strict=True)
        )

    def follow(self, num_replicas: Mapping[str, int]) -> None:
        """Keeps as many messages under way as there are replicas."""
        for name, calls in self._calls.items():
            calls.num_replicas = max(1, num_replicas.get(name, 1))

    async def why_not_ready(self) -> str | None:
        """Which stage does not answer a call through its handle."""
        calls = [asyncio.wait_for(_held(handle), READY_SECONDS) for handle in self._handles]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        failed = [
            str(answer) or type(answer).__name__ for answer in answers if isinstance(answer, BaseException)
        ]
        return f"a stage that does not answer: {failed[0]}" if failed else None


def _sender(method: Any) -> Send:
    async def send(calls: list[Any]) -> Any:
        return await method.remote(calls)

    return send


def _lightly(send: Send) -> Send:
    """Without the mask of what is allowed, a byte an item: ranking adds nothing to what retrieval found under it."""

    async def send_lightly(calls: list[Any]) -> Any:
        return await send([(sha256, replace(query, allowed=None), *rest) for sha256, query, *rest in calls])

    return send_lightly


def _aside(handle: "DeploymentHandle", part: str) -> Send:
    async def send(calls: list[Any]) -> Any:
        return await handle.aside.remote(part, calls)

    return send


async def _held(handle: "DeploymentHandle") -> Any:
    return await handle.held.remote()


def _counted(catalogue: str, stage: str) -> Callable[[int], None]:
    return telemetry.MESSAGE_CALLS.labels(catalogue, stage).observe
