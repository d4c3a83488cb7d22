"""A Redis Cluster behind the face of `redis.Redis`: each command goes to its key's node, a pipeline to all at once.

Made of redis-py's plain clients, one for each node, for three reasons: WAITAOF has to go over the connection that wrote;
a node that is away must not disturb connections to others; what fails is told at once, and whoever called does it again,
as with a single server. A slot that has moved is followed, once. See `cluster_async` for asyncio.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self

import redis
from redis.commands import CoreCommands

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
        self._sources = list(self._url.nodes)
        self._nodes: dict[Address, redis.Redis] = {}
        self._layout: Layout | None = None
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
        """What `redis.Redis.transaction` does, on the node that has the watched keys; they share a slot."""
        owner = self._known_layout().owner(Queued(("WATCH", *watches), {}).slot)
        try:
            return self._node(owner).transaction(func, *watches, **options)
        except redis.RedisError as error:
            if is_stale(error):
                self._doubt(owner)
                with self._lock:
                    self._layout = None
            raise

    def run(self, queued: Sequence[Queued], transaction: bool = False) -> list[Any]:
        """Each command's reply, or its error."""
        replies = self._run(queued, transaction)
        if again := to_repeat(queued, replies):
            for place, reply in zip(again, self._run([queued[n] for n in again], transaction), strict=True):
                replies[place] = repeated(replies[place], reply)
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
            self._nodes, self._layout = {}, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, queued: Sequence[Queued], transaction: bool) -> list[Any]:
        places = self._known_layout().spread(queued)

        def at(address: Address) -> list[Any]:
            pipe: Any = self._node(address).pipeline(transaction=transaction)
            for place in places[address]:
                pipe.execute_command(*queued[place].args, **queued[place].options)
            try:
                found: list[Any] = pipe.execute(raise_on_error=False)
            except (redis.RedisError, OSError) as error:
                self._doubt(address)
                return [error] * len(places[address])
            return found

        replies = gathered(queued, places, self._at_once(at, list(places)))
        if any(map(is_stale, replies)):
            with self._lock:
                self._layout = None
        return replies

    def _at_once(
        self, work: Callable[[Address], list[Any]], addresses: Sequence[Address]
    ) -> Mapping[Address, list[Any]]:
        first, *others = addresses
        running = {address: self._threads.submit(work, address) for address in others}
        return {first: work(first)} | {address: future.result() for address, future in running.items()}

    def _node(self, address: Address) -> redis.Redis:
        with self._lock:
            if address not in self._nodes:
                self._nodes[address] = redis.Redis.from_url(self._url.of_node(address), **self._settings)
            return self._nodes[address]

    def _doubt(self, address: Address) -> None:
        """Asks other nodes for the layout first."""
        with self._lock:
            self._sources = [*(one for one in self._sources if one != address), address]

    def _known_layout(self) -> Layout:
        """Asks nodes until one answers.

        Raises:
            redis.RedisError: None does.
        """
        with self._lock:
            failure: Exception | None = None
            for address in list(self._sources) if self._layout is None else ():
                client: Any = self._node(address)
                try:
                    slots: Any = client.execute_command("CLUSTER SLOTS")
                except (redis.RedisError, OSError) as error:
                    self._doubt(address)
                    failure = failure or error
                    continue
                self._layout = Layout.of(slots, address)
                known = self._layout.nodes
                self._sources = [*known, *(one for one in self._sources if one not in known)]
                break
            if self._layout is None:
                assert failure is not None, "a URL names at least one node"
                raise failure
            return self._layout


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
