"""What a request reads of its user: history, record and profile, in one exchange; two where the user was merged."""

import hashlib
from typing import Any, NamedTuple

from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import CompatibilityError
from tastemaker.features.user_state import UserState, state_in
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.users.merges import MOST_HOPS
from tastemaker.users.profile import Profile


class User(NamedTuple):
    """A user as of now.

    `history` is oldest first. `state` is None where the record is of another release; `record` is what it was decoded
    from, empty for an unknown user. `version` names all that was read: the user's next event changes it as soon as it is
    applied, and so do another profile, a merge and an erasure. Of a user who opted out nothing but the profile is here.
    """

    history: list[str]
    state: UserState | None
    version: bytes
    record: bytes = b""
    profile: Profile = Profile()

    @property
    def is_new(self) -> bool:
        """Whether nothing is known of what the user did."""
        return not self.history and (self.state is None or not self.state.taken)


def past_hash(user: User | None) -> str:
    """Names what was read of a user's past: history and record; empty where that is nothing."""
    if user is None or not (user.history or user.record):
        return ""
    digest = hashlib.blake2b(user.record, digest_size=8)
    for item_id in user.history:
        digest.update(b"\0" + item_id.encode())
    return digest.hexdigest()


class _Kept(NamedTuple):
    newest_first: list[bytes]
    record: bytes | None
    parts: dict[bytes, bytes]
    into: bytes | None


async def read_user(client: AsyncRedis, keys: Keys, user_id: str) -> User:
    """A user's history, record and profile; all empty for an unknown user.

    Of one who was merged into another, they are the other's.

    Args:
        client: Of the role `state.url`, with bytes for replies.
        keys: Of the catalogue.
        user_id: The customer's own id.

    Raises:
        StateError: They cannot be read.
    """
    kept = await _read(client, keys, user_id)
    for _ in range(MOST_HOPS):
        if kept.into is None:
            break
        kept = await _read(client, keys, kept.into.decode())
    profile = _profile(kept.parts)
    if not profile.personalise:
        return User([], UserState(), _version(kept._replace(newest_first=[], record=None)), b"", profile)
    history = [item.decode() for item in reversed(kept.newest_first)]
    return User(history, _decoded(kept.record), _version(kept), kept.record or b"", profile)


async def _read(client: AsyncRedis, keys: Keys, user_id: str) -> _Kept:
    with state_errors("read a user"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.lrange(keys.history(user_id), 0, -1)
        pipe.get(keys.user(user_id))
        pipe.hgetall(keys.profile(user_id))
        pipe.hget(keys.aliases(keys.partition(user_id)), user_id)
        return _Kept(*await pipe.execute())


def _version(kept: _Kept) -> bytes:
    digest = hashlib.blake2b(kept.record or b"", digest_size=16)
    parts = (word for part in sorted(kept.parts.items()) for word in part)
    for word in (*kept.newest_first, b"", *parts):
        digest.update(len(word).to_bytes(4) + word)
    return digest.digest()


def _decoded(record: bytes | None) -> UserState | None:
    try:
        return state_in(record)
    except CompatibilityError:
        return None


def _profile(parts: dict[bytes, bytes]) -> Profile:
    """The profile; of one that cannot be read, that nothing may be personal: so it is if that is what it says."""
    try:
        return Profile.decode({name.decode(): text.decode() for name, text in parts.items()})
    except (CompatibilityError, UnicodeDecodeError):
        return Profile(personalise=False)
