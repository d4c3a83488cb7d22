"""`cluster` for asyncio: a Redis Cluster behind the face of `redis.asyncio.Redis`. For one event loop.

A request that runs out of time cancels what it reads; redis-py's plain clients give the connection back then.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Self

import redis
import redis.asyncio
from redis.commands import AsyncCoreCommands

from tastemaker.state.layout import (
    ASKING,
    ROUNDS,
    Address,
    ClusterUrl,
    Layout,
    Queued,
    Sources,
    Target,
    asked_elsewhere,
    gathered,
    is_stale,
    merged,
    raise_first,
    to_repeat,
    with_asking,
    without_asking,
)


class AsyncCluster(AsyncCoreCommands):
    """See `cluster.Cluster`; close it with `aclose`."""

    _event_dispatcher: Any = None  # what the commands are mixed into has one; none of ours asks it

    def __init__(self, url: str, **settings: Any) -> None:
        self._url, self._settings = ClusterUrl.of(url), settings
        self._sources = Sources(self._url.nodes)
        self._nodes: dict[Address, redis.asyncio.Redis] = {}

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
        replies = await self._run(queued, range(len(queued)), {}, transaction)
        for _ in range(ROUNDS):
            again = to_repeat(queued, replies)
            if not again:
                break
            later = await self._run(queued, again, asked_elsewhere(queued, replies), transaction)
            replies = merged(replies, again, later)
        return replies

    async def ping(self, **options: Any) -> bool:
        """Whether all primaries answer."""
        nodes: list[Any] = [self._node(one) for one in (await self._known_layout()).nodes]
        return all(await asyncio.gather(*(node.ping(**options) for node in nodes)))

    async def aclose(self) -> None:
        """Closes all connections."""
        nodes, self._nodes = self._nodes, {}
        self._sources.forget()
        await asyncio.gather(*(node.aclose() for node in nodes.values()))

    async def _run(
        self, queued: Sequence[Queued], some: Sequence[int], asked: Mapping[int, Address], transaction: bool
    ) -> list[Any]:
        """The replies to the commands at some places."""
        places = (await self._known_layout()).spread(queued, some, asked)

        async def at(target: Target) -> list[Any]:
            commands = [queued[place] for place in places[target]]
            try:
                return await self._send(target, commands, transaction)
            except (redis.RedisError, OSError) as error:
                self._sources.doubt(target.node)
                return [error] * len(commands)
            except asyncio.CancelledError:
                self._sources.doubt(target.node)  # out of time: it may be away, and another in its place
                self._sources.forget()
                raise

        found = await asyncio.gather(*map(at, places))
        replies = gathered(queued, places, dict(zip(places, found, strict=True)))
        if any(map(is_stale, replies)):
            self._sources.forget()
        return [replies[place] for place in some]

    async def _send(self, target: Target, commands: Sequence[Queued], transaction: bool) -> list[Any]:
        pipe: Any = self._node(target.node).pipeline(transaction=transaction)
        if target.asking and transaction:
            await pipe.immediate_execute_command(ASKING)  # holds from MULTI to EXEC
        sent = with_asking(commands) if target.asking and not transaction else commands
        for one in sent:
            pipe.execute_command(*one.args, **one.options)
        return without_asking(sent, await pipe.execute(raise_on_error=False))

    def _node(self, address: Address) -> redis.asyncio.Redis:
        if address not in self._nodes:
            url = self._url.of_node(address)
            self._nodes[address] = redis.asyncio.Redis.from_url(url, **self._settings)
        return self._nodes[address]

    async def _known_layout(self) -> Layout:
        failure: Exception | None = None
        for address in self._sources.nodes():
            client: Any = self._node(address)
            try:
                return self._sources.learn(await client.execute_command("CLUSTER SLOTS"), address)
            except (redis.RedisError, OSError) as error:
                self._sources.doubt(address)
                failure = failure or error
        if self._sources.layout is None:
            assert failure is not None, "a URL names at least one node"
            raise failure
        return self._sources.layout


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
