"""A few requests of the last hour, to try new versions on: what a user has in the past and asks for, not who it is.

A gateway takes one a second at most and puts what it took into Redis/Valkey once a minute, where they lie for an hour at
most; an erasure removes them all.
"""

import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis as AsyncRedis

from tastemaker.stages.recorded import MOST, Recorded
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Query

EVERY_SECONDS: Final = 1.0
SHARE_SECONDS: Final = 60.0
LIVES_SECONDS: Final = 3600


class Recorder:
    """Takes requests as they pass. For one event loop.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
    """

    def __init__(self, client: AsyncRedis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._taken: list[Recorded] = []
        self._next, self._share_at = 0.0, time.monotonic() + SHARE_SECONDS

    def note(self, query: Query, item_ids: Sequence[str]) -> None:
        """Takes a request, at times."""
        now = time.monotonic()
        if now >= self._next and len(self._taken) < MOST:
            self._next = now + EVERY_SECONDS
            self._taken.append(Recorded.of(query, item_ids))

    async def share(self) -> None:
        """Puts what was taken where all processes find it, once a minute; call it more often.

        Raises:
            StateError: Redis/Valkey cannot be reached; what was taken is kept.
        """
        if time.monotonic() < self._share_at or not self._taken:
            return
        with state_errors("share recorded requests"):
            pipe = self._client.pipeline(transaction=False)
            pipe.lpush(self._keys.recorded, *(one.encode() for one in self._taken))
            pipe.ltrim(self._keys.recorded, 0, MOST - 1)
            pipe.expire(self._keys.recorded, LIVES_SECONDS)
            await pipe.execute()
        self._taken, self._share_at = [], time.monotonic() + SHARE_SECONDS

    async def read(self) -> list[Recorded]:
        """What this and other gateways took lately, the newest first.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        with state_errors("read recorded requests"):
            found = await cast("Awaitable[Any]", self._client.lrange(self._keys.recorded, 0, MOST - 1))
        return [*reversed(self._taken), *map(Recorded.decode, found)][:MOST]
