"""What is live, as replicas see it: one JSON in Redis/Valkey that the watcher copies from the registry.

Replicas import this module and neither mlflow nor `registry.client`.
"""

import logging
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic import Field, ValidationError

from tastemaker.bundle.manifest import BundleRef
from tastemaker.errors import StateError
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.strict import Kept

if TYPE_CHECKING:
    import redis
    from redis.asyncio import Redis as AsyncRedis

    from tastemaker.registry.client import Registry
    from tastemaker.registry.versions import Named, Version

_SWAP = """
local now = redis.call('GET', KEYS[1])
if (now or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return 1 end
return 0
"""
_ATTEMPTS = 100
CHAMPION: Final = "champion"
log = logging.getLogger(__name__)


class LiveVersion(Kept):
    """What an alias names."""

    version: int = Field(ge=1, description="number in the registry")
    uri: str = Field(description="the manifest, relative to the bundle store")
    sha256: str = Field(description="the manifest's hash")

    @property
    def ref(self) -> BundleRef:
        """What `Bundle.open` takes."""
        return BundleRef(self.uri, self.sha256)


class LiveAliases(Kept):
    """All live aliases at once. A higher generation is newer; equal ones are the same."""

    generation: int = Field(ge=1, description="grows by one with every change")
    aliases: dict[str, LiveVersion] = Field(description="alias -> version")
    previous: LiveVersion | None = Field(
        None,
        description="the champion before this one: held for a while, so that a rollback need load nothing",
    )


def write_live(client: "redis.Redis", keys: Keys, aliases: "Mapping[str, Version | None]") -> LiveAliases:
    """Makes `aliases` the live ones; where they are so already nothing is written.

    An alias whose version is None, because it is no bundle, goes on naming what it does.

    Raises:
        StateError: Redis/Valkey cannot be reached, or others write at the same time without end.
    """
    for _ in range(_ATTEMPTS):
        with state_errors("read the live aliases"):
            text = cast("str | None", client.get(keys.live))
        now = _parse(text, keys)
        wanted = _wanted(aliases, now)
        if now is not None and now.aliases == wanted:
            return now
        new = LiveAliases(
            generation=now.generation + 1 if now else 1, aliases=wanted, previous=_previous(now, wanted)
        )
        with state_errors("write the live aliases"):
            if client.eval(_SWAP, 1, keys.live, text or "", new.model_dump_json()):
                return new
    raise StateError(
        f"live aliases of catalogue {keys.catalogue} change too fast", mend="run one watcher only"
    )


def read_live(client: "redis.Redis", keys: Keys) -> LiveAliases | None:
    """The live aliases; None where the watcher wrote none yet.

    Raises:
        StateError: Redis/Valkey cannot be reached, or holds something else under this key.
    """
    with state_errors("read the live aliases"):
        text = client.get(keys.live)
    return _parse(text, keys)


async def read_live_async(client: "AsyncRedis", keys: Keys) -> LiveAliases | None:
    """The same as `read_live` for asyncio."""
    with state_errors("read the live aliases"):
        text = await cast("Awaitable[Any]", client.get(keys.live))
    return _parse(text, keys)


class Watcher:
    """Copies the registry's aliases to where replicas look. One process of a deployment runs it.

    Moves that were made in MLflow's own UI or API are followed like others, and kept in the history. While nothing moves a poll is
    one request: a server that checks passwords takes a fifth of a second of processor time for each.
    """

    def __init__(self, registry: "Registry", client: "redis.Redis", keys: Keys) -> None:
        self._registry, self._client, self._keys = registry, client, keys
        self._seen: Named | None = None

    def poll(self) -> LiveAliases:
        """Copies once; what is live then.

        Raises:
            RegistryError: The registry cannot be read; what was live stays so.
            StateError: See `write_live`.
        """
        named = self._registry.read_named(self._keys.catalogue, self._seen)
        live = write_live(self._client, self._keys, named.aliases)
        if named != self._seen:
            self._note(named)
        return live

    def _note(self, named: "Named") -> None:
        for alias in sorted(alias for alias, version in named.aliases.items() if version is None):
            log.warning("alias %s names a version that is no bundle: what it named before goes on", alias)
        for move in self._registry.note_outside_moves(self._keys.catalogue):
            log.warning("alias %s was moved to version %s in MLflow", move.alias, move.version or "none")
        self._seen = named


def _wanted(aliases: "Mapping[str, Version | None]", now: LiveAliases | None) -> dict[str, LiveVersion]:
    wanted: dict[str, LiveVersion] = {}
    for alias, version in sorted(aliases.items()):
        if version is not None:
            wanted[alias] = LiveVersion(version=version.number, uri=version.uri, sha256=version.sha256)
        elif now is not None and alias in now.aliases:
            wanted[alias] = now.aliases[alias]
    return wanted


def _previous(now: LiveAliases | None, wanted: Mapping[str, LiveVersion]) -> LiveVersion | None:
    """The champion before, once `wanted` are live."""
    if now is None:
        return None
    champion = now.aliases.get(CHAMPION)
    return now.previous if champion is None or champion == wanted.get(CHAMPION) else champion


def _parse(text: Any, keys: Keys) -> LiveAliases | None:
    if text is None:
        return None
    try:
        return LiveAliases.model_validate_json(text)
    except ValidationError as error:
        what = f"{keys.live} does not hold live aliases"
        raise StateError(
            what, value=str(text)[:80], mend="delete the key; the watcher writes it anew"
        ) from error
