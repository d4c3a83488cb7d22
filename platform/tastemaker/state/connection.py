"""Connections to Redis/Valkey: by URL, of one server or of a cluster, or to the embedded server of a home."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import quote, urlsplit, urlunsplit

import redis
import redis.asyncio
from redis.asyncio import Redis as AsyncRedis

from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.home import Home
from tastemaker.state.cluster import Cluster
from tastemaker.state.cluster_async import AsyncCluster
from tastemaker.state.keys import Keys
from tastemaker.state.layout import is_cluster
from tastemaker.state.server import EmbeddedValkey

_TIMEOUT_SECONDS = 5.0


@contextmanager
def state_errors(doing: str) -> Iterator[None]:
    """Turns the client library's errors into `StateError`; use around awaits as well.

    Args:
        doing: What fails then ("append events"), for the message.

    Raises:
        StateError: Redis/Valkey cannot be reached or refuses.
    """
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise StateError(f"cannot {doing}: {error}", mend=_mend(error)) from error


def _mend(error: Exception) -> str:
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return "check user, password and the user's rights there (state.url, state.password)"
    return "check that Redis/Valkey is up (state.url)"


def connect(url: str, timeout_seconds: float = _TIMEOUT_SECONDS) -> redis.Redis:
    """A client whose replies are text. It connects at its first command.

    A cluster's URL is `redis+cluster://host:port,host:port`, with some of its nodes, or `rediss+cluster://`. Its client
    has the same commands; those of a pipeline go to all nodes at once.
    """
    settings: dict[str, Any] = {
        "decode_responses": True,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
    }
    if is_cluster(url):
        return cast(redis.Redis, Cluster(url, **settings))
    return redis.Redis.from_url(url, **settings)


def connect_async(url: str, timeout_seconds: float = _TIMEOUT_SECONDS, *, text: bool = True) -> AsyncRedis:
    """The same as `connect` for asyncio, its replies bytes unless `text`; close it with `aclose`."""
    settings: dict[str, Any] = {
        "decode_responses": text,
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
    }
    if is_cluster(url):
        return cast(AsyncRedis, AsyncCluster(url, **settings))
    return redis.asyncio.Redis.from_url(url, **settings)


def nodes_of(client: redis.Redis) -> list[redis.Redis]:
    """The servers behind a client: of a cluster all primaries."""
    return client.nodes() if isinstance(client, Cluster) else [client]


def scan_keys(client: redis.Redis, pattern: str | bytes, count: int) -> Iterator[list[bytes]]:
    """Keys that match a pattern, about `count` at a time, each once; by a scan of every server.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    seen: set[bytes] = set()
    with state_errors("scan for keys"):
        nodes: list[Any] = nodes_of(client)
    for node in nodes:
        cursor = None
        while cursor != 0:
            with state_errors("scan for keys"):
                cursor, found = node.execute_command(
                    "SCAN", cursor or 0, "MATCH", pattern, "COUNT", count, NEVER_DECODE=True
                )
            new = set(found) - seen  # a scan may give a key twice
            seen |= new
            yield sorted(new)


def url_of(settings: Settings, home: Home) -> str:
    """The URL, password included, that a replica connects to: never print it.

    Raises:
        StateError: No URL is configured and no embedded server runs.
    """
    if settings.state.url is not None:
        return _with_password(settings.state.url, settings)
    url = EmbeddedValkey(home).running_url()
    if url is None:
        raise StateError(f"no Valkey runs in home {home.root}", mend="start serving, or set state.url")
    return url


def cache_url_of(settings: Settings, home: Home) -> str:
    """The same as `url_of`, of the role `state.cache_url`.

    Raises:
        StateError: See `url_of`.
    """
    if settings.state.cache_url is None:
        return url_of(settings, home)
    return _with_password(settings.state.cache_url, settings)


def _with_password(url: str, settings: Settings) -> str:
    parts = urlsplit(url)
    if settings.state.password is None or parts.password:
        return url
    password = quote(settings.state.password.get_secret_value(), safe="")
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{parts.username or ''}:{password}@{address}"))


@contextmanager
def open_state(settings: Settings, home: Home) -> Iterator[redis.Redis]:
    """A client for the block: of the configured URL, or of the embedded server, started if it does not run.

    Raises:
        StateError: Nothing answers.
        MissingExtraError: An embedded server is needed and the extra `embedded` is not installed.
    """
    server = None if settings.state.url is not None else EmbeddedValkey(home)
    try:
        if server is not None:
            server.start()
        client = connect(url_of(settings, home))
        try:
            with state_errors("reach Redis/Valkey"):
                client.ping()
            yield client
        finally:
            client.close()
    finally:
        if server is not None:
            server.stop()


def open_keys(client: redis.Redis, settings: Settings) -> Keys:
    """The catalogue's keys. The first call fixes its number of partitions.

    Raises:
        StateError: The catalogue was made with another number of partitions.
    """
    keys = Keys(settings.catalogue, settings.state.partitions)
    with state_errors("read the catalogue's record"):
        client.hsetnx(keys.record, "partitions", str(keys.partitions))
        fixed = int(str(client.hget(keys.record, "partitions")))
    if fixed != keys.partitions:
        raise StateError(
            f"state.partitions of catalogue {keys.catalogue}",
            value=keys.partitions,
            limit=fixed,
            mend="set it back: events are already spread over that many streams",
        )
    return keys
