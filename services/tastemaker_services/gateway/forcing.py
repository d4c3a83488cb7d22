"""The kill switch as a gateway knows it: read twice a second; while Redis/Valkey is away, what was last read holds."""

import logging
import time
from typing import Final

from redis.asyncio import Redis as AsyncRedis

from tastemaker import telemetry
from tastemaker.errors import StateError
from tastemaker.state.forced import RUNGS, Forced, read_forced_async
from tastemaker.state.keys import Keys
from tastemaker_services.every import EveryAsync

EVERY_SECONDS: Final = 0.5
log = logging.getLogger(__name__)


class KillSwitch:
    """Follows the catalogue's forced rung. For one event loop; `rung` never waits.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: AsyncRedis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._forced: Forced | None = None
        self._watcher = EveryAsync(EVERY_SECONDS, self._follow)
        self._gauges = {rung: telemetry.FORCED.labels(keys.catalogue, rung) for rung in RUNGS}

    def rung(self) -> str | None:
        """The rung that answers are held to now; None where they are not."""
        forced = self._forced
        return forced.rung if forced is not None and forced.holds(time.time_ns() // 1_000_000) else None

    async def start(self) -> None:
        """Reads once, so that the first answer obeys, and goes on reading until `stop`."""
        await self._watcher.start()

    async def stop(self) -> None:
        """Ends the reading."""
        await self._watcher.stop()

    async def read(self) -> None:
        """Reads once.

        Raises:
            StateError: It cannot be read; what was read last holds.
        """
        found = await read_forced_async(self._client, self._keys)
        if found != self._forced:
            log.warning("forced rung: %s", found.rung if found else "none")
        self._forced = found

    async def _follow(self) -> None:
        try:
            await self.read()
        except StateError as error:
            log.warning("cannot read whether a rung is forced, what was last read holds: %s", error)
        self._show()

    def _show(self) -> None:
        now = self.rung()
        for rung, gauge in self._gauges.items():
            gauge.set(float(rung == now))
