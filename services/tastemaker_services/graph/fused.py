"""All stages in the gateway's own process: the same code, versions, rungs and deadlines without a hop between them.

A pool of few threads runs the stages, so that the event loop stays free to answer, also with a lower rung. A call that
waits for a thread when its time is over is never begun; one under way holds its thread until it returns, and its answer
is dropped.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

from tastemaker.config import Settings
from tastemaker.stages.pipeline_config import Part
from tastemaker.types import Candidates
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.replicas.calls import Failed, Send, StageError
from tastemaker_services.replicas.process import StageReplica
from tastemaker_services.replicas.stages import WORK, Ranker, Reranker, Retriever
from tastemaker_services.replicas.through import ThroughPool

if TYPE_CHECKING:
    from collections.abc import Sequence

FUSED: Final = "fused"
"""The name under which a fused gateway tells of its versions."""


class AllStages(Retriever, Ranker, Reranker):
    """What the replicas of all stages do, in one process: of each version one pipeline, whose models are loaded once.

    Args:
        settings: Where state and bundles are, and how many threads run stages.
    """

    def __init__(self, settings: Settings) -> None:
        parts: Sequence[Part] = get_args(Part)
        StageReplica.__init__(self, settings, FUSED, *parts, threads=settings.serving.threads)

    def _given(self) -> dict[str, Any]:
        return super()._given() | {"is_ruled": True}

    def through(self) -> ThroughPool:
        """All stages of an answer by one of the threads that requests wait for."""
        return ThroughPool(
            self._answering.pool, {part: partial(self._step, part) for part in ("retrieve", "rank", "rerank")}
        )

    def _step(self, part: Part, call: tuple[Any, ...]) -> Candidates | Failed:
        [answer] = self._answering.each(WORK[part], [call])
        return answer


class PoolCalls:
    """Calls to a stage of this process, each by itself: a `ladder.Call`. For one event loop.

    Args:
        send: Answers a message in a pool of threads.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, call: Any, timeout_seconds: float) -> Any:
        """The stage's answer to `call`.

        Raises:
            StageError: It failed or did not come in time.
        """
        if timeout_seconds <= 0:
            raise StageError("no time is left for the stage")
        try:
            async with asyncio.timeout(timeout_seconds):
                [answer] = await self._send([call])
        except TimeoutError as error:
            raise StageError(f"the stage is late: over {timeout_seconds * 1000:.0f} ms") from error
        if isinstance(answer, Failed):
            raise StageError("the stage failed", mend=answer.reason)
        return answer


class FusedGraph:
    """The stages behind a gateway, in its own process.

    Args:
        settings: Of the deployment.
    """

    names = frozenset({FUSED})

    def __init__(self, settings: Settings) -> None:
        self._all = AllStages(settings)
        self.stages = Stages(
            retrieve=PoolCalls(self._all.retrieve),
            rank=PoolCalls(self._all.rank),
            rerank=PoolCalls(self._all.rerank),
            similar=PoolCalls(self._all.similar),
            search=PoolCalls(self._all.search),
            say=PoolCalls(self._all.say),
            contributions=PoolCalls(self._all.contributions),
            reorder=PoolCalls(self._all.reorder),
            through=self._all.through(),
        )
        self.aside = tuple(
            PoolCalls(partial(self._all.aside, part)) for part in ("retrieve", "rank", "rerank")
        )

    def has_settled(self, sha256: str, /) -> bool:
        """Whether its stages hold a version, or refused it."""
        return self._all.has_settled(sha256)

    def follow(self, num_replicas: Mapping[str, int]) -> None:
        """Other gateways' stages are not called from here."""

    async def why_not_ready(self) -> str | None:
        """Stages of one's own process answer."""
        return None
