"""Which node of a Redis Cluster holds which keys, and where a pipeline's commands therefore go. No connections.

What both clients of a cluster share, `cluster` and `cluster_async`: they differ in how they wait alone.
"""

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

import redis
from redis.connection import parse_url
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError

from tastemaker.errors import UsageError

Address = tuple[str, int]
SCHEMES: Final = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
"""Schemes of a cluster's URL, and those of its nodes."""
_DEFAULT_PORT: Final = 6379
ROUNDS: Final = 4
"""How often what was sent elsewhere is followed: a slot may move on while it is."""
ASKING: Final = "ASKING"
_ANY_NODE: Final = frozenset({"TIME"})
_NODES_WRITTEN: Final = frozenset({"WAITAOF"})


class Queued(NamedTuple):
    """A command as a client is told it."""

    args: tuple[Any, ...]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        """The command's word."""
        return str(self.args[0])

    @property
    def slot(self) -> int:
        """Of its first key; all of its keys have to share it."""
        key = self.args[3 if self.name == "EVAL" else 1]
        return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


class Target(NamedTuple):
    """Where commands go: a node, and whether it is to take them though it has not got the slot yet (ASKING)."""

    node: Address
    asking: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """The primary of every slot, as one node told it; `ends` are the last slots of ranges, in order. `order` is of nodes."""

    ends: Sequence[int]
    starts: Sequence[int]
    owners: Sequence[Address]
    order: Sequence[Address] = ()

    @classmethod
    def of(cls, slots: Iterable[Sequence[Any]], told_by: Address) -> Self:
        """From the reply to CLUSTER SLOTS; a node that does not know its own name is the one that was asked.

        >>> layout = Layout.of([[5461, 16383, ["b", 7001, "id"]], [0, 5460, ["", 7000, "id"]]], ("a", 7000))
        >>> layout.nodes, layout.owner(5460), layout.owner(5461)
        ([('a', 7000), ('b', 7001)], ('a', 7000), ('b', 7001))
        """
        ranges = sorted((end, start, primary) for start, end, primary, *_ in slots)
        hosts = [host.decode() if isinstance(host, bytes) else host for _, _, (host, *_) in ranges]
        owners = [
            (told_by[0] if host in ("", "?", None) else host, int(primary[1]))
            for host, (_, _, primary) in zip(hosts, ranges, strict=True)
        ]
        return cls([end for end, _, _ in ranges], [start for _, start, _ in ranges], owners)

    @property
    def nodes(self) -> list[Address]:
        """All primaries, each once; those that are to be asked first come first."""
        return list(dict.fromkeys([*self.order, *self.owners]))

    def owner(self, slot: int) -> Address:
        """The primary of a slot.

        Raises:
            ClusterDownError: Nobody has it.
        """
        place = bisect.bisect_left(self.ends, slot)
        if place == len(self.ends) or self.starts[place] > slot:
            raise ClusterDownError(f"no node has slot {slot}")
        return self.owners[place]

    def spread(
        self,
        queued: Sequence[Queued],
        places: Iterable[int] | None = None,
        asked: Mapping[int, Address] | None = None,
    ) -> dict[Target, list[int]]:
        """The places of the commands that each node gets, in order; WAITAOF goes to each that got any before it.

        Args:
            queued: All commands.
            places: Of those that are to go; unset, all.
            asked: By place the node that another said to ask, as the command's slot is on its way there.
        """
        found: dict[Target, list[int]] = {}
        for place in range(len(queued)) if places is None else places:
            command = queued[place]
            if command.name in _NODES_WRITTEN:
                targets = list(found)
            elif asked and place in asked:
                targets = [Target(asked[place], asking=True)]
            else:
                anywhere = command.name in _ANY_NODE
                targets = [Target(self.nodes[0] if anywhere else self.owner(command.slot))]
            for target in targets:
                found.setdefault(target, []).append(place)
        return found


class Sources:
    """Whom to ask for the layout, and what the last answer was. Not thread-safe."""

    def __init__(self, nodes: Iterable[Address]) -> None:
        self._nodes = list(nodes)
        self.layout: Layout | None = None

    def nodes(self) -> list[Address]:
        """Nodes to ask, in turn; none while the layout is known."""
        return list(self._nodes) if self.layout is None else []

    def doubt(self, address: Address) -> None:
        """Others are asked first: this one did not answer."""
        self._nodes = [*(one for one in self._nodes if one != address), address]

    def forget(self) -> None:
        """The layout may have changed."""
        self.layout = None

    def learn(self, slots: Iterable[Sequence[Any]], told_by: Address) -> Layout:
        """Takes up the reply to CLUSTER SLOTS. Nodes that are in doubt stay last, for commands of no slot too."""
        found = Layout.of(slots, told_by)
        known = [one for one in self._nodes if one in found.nodes]
        new = [one for one in found.nodes if one not in known]
        self._nodes = [*new, *known, *(one for one in self._nodes if one not in found.nodes)]
        order = {address: place for place, address in enumerate(self._nodes)}
        self.layout = Layout(
            found.ends, found.starts, found.owners, tuple(sorted(found.nodes, key=order.__getitem__))
        )
        return self.layout


