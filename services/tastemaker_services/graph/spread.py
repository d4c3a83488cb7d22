"""What the gateway's process holds of the graph: here, handles of stages that are processes of their own.

`fused.FusedGraph` is the other kind, which runs the stages in the gateway's process.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from tastemaker import telemetry
from tastemaker_services.gateway.ladder import Call, Stages
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

    def has_settled(self, sha256: str, /) -> bool:
        """Whether the stages of this process hold a version or refused it, so that the gateway reads it after them."""
        ...

    def follow(self, num_replicas: Mapping[str, int]) -> None:
        """Takes note of how many replicas there are, by name."""
        ...

    async def why_not_ready(self) -> str | None:
        """Which stage does not answer; None where all do."""
        ...


@dataclass(frozen=True, slots=True)
class Retrievers:
    """The calls that retrieval answers, and the deployments behind them: one, or one for each shard.

    `calls` are those whose replicas the gateway counts, by the names under which these tell of themselves.
    """

    handles: "Sequence[DeploymentHandle]"
    calls: Mapping[str, StageCalls]
    retrieve: Call
    similar: Call
    search: Call
    say: Call
    aside: Call


def one_retriever(
    handle: "DeploymentHandle", most: int = MAX_BATCH, catalogue: str = "default"
) -> Retrievers:
    """A retriever of the whole catalogue.

    Args:
        handle: Of its deployment.
        most: Calls that travel together.
        catalogue: For the metrics.
    """
    plain = plainly(handle)
    retrieve = StageCalls(sender(plain.retrieve), most, counted(catalogue, "retriever"))
    return Retrievers(
        handles=[plain],
        calls={"retriever": retrieve},
        retrieve=retrieve,
        similar=StageCalls(sender(plain.similar), most),
        search=StageCalls(sender(plain.search), most),
        say=StageCalls(sender(plain.say), most),
        aside=StageCalls(aside_of(plain, "retrieve"), most),
    )


class SpreadGraph:
    """Stages in processes of their own.

    Args:
        retrievers: See `one_retriever`, `shards.shards_of`.
        ranker: Its handle.
        reranker: Its handle.
        most: Calls that travel together.
        catalogue: For the metrics.
    """

    def __init__(
        self,
        retrievers: Retrievers,
        ranker: "DeploymentHandle",
        reranker: "DeploymentHandle",
        most: int = MAX_BATCH,
        catalogue: str = "default",
    ) -> None:
        ranking, reranking = plainly(ranker), plainly(reranker)
        self._groups = [retrievers.handles, [ranking], [reranking]]
        self._calls = {
            **retrievers.calls,
            "ranker": StageCalls(_lightly(sender(ranking.rank)), most, counted(catalogue, "ranker")),
            "reranker": StageCalls(sender(reranking.rerank), most, counted(catalogue, "reranker")),
        }
        self.names = frozenset(self._calls)
        self.stages = Stages(
            retrieve=retrievers.retrieve,
            rank=self._calls["ranker"],
            rerank=self._calls["reranker"],
            similar=retrievers.similar,
            search=retrievers.search,
            say=retrievers.say,
            contributions=StageCalls(_lightly(sender(ranking.contributions)), most),
            reorder=StageCalls(sender(reranking.reorder), most),
        )
        self.aside = (
            retrievers.aside,
            StageCalls(aside_of(ranking, "rank"), most),
            StageCalls(aside_of(reranking, "rerank"), most),
        )

    def has_settled(self, _: str, /) -> bool:
        """There are none in this process."""
        return True

    def follow(self, num_replicas: Mapping[str, int]) -> None:
        """Keeps as many messages under way as there are replicas."""
        for name, calls in self._calls.items():
            calls.num_replicas = max(1, num_replicas.get(name, 1))

    async def why_not_ready(self) -> str | None:
        """Which stage does not answer a call through its handle; of shards, one is enough."""
        silent = await asyncio.gather(*(_silent(handles) for handles in self._groups))
        reason = next((reason for reason in silent if reason is not None), None)
        return None if reason is None else f"a stage that does not answer: {reason}"


async def _silent(handles: "Sequence[DeploymentHandle]") -> str | None:
    """Why none of some deployments answers; None where one does."""
    calls = [asyncio.wait_for(_held(handle), READY_SECONDS) for handle in handles]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    return (str(failed[0]) or type(failed[0]).__name__) if len(failed) == len(handles) else None


def plainly(handle: "DeploymentHandle") -> "DeploymentHandle":
    """The handle, whose messages are pickled plainly."""
    return handle.options(**_PLAIN_PICKLE)


def sender(method: Any) -> Send:
    """Carries messages to a method of a handle."""

    async def send(calls: list[Any]) -> Any:
        return await method.remote(calls)

    return send


def _lightly(send: Send) -> Send:
    """Without the mask of what is allowed, a byte an item: ranking adds nothing to what retrieval found under it."""

    async def send_lightly(calls: list[Any]) -> Any:
        return await send([(sha256, replace(query, allowed=None), *rest) for sha256, query, *rest in calls])

    return send_lightly


def aside_of(handle: "DeploymentHandle", part: str) -> Send:
    """Carries messages to where no request waits for them."""

    async def send(calls: list[Any]) -> Any:
        return await handle.aside.remote(part, calls)

    return send


async def _held(handle: "DeploymentHandle") -> Any:
    return await handle.held.remote()


def counted(catalogue: str, stage: str) -> Callable[[int], None]:
    """Counts the calls of each message to a stage."""
    return telemetry.MESSAGE_CALLS.labels(catalogue, stage).observe
