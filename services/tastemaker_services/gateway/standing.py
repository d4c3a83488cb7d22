"""The catalogue's standing rules as a gateway knows them: read twice a second; while Redis/Valkey is away, the last ones hold."""

import logging
from typing import Final

from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import StateError
from tastemaker.stages.standing_rules import policy_in, read_texts_async
from tastemaker.state.keys import Keys
from tastemaker_services.every import EveryAsync

EVERY_SECONDS: Final = 0.5
log = logging.getLogger(__name__)


class StandingRules:
    """Follows the catalogue's rules. For one event loop; `policy` never waits.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: AsyncRedis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._texts: dict[str, str] = {}
        self._policy = ""
        self._watcher = EveryAsync(EVERY_SECONDS, self.read)

    def policy(self) -> str:
        """The rules as the text of a policy; empty where there are none."""
        return self._policy

    async def start(self) -> None:
        """Reads once, so that the first answer obeys, and goes on reading until `stop`."""
        await self._watcher.start()

    async def stop(self) -> None:
        """Ends the reading."""
        await self._watcher.stop()

    async def read(self) -> None:
        """Reads once; where that fails, what was read last holds."""
        try:
            texts = await read_texts_async(self._client, self._keys)
        except StateError as error:
            log.warning("cannot read the catalogue's rules, what was last read holds: %s", error)
            return
        if texts != self._texts:
            self._texts, self._policy = texts, policy_in(texts)