def gathered(
    queued: Sequence[Queued],
    places: Mapping[Target, Sequence[int]],
    replies: Mapping[Target, Sequence[Any]],
) -> list[Any]:
    """The nodes' replies in the order of the commands; of WAITAOF the least of any, an error before all."""
    found: list[Any] = [None] * len(queued)
    for node, own in places.items():
        for place, reply in zip(own, replies[node], strict=True):
            found[place] = _least(found[place], reply)
    return found


def to_repeat(queued: Sequence[Queued], replies: Sequence[Any]) -> list[int]:
    """Places of commands whose slot is at another node or on its way there, and of what waits for their being written."""
    moved = {place for place, reply in enumerate(replies) if isinstance(reply, (MovedError, AskError))}
    first = min(moved, default=len(queued))
    waits = {place for place, one in enumerate(queued) if place > first and one.name in _NODES_WRITTEN}
    return sorted(moved | waits)


def asked_elsewhere(queued: Sequence[Queued], replies: Sequence[Any]) -> dict[int, Address]:
    """By place, the node that a command's slot is on its way to.

    A transaction that meets such a slot fails as a whole, and its commands of other slots go where they went.
    """
    return {
        place: reply.node_addr
        for place, (one, reply) in enumerate(zip(queued, replies, strict=True))
        if isinstance(reply, AskError) and one.name not in _NODES_WRITTEN and one.slot == reply.slot_id
    }


def with_asking(queued: Sequence[Queued]) -> list[Queued]:
    """The commands, each behind an ASKING of its own where it has a key: a node forgets it with the next command."""
    asking = Queued((ASKING,), {})
    return [
        one
        for command in queued
        for one in ((command,) if command.name in _NODES_WRITTEN else (asking, command))
    ]


def without_asking(sent: Sequence[Queued], replies: Sequence[Any]) -> list[Any]:
    """The replies to what was sent, without those to ASKING."""
    return [reply for one, reply in zip(sent, replies, strict=True) if one.name != ASKING]


def merged(replies: Sequence[Any], again: Sequence[int], later: Sequence[Any]) -> list[Any]:
    """All replies once the commands at some places were repeated."""
    found = list(replies)
    for place, reply in zip(again, later, strict=True):
        found[place] = repeated(found[place], reply)
    return found


def repeated(earlier: Any, later: Any) -> Any:
    """The reply to a command that was repeated."""
    return later if isinstance(earlier, (MovedError, AskError)) else _least(earlier, later)


def is_stale(reply: Any) -> bool:
    """Whether an error says that the layout may have changed."""
    return isinstance(reply, (MovedError, ClusterDownError, redis.ConnectionError, redis.TimeoutError))


def raise_first(replies: Iterable[Any]) -> None:
    """Raises the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def is_cluster(url: str) -> bool:
    """Whether a URL names a cluster.

    >>> is_cluster("redis+cluster://a:7000,b:7000"), is_cluster("redis://a:7000")
    (True, False)
    """
    return urlsplit(url).scheme in SCHEMES


@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """A cluster's URL taken apart.

    >>> url = ClusterUrl.of("redis+cluster://:secret@a,b:7001?socket_timeout=2")
    >>> url.nodes, url.of_node(("c", 7002))
    ((('a', 6379), ('b', 7001)), 'redis://:secret@c:7002?socket_timeout=2')
    """

    nodes: tuple[Address, ...]
    scheme: str
    login: str
    query: str

    @classmethod
    def of(cls, url: str) -> Self:
        """From the text.

        Raises:
            UsageError: It is no such URL.
        """
        parts = urlsplit(url)
        login, at, hosts = parts.netloc.rpartition("@")
        try:
            nodes = tuple(_address(host) for host in hosts.split(","))
            found = cls(nodes, SCHEMES[parts.scheme], login + at, parts.query)
            parse_url(found.of_node(nodes[0]))  # type: ignore[no-untyped-call]
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"the URL of a cluster: {error}", limit="redis+cluster://host:port,host:port",
                mend="name some of its nodes",
            ) from error  # fmt: skip
        if parts.path.strip("/") not in ("", "0"):
            raise UsageError("the database of a cluster", value=parts.path, limit="0", mend="leave it out")
        return found

    def of_node(self, address: Address) -> str:
        """The URL of one node."""
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        return urlunsplit((self.scheme, f"{self.login}{host}:{address[1]}", "", self.query, ""))


def _least(earlier: Any, later: Any) -> Any:
    if earlier is None or isinstance(later, Exception):
        return later
    if isinstance(earlier, Exception):
        return earlier
    return [min(pair) for pair in zip(earlier, later, strict=True)]


def _address(host: str) -> Address:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("a node has no name")
    return parts.hostname, parts.port or _DEFAULT_PORT
