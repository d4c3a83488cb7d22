"""Profiles in Redis/Valkey: written by the gateway, read with each request, on disk before anyone is told so.

What must hold at once holds in one script: opting out writes the part, shuts the user's record to events and marks it to
be forgotten. Who opts in again starts anew: `since_ms` is when, and earlier events do not count.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import StateError
from tastemaker.events.owners import NEVER
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.users.profile import INTEREST, SCHEMA, Interest, Profile, ProfileRow

_WAIT_DURABLE_MS = 2000
# KEYS: profile, consent, marks of whom to forget, of changed profiles, of texts to encode. ARGV: user, time in ms, the time that is
# never, schema, then of each part its name and JSON, empty where it goes.
_PUT: Final = """
local before = redis.call('HGET', KEYS[1], 'personalise')
for i = 5, #ARGV, 2 do
  if ARGV[i] == 'onboarding' then redis.call('SADD', KEYS[5], ARGV[1]) end
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[1], ARGV[i])
  else redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
redis.call('HSET', KEYS[1], 'schema', ARGV[4], 'updated_ms', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('SADD', KEYS[4], ARGV[1])
if redis.call('HGET', KEYS[1], 'personalise') == 'false' then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
  redis.call('SADD', KEYS[3], ARGV[1])
  return 1
end
if before == 'false' then redis.call('HSET', KEYS[1], 'since_ms', ARGV[2]) end
local since = redis.call('HGET', KEYS[1], 'since_ms')
if since then redis.call('HSET', KEYS[2], ARGV[1], since) end
return 1
"""
# KEYS: profile, marks. ARGV: user, name of the part, its JSON, the answers as they were read; empty for none. Nothing is
# done where those have changed.
_KEEP_INTEREST: Final = """
if (redis.call('HGET', KEYS[1], 'onboarding') or '') ~= ARGV[4] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[2])
else redis.call('HSET', KEYS[1], ARGV[2], ARGV[3]) end
redis.call('SREM', KEYS[2], ARGV[1])
return 1
"""


async def put_profiles(client: AsyncRedis, keys: Keys, rows: Sequence[ProfileRow], now_ms: int) -> None:
    """Changes what the rows name of their users; returns once it is on the server's disk.

    Raises:
        StateError: It is not, or not known to be. Putting the same again does no harm.
    """
    if not rows:
        return
    with state_errors("keep profiles"):
        pipe: Any = client.pipeline(transaction=False)
        for row in rows:
            _queue_put(pipe, keys, row.user_id, row.parts(), now_ms)
        pipe.execute_command("WAITAOF", 1, 0, _WAIT_DURABLE_MS)
        *_, durable = await pipe.execute()
    if int(durable[0]) < 1:
        raise StateError("profiles are not yet on disk", mend="send them again")


def restore_profiles(client: redis.Redis, keys: Keys, archived: Mapping[str, Mapping[str, str]]) -> None:
    """Puts archived parts, by user, back where nothing is kept of the user; in two round trips.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("restore profiles"):
        pipe: Any = client.pipeline(transaction=False)
        for user_id in archived:
            pipe.exists(keys.profile(user_id))
        for (user_id, kept), is_there in zip(archived.items(), pipe.execute(), strict=True):
            if not is_there:
                parts = {name: text for name, text in kept.items() if name != "updated_ms"}
                _queue_put(pipe, keys, user_id, parts, int(kept["updated_ms"]))
        pipe.execute()


async def read_profile_async(client: AsyncRedis, keys: Keys, user_id: str) -> Profile | None:
    """What is kept of a user; None where nothing is. The client's replies are text.

    Raises:
        StateError: It cannot be read.
        CompatibilityError: See `Profile.decode`.
    """
    with state_errors("read a profile"):
        kept: Any = await client.hgetall(keys.profile(user_id))  # type: ignore[misc]
    return Profile.decode(kept) if kept else None


def read_parts(client: redis.Redis, keys: Keys, user_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Profiles as kept, in one round trip; empty where there is none.

    Raises:
        StateError: They cannot be read.
    """
    with state_errors("read profiles"):
        pipe: Any = client.pipeline(transaction=False)
        for user_id in user_ids:
            pipe.hgetall(keys.profile(user_id))
        return dict(zip(user_ids, pipe.execute(), strict=True))


def keep_interest(
    client: redis.Redis, keys: Keys, user_id: str, onboarding: str, interest: Interest | None
) -> bool:
    """Keeps the vector of a free text, and says so, unless the answers have changed since they were read.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    touched = keys.profile(user_id), keys.interests(keys.partition(user_id))
    text = "" if interest is None else interest.model_dump_json()
    with state_errors("keep an interest"):
        return bool(client.eval(_KEEP_INTEREST, 2, *touched, user_id, INTEREST, text, onboarding))


def _queue_put(
    client_or_pipe: Any, keys: Keys, user_id: str, parts: Mapping[str, str | None], now_ms: int
) -> None:
    p = keys.partition(user_id)
    changed = dict(parts)
    if "onboarding" in changed:
        changed.setdefault(INTEREST, None)  # it was of the text before
    words = [word for name, text in changed.items() for word in (name, text or "")]
    marks = keys.forgetting(p), keys.changed_profiles(p), keys.interests(p)
    touched = keys.profile(user_id), keys.consent(p), *marks
    client_or_pipe.eval(_PUT, 5, *touched, user_id, str(now_ms), str(NEVER), str(SCHEMA), *words)
