"""All partitions held at once, so that no stream consumer applies anything meanwhile. Events are taken in as ever."""

import secrets
import time
from types import TracebackType
from typing import Any, Final, Self

import redis

from tastemaker.errors import StateError, UsageError
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import queue_acquire, queue_release, queue_renew

_SECONDS: Final = 60.0


class Standstill:
    """Holds every partition's lease while it is entered. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        seconds: After which consumers go on where the holder stands still itself.
    """

    def __init__(self, client: redis.Redis, keys: Keys, seconds: float = _SECONDS) -> None:
        self._client, self._keys = client, keys
        self._ttl_ms, self._every_seconds = round(seconds * 1000), seconds / 6
        self._token = secrets.token_hex(16)
        self._renew_at = 0.0
        self.fences: dict[int, int] = {}

    def __enter__(self) -> Self:
        """Takes all leases.

        Raises:
            UsageError: A consumer holds some; none are kept then.
            StateError: Redis/Valkey cannot be reached.
        """
        with state_errors("take all partitions"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in range(self._keys.partitions):
                leases = self._keys.partition_lease(p), self._keys.partition_fence(p)
                queue_acquire(pipe, leases, self._token, self._ttl_ms)
            self.fences = {p: int(fence) for p, fence in enumerate(pipe.execute()) if fence}
        if held := self._keys.partitions - len(self.fences):
            self._release()
            raise UsageError(
                "partitions that a stream consumer reads", value=held, limit="0",
                mend="stop it; one that was killed holds them for some seconds",
            )  # fmt: skip
        self._renew_at = time.monotonic() + self._every_seconds
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def hold(self) -> None:
        """Renews the leases where it is time; to be called at least every ten seconds.

        Raises:
            StateError: Redis/Valkey cannot be reached, or a lease has run out.
        """
        if time.monotonic() < self._renew_at:
            return
        with state_errors("hold all partitions"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in self.fences:
                queue_renew(pipe, self._keys.partition_lease(p), self._token, self._ttl_ms)
            kept = all(pipe.execute())
        if not kept:
            raise StateError("a stream consumer has taken a partition", mend="stop it and run this again")
        self._renew_at = time.monotonic() + self._every_seconds

    def _release(self) -> None:
        with state_errors("release all partitions"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in self.fences:
                queue_release(pipe, self._keys.partition_lease(p), self._token)
            pipe.execute()
        self.fences = {}
