"""The retriever's shards, as one: each request goes to all of them side by side, and what they say is put together here.

All are asked of the version that the request is pinned to, and gateways flip when the replicas of all shards hold a version: no answer is made of
two. A shard that fails, or is late beside the others, is missing from the answer, and stands behind a breaker of its own.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.stages.merging import Merging, nearest
from tastemaker_services.gateway.breakers import Breaker, breaker_of
from tastemaker_services.gateway.ladder import Call
from tastemaker_services.graph.spread import Retrievers, aside_of, counted, plainly, sender
from tastemaker_services.replicas.calls import StageCalls, StageError
from tastemaker_services.replicas.shards import shard_name

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

Outcome = Literal["ok", "late", "failed", "skipped"]
Join = Callable[[Any, Sequence[Any], int], Any]
"""From a call, what the shards that answered say to it, and the number of those that did not, to the whole's answer."""
MergingOf = Callable[[str], Merging | None]
"""From a manifest's hash to how its version puts retrieval together; None for one that is not held."""


class ShardedCall:
    """A call that goes to all shards: a `ladder.Call`. For one event loop.

    Args:
        calls: One to each shard.
        guards: The shards' breakers.
        seconds: Who has not answered so long after the first that did is late.
        join: Makes one answer of theirs.
        count: Is told what became of the call to a shard.
    """

    def __init__(
        self,
        calls: Sequence[Call],
        guards: Sequence[Breaker],
        seconds: float,
        join: Join,
        count: Callable[[int, Outcome], None],
    ) -> None:
        self._calls, self._guards, self._seconds = calls, guards, seconds
        self._join, self._count = join, count

    async def __call__(self, call: Any, timeout_seconds: float) -> Any:
        """What the shards say that answer in time.

        Raises:
            StageError: None does.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        asked = {
            number: asyncio.ensure_future(one(call, timeout_seconds))
            for number, one in enumerate(self._calls)
            if self._allows(number)
        }
        try:
            await self._settle(asked)
        except asyncio.CancelledError:
            _cancel(asked.values())
            raise
        is_fair = loop.time() - started >= self._seconds  # to be late in less says nothing of a shard
        found = [task.result() for number, task in asked.items() if self._has_answered(number, task, is_fair)]
        _cancel(asked.values())
        if not found:
            raise StageError("no shard of the retriever answers", mend="look at the retrievers' logs")
        return self._join(call, found, len(self._calls) - len(found))

    async def _settle(self, asked: Mapping[int, asyncio.Future[Any]]) -> None:
        """Waits until all have ended, or for a while once one has answered."""
        waiting = set(asked.values())
        left: float | None = None
        while waiting:
            started = asyncio.get_running_loop().time()
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if left is not None:
                left -= asyncio.get_running_loop().time() - started
                if left <= 0 or not done:
                    return
            elif any(task.exception() is None for task in done):
                left = self._seconds

    def _allows(self, number: int) -> bool:
        allows = self._guards[number].allows()
        if not allows:
            self._count(number, "skipped")
        return allows

    def _has_answered(self, number: int, task: asyncio.Future[Any], is_fair: bool) -> bool:
        """Whether a shard has; its breaker is told."""
        guard = self._guards[number]
        if not task.done():
            error: BaseException | None = TimeoutError()
        else:
            error = task.exception()
        if error is None:
            guard.succeeded()
            self._count(number, "ok")
            return True
        is_late = isinstance(error, TimeoutError) or isinstance(error.__cause__, TimeoutError)
        if is_fair or not is_late:
            guard.failed()
        self._count(number, "late" if is_late else "failed")
        return False


def _cancel(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()  # of one that has failed, asyncio no longer logs that nobody looked at it


def shards_of(handles: "Sequence[DeploymentHandle]", settings: Settings, merging_of: MergingOf) -> Retrievers:
    """The retriever in shards.

    Args:
        handles: One for each shard, in order.
        settings: Of the deployment.
        merging_of: Knows the versions that the gateway holds.
    """
    most, catalogue, seconds = (
        settings.serving.batch,
        settings.catalogue,
        settings.serving.retriever.shard_ms / 1000,
    )
    names = [shard_name(number) for number in range(len(handles))]
    guards = [breaker_of(name, settings.gateway.breakers, catalogue) for name in names]
    plain = [plainly(handle) for handle in handles]

    def count(number: int, outcome: Outcome) -> None:
        telemetry.SHARDS.labels(catalogue, str(number), outcome).inc()

    def uncounted(number: int, outcome: Outcome) -> None:
        """Of what no request waits for."""

    def of_all(calls: Sequence[Call], join: Join) -> ShardedCall:
        return ShardedCall(calls, guards, seconds, join, count)

    retrieve = [
        StageCalls(sender(handle.retrieve), most, counted(catalogue, name))
        for name, handle in zip(names, plain, strict=True)
    ]
    candidates = partial(_candidates, merging_of)
    own_guards = [Breaker(settings.gateway.breakers) for _ in handles]
    aside = [StageCalls(aside_of(handle, "retrieve"), most) for handle in plain]
    return Retrievers(
        handles=plain,
        calls=dict(zip(names, retrieve, strict=True)),
        retrieve=of_all(retrieve, candidates),
        similar=of_all([StageCalls(sender(handle.similar), most) for handle in plain], _nearest),
        search=of_all([StageCalls(sender(handle.search), most) for handle in plain], _nearest),
        say=of_all([StageCalls(sender(handle.say), most) for handle in plain], _says),
        aside=ShardedCall(aside, own_guards, seconds, candidates, uncounted),
    )


def _candidates(merging_of: MergingOf, call: Any, found: Sequence[Any], num_missing: int) -> Any:
    sha256, query = call
    merging = merging_of(sha256)
    if merging is None:
        raise StageError(f"bundle {sha256[:12]} is not held here any more")
    worked_seconds = max(part.worked_seconds for part in found)
    return replace(merging.whole(query, found), missing_shards=num_missing, worked_seconds=worked_seconds)


def _nearest(call: Any, found: Sequence[Any], num_missing: int) -> Any:
    return nearest(found, call[1].k, num_missing)


def _says(_: Any, found: Sequence[Any], __: int) -> Any:
    from tastemaker.stages.explain import joined

    return joined(found)
