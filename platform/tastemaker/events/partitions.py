"""Which partitions a stream consumer reads: its fair share of all, each under a lease of its own.

Consumers register with a heartbeat. Of P partitions and n living consumers, in the order of their tokens, each may hold
P // n, the first P % n one more: the shares add up to P. Who holds more gives the rest up, who holds less takes what
is free; what is held stays where it is otherwise. A killed consumer's heartbeat and leases run out, and the others take
its partitions over. Two consumers may disagree for a moment on who lives: the leases decide, and the fences guard.
"""

import random
import secrets
import time
from typing import Any

import redis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.layout import raise_first
from tastemaker.state.lease import LEASE_SECONDS, queue_acquire, queue_release, queue_renew

# KEYS: the consumers. ARGV: token, time to live in ms. Gives the living ones' tokens.
_BEAT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
"""


class PartitionLeases:
    """The leases of one consumer. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        seconds: After which those of a consumer that stands still run out.
    """

    def __init__(self, client: redis.Redis, keys: Keys, seconds: float = LEASE_SECONDS) -> None:
        self._client, self._keys = client, keys
        self._ttl_ms = round(seconds * 1000)
        self._every_seconds = seconds / 10
        self._token = secrets.token_hex(16)
        self._fences: dict[int, int] = {}
        self._unsure: dict[int, int] = {}
        self._renew_at = 0.0

    def hold(self) -> dict[int, int]:
        """The fence of each held partition.

        Ten times in a lease's life, and always while nothing is held, all leases are renewed in one round trip, and what
        is held moves towards the fair share. A partition whose part of a cluster is away is not held meanwhile.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        if self._fences and time.monotonic() < self._renew_at:
            return dict(self._fences)
        with state_errors("hold the consumer's leases"):
            share = self._renew()
            surplus = len(self._fences) - share
            if surplus > 0:
                self._give_up(sorted(self._fences)[-surplus:])
            elif surplus < 0:
                self._take(-surplus)
        self._renew_at = time.monotonic() + self._every_seconds
        return dict(self._fences)

    def doubt(self) -> None:
        """Has the next `hold` ask the server: a commit was refused, or the server was away."""
        self._renew_at = 0.0

    def release(self) -> None:
        """Gives all up and is no longer counted among the living."""
        with state_errors("release the consumer's leases"):
            self._fences |= self._unsure
            self._unsure = {}
            self._give_up(list(self._fences))
            self._client.zrem(self._keys.consumers, self._token)

    def _renew(self) -> int:
        """Forgets the leases that were lost; gives the fair share."""
        pipe: Any = self._client.pipeline(transaction=False)
        pipe.eval(_BEAT, 1, self._keys.consumers, self._token, str(self._ttl_ms))
        known = self._fences | self._unsure
        for partition in known:
            queue_renew(pipe, self._keys.partition_lease(partition), self._token, self._ttl_ms)
        alive, *renewed = pipe.execute(raise_on_error=False)
        raise_first([alive])
        away = {p for p, kept in zip(known, renewed, strict=True) if isinstance(kept, Exception)}
        if away == {*known}:
            raise_first(renewed)
        kept = {p: f for (p, f), kept in zip(known.items(), renewed, strict=True) if kept}
        self._fences = {p: f for p, f in kept.items() if p not in away}
        self._unsure = {p: f for p, f in kept.items() if p in away}
        return fair_share(self._keys.partitions, sorted(alive).index(self._token), len(alive))

    def _give_up(self, partitions: list[int]) -> None:
        pipe: Any = self._client.pipeline(transaction=False)
        for partition in partitions:
            queue_release(pipe, self._keys.partition_lease(partition), self._token)
            del self._fences[partition]
        pipe.execute()

    def _take(self, most: int) -> None:
        others = [p for p in range(self._keys.partitions) if p not in self._fences and p not in self._unsure]
        random.shuffle(others)  # so that two that look at once seldom want the same
        pipe: Any = self._client.pipeline(transaction=False)
        for partition in others:
            pipe.exists(self._keys.partition_lease(partition))
        replies = pipe.execute(raise_on_error=False)
        if others and all(isinstance(reply, Exception) for reply in replies):
            raise_first(replies)
        free = [p for p, taken in zip(others, replies, strict=True) if taken == 0][:most]
        for partition in free:
            keys = self._keys.partition_lease(partition), self._keys.partition_fence(partition)
            queue_acquire(pipe, keys, self._token, self._ttl_ms)
        replies = pipe.execute(raise_on_error=False)
        taken = {p: f for p, f in zip(free, replies, strict=True) if not isinstance(f, Exception)}
        self._fences.update({p: int(f) for p, f in taken.items() if f})


def fair_share(partitions: int, place: int, alive: int) -> int:
    """How many partitions the consumer at a place among the living may hold.

    >>> [fair_share(64, place, 3) for place in range(3)]
    [22, 21, 21]
    """
    return partitions // alive + (place < partitions % alive)
