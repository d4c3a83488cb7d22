"""One writer at a time: leases with fencing tokens, and commits that an outlived holder cannot make."""

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final

import redis

from tastemaker.state.connection import state_errors

Command = tuple[str | bytes, ...]
"""A Redis command with its arguments; the second word is its key."""
MOST_WORDS: Final = 7000
"""Of one command in a commit: what Lua can unpack."""
LEASE_SECONDS: Final = 15.0

_ACQUIRE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('INCR', KEYS[2]) end
return 0
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
# KEYS: the guard (a hash), then every key written. ARGV: fence, progress before and after, then of each command the
# number of its words and the words.
_COMMIT = """
if tonumber(redis.call('HGET', KEYS[1], 'fence') or '0') > tonumber(ARGV[1]) then return 0 end
local progress = redis.call('HGET', KEYS[1], 'progress') or ''
if progress ~= ARGV[2] then return progress == ARGV[3] and 1 or 0 end
redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'progress', ARGV[3])
local at = 4
while ARGV[at] do
  local last = at + tonumber(ARGV[at])
  redis.call(unpack(ARGV, at + 1, last))
  at = last + 1
end
return 1
"""


class Lease:
    """Held by one process at a time, for `seconds` from its last renewal.

    `fence` is the number of the present holding: larger than any before. 0 while not held.
    """

    def __init__(
        self, client: redis.Redis, lease_key: str, fence_key: str, seconds: float = LEASE_SECONDS
    ) -> None:
        self._client, self._keys = client, (lease_key, fence_key)
        self._ttl_ms = str(round(seconds * 1000))
        self._token = secrets.token_hex(16)
        self.fence = 0

    def hold(self) -> bool:
        """Takes or renews the lease; False when another holds it.

        Raises:
            StateError: Redis/Valkey cannot be reached.
        """
        with state_errors("hold a lease"):
            if self.fence and self._client.eval(_RENEW, 1, self._keys[0], self._token, self._ttl_ms):
                return True
            reply: Any = self._client.eval(_ACQUIRE, 2, *self._keys, self._token, self._ttl_ms)
        self.fence = int(reply)
        return self.fence > 0

    def release(self) -> None:
        """Gives the lease up, so that another need not wait for it to run out."""
        if self.fence:
            with state_errors("release a lease"):
                self._client.eval(_RELEASE, 1, self._keys[0], self._token)
            self.fence = 0


def queue_acquire(pipe: Any, keys: tuple[str, str], token: str, ttl_ms: int) -> None:
    """Queues the taking of a lease: the reply is its fence, 0 where another holds it. `keys`: lease and fence."""
    pipe.eval(_ACQUIRE, 2, *keys, token, str(ttl_ms))


def queue_renew(pipe: Any, lease_key: str, token: str, ttl_ms: int) -> None:
    """Queues the renewal of a lease: the reply is 0 where it was lost."""
    pipe.eval(_RENEW, 1, lease_key, token, str(ttl_ms))


def queue_release(pipe: Any, lease_key: str, token: str) -> None:
    """Queues the giving up of a lease, which does nothing where it was lost."""
    pipe.eval(_RELEASE, 1, lease_key, token)


def queue_commit(
    pipe: Any, guard: str, fence: int, commands: Iterable[Command], *, before: str = "", after: str = ""
) -> None:
    """Queues commands that are carried out all or none: a reply of 1 says they were, now or earlier.

    They are refused (0) when a later holder has written under `guard`, or when the guard's progress is
    neither `before` nor `after`. All keys must share the guard's slot.
    """
    batch = list(commands)
    keys = dict.fromkeys([guard, *(command[1] for command in batch)])
    pipe.eval(_COMMIT, len(keys), *keys, str(fence), before, after, *_words(batch))


def _words(commands: Sequence[Command]) -> list[str | bytes]:
    words: list[str | bytes] = []
    for command in commands:
        assert len(command) <= MOST_WORDS, f"{command[0]!r} has {len(command)} words"
        words.append(str(len(command)))
        words += command
    return words
