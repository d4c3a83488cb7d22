"""`cluster` for asyncio: a Redis Cluster behind the face of `redis.asyncio.Redis`. For one event loop.

A request that runs out of time cancels what it reads; redis-py's plain clients give the connection back then.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import redis
import redis.asyncio
from redis.commands import AsyncCoreCommands

from tastemaker.state.layout import (
    Address,
    ClusterUrl,
    Layout,
    Queued,
    gathered,
    is_stale,
    raise_first,
    repeated,
    to_repeat,
)


class AsyncCluster(AsyncCoreCommands):
    """See `cluster.Cluster`; close it with `aclose`."""

    _event_dispatcher: Any = None  # what the commands are mixed into has one; none of ours asks it

    def __init__(self, url: str, **settings: Any) -> None:
        self._url, self._settings = ClusterUrl.of(url), settings
        self._sources = list(self._url.nodes)
        self._nodes: dict[Address, redis.asyncio.Redis] = {}
        self._layout: Layout | None = None

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """One command's reply."""
        (reply,) = await self.run([Queued(args, options)])
        raise_first([reply])
        return reply

    def pipeline(self, transaction: bool = True) -> "AsyncClusterPipeline":
        """Commands that go out together; all or none only where they share a slot."""
        return AsyncClusterPipeline(self, transaction)

    async def run(self, queued: Sequence[Queued], transaction: bool = False) -> list[Any]:
        """Each command's reply, or its error."""
        replies = await self._run(queued, transaction)
        if again := to_repeat(queued, replies):
            later = await self._run([queued[n] for n in again], transaction)
            for place, reply in zip(again, later, strict=True):
                replies[place] = repeated(replies[place], reply)
        return replies

    async def ping(self, **options: Any) -> bool:
        """Whether all primaries answer."""
        nodes: list[Any] = [self._node(one) for one in (await self._known_layout()).nodes]
        return all(await asyncio.gather(*(node.ping(**options) for node in nodes)))

    async def aclose(self) -> None:
        """Closes all connections."""
        nodes, self._nodes, self._layout = self._nodes, {}, None
        await asyncio.gather(*(node.aclose() for node in nodes.values()))

    async def _run(self, queued: Sequence[Queued], transaction: bool) -> list[Any]:
        places = (await self._known_layout()).spread(queued)

        async def at(address: Address) -> list[Any]:
            pipe: Any = self._node(address).pipeline(transaction=transaction)
            for place in places[address]:
                pipe.execute_command(*queued[place].args, **queued[place].options)
            try:
                found: list[Any] = await pipe.execute(raise_on_error=False)
            except (redis.RedisError, OSError) as error:
                self._doubt(address)
                return [error] * len(places[address])
            except asyncio.CancelledError:
                self._doubt(address)  # out of time: it may be away, and another in its place
                self._layout = None
                raise
            return found

        found = await asyncio.gather(*map(at, places))
        replies = gathered(queued, places, dict(zip(places, found, strict=True)))
        if any(map(is_stale, replies)):
            self._layout = None
        return replies

    def _node(self, address: Address) -> redis.asyncio.Redis:
        if address not in self._nodes:
            url = self._url.of_node(address)
            self._nodes[address] = redis.asyncio.Redis.from_url(url, **self._settings)
        return self._nodes[address]

    def _doubt(self, address: Address) -> None:
        """Asks other nodes for the layout first."""
        self._sources = [*(one for one in self._sources if one != address), address]

    async def _known_layout(self) -> Layout:
        failure: Exception | None = None
        for address in list(self._sources) if self._layout is None else ():
            client: Any = self._node(address)
            try:
                slots: Any = await client.execute_command("CLUSTER SLOTS")
            except (redis.RedisError, OSError) as error:
                self._doubt(address)
                failure = failure or error
                continue
            self._layout = layout = Layout.of(slots, address)
            known = layout.nodes
            self._sources = [*known, *(one for one in self._sources if one not in known)]
            return layout
        if self._layout is None:
            assert failure is not None, "a URL names at least one node"
            raise failure
        return self._layout


class AsyncClusterPipeline(AsyncCoreCommands):
    """Commands to run together, see `AsyncCluster.pipeline`."""

    _event_dispatcher: Any = None  # what the commands are mixed into has one; none of ours asks it

    def __init__(self, cluster: AsyncCluster, transaction: bool) -> None:
        self._cluster, self._transaction = cluster, transaction
        self._queued: list[Queued] = []

    def execute_command(self, *args: Any, **options: Any) -> Self:
        """Queues a command."""
        self._queued.append(Queued(args, options))
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Runs what is queued, see `cluster.ClusterPipeline.execute`."""
        queued, self._queued = self._queued, []
        replies = await self._cluster.run(queued, self._transaction) if queued else []
        if raise_on_error:
            raise_first(replies)
        return replies
