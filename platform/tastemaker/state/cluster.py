"""A Redis Cluster behind the face of `redis.Redis`: each command goes to its key's node, a pipeline to all at once.

Made of redis-py's plain clients, one for each node, for three reasons: WAITAOF has to go over the connection that wrote;
a node that is away must not disturb connections to others; what fails is told at once, and whoever called does it again,
as with a single server. A slot that has moved or is on its way is followed. See `cluster_async` for asyncio.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

import redis
from redis.commands import CoreCommands

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

_THREADS: Final = 16
"""For round trips to several nodes at once."""


class Cluster(CoreCommands):
    """Thread-safe, as `redis.Redis` is. Connects at its first command.

    Args:
        url: As `layout.ClusterUrl` takes it.
        settings: Of each connection, beside those in the URL.
    """

    _event_dispatcher: Any = None  # what the commands are mixed into has one; none of ours asks it

    def __init__(self, url: str, **settings: Any) -> None:
        self._url, self._settings = ClusterUrl.of(url), settings
        self._sources = Sources(self._url.nodes)
        self._nodes: dict[Address, redis.Redis] = {}
        self._lock = threading.RLock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="cluster")

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """One command's reply."""
        (reply,) = self.run([Queued(args, options)])
        raise_first([reply])
        return reply

    def pipeline(self, transaction: bool = True) -> "ClusterPipeline":
        """Commands that go out together; all or none only where they share a slot."""
        return ClusterPipeline(self, transaction)

    def transaction(self, func: Callable[[Any], Any], *watches: str, **options: Any) -> Any:
        """What `redis.Redis.transaction` does, on the node that has the watched keys; they share a slot.

        While that slot is on its way to another node it fails for the keys that have gone, and may be done again.
        """
        owner = self._known_layout().owner(Queued(("WATCH", *watches), {}).slot)
        try:
            return self._node(owner).transaction(func, *watches, **options)
        except redis.RedisError as error:
            if is_stale(error):
                with self._lock:
                    self._sources.doubt(owner)
                    self._sources.forget()
            raise

    def run(self, queued: Sequence[Queued], transaction: bool = False) -> list[Any]:
        """Each command's reply, or its error."""
        replies = self._run(queued, range(len(queued)), {}, transaction)
        for _ in range(ROUNDS):
            again = to_repeat(queued, replies)
            if not again:
                break
            later = self._run(queued, again, asked_elsewhere(queued, replies), transaction)
            replies = merged(replies, again, later)
        return replies

    def nodes(self) -> list[redis.Redis]:
        """A client of each primary."""
        return [self._node(address) for address in self._known_layout().nodes]

    def scan_iter(
        self, match: Any = None, count: int | None = None, _type: str | None = None, **options: Any
    ) -> Iterator[Any]:
        """Keys of all nodes; one may come twice."""
        for node in self.nodes():
            yield from node.scan_iter(match, count, _type, **options)

    def ping(self, **options: Any) -> bool:
        """Whether all primaries answer."""
        return all(node.ping(**options) for node in self.nodes())

    def close(self) -> None:
        """Closes all connections."""
        self._threads.shutdown()
        with self._lock:
            for node in self._nodes.values():
                node.close()
            self._nodes = {}
            self._sources.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(
        self, queued: Sequence[Queued], some: Sequence[int], asked: Mapping[int, Address], transaction: bool
    ) -> list[Any]:
        """The replies to the commands at some places."""
        places = self._known_layout().spread(queued, some, asked)

        def at(target: Target) -> list[Any]:
            commands = [queued[place] for place in places[target]]
            try:
                return self._send(target, commands, transaction)
            except (redis.RedisError, OSError) as error:
                with self._lock:
                    self._sources.doubt(target.node)
                return [error] * len(commands)

        replies = gathered(queued, places, self._at_once(at, list(places)))
        if any(map(is_stale, replies)):
            with self._lock:
                self._sources.forget()
        return [replies[place] for place in some]

    def _send(self, target: Target, commands: Sequence[Queued], transaction: bool) -> list[Any]:
        pipe: Any = self._node(target.node).pipeline(transaction=transaction)
        if target.asking and transaction:
            pipe.immediate_execute_command(ASKING)  # holds from MULTI to EXEC
        sent = with_asking(commands) if target.asking and not transaction else commands
        for one in sent:
            pipe.execute_command(*one.args, **one.options)
        return without_asking(sent, pipe.execute(raise_on_error=False))

    def _at_once(
        self, work: Callable[[Target], list[Any]], targets: Sequence[Target]
    ) -> Mapping[Target, list[Any]]:
        first, *others = targets
        running = {target: self._threads.submit(work, target) for target in others}
        return {first: work(first)} | {target: future.result() for target, future in running.items()}

    def _node(self, address: Address) -> redis.Redis:
        with self._lock:
            if address not in self._nodes:
                self._nodes[address] = redis.Redis.from_url(self._url.of_node(address), **self._settings)
            return self._nodes[address]

    def _known_layout(self) -> Layout:
        """Asks nodes until one answers.

        Raises:
            redis.RedisError: None does.
        """
        with self._lock:
            failure: Exception | None = None
            for address in self._sources.nodes():
                client: Any = self._node(address)
                try:
                    return self._sources.learn(client.execute_command("CLUSTER SLOTS"), address)
                except (redis.RedisError, OSError) as error:
                    self._sources.doubt(address)
                    failure = failure or error
            if self._sources.layout is None:
                assert failure is not None, "a URL names at least one node"
                raise failure
            return self._sources.layout


class ClusterPipeline(CoreCommands):
    """Commands to run together, see `Cluster.pipeline`. Not thread-safe."""

    _event_dispatcher: Any = None  # what the commands are mixed into has one; none of ours asks it

    def __init__(self, cluster: Cluster, transaction: bool) -> None:
        self._cluster, self._transaction = cluster, transaction
        self._queued: list[Queued] = []

    def execute_command(self, *args: Any, **options: Any) -> Self:
        """Queues a command."""
        self._queued.append(Queued(args, options))
        return self

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Runs what is queued; gives the replies in its order, the first error instead where one is to be raised."""
        queued, self._queued = self._queued, []
        replies = self._cluster.run(queued, self._transaction) if queued else []
        if raise_on_error:
            raise_first(replies)
        return replies
