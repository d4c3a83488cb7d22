"""What a request reads of its user: the history and the record, in one exchange."""

import hashlib
from typing import NamedTuple

from redis.asyncio import Redis as AsyncRedis

from tastemaker.errors import CompatibilityError
from tastemaker.features.user_state import UserState
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys


class User(NamedTuple):
    """A user as of now.

    `history` is oldest first. `state` is None where the record is of another release; `record` is what it was decoded
    from, empty for an unknown user. `version` names all that was read: the user's next event changes it as soon as it is
    applied, and so does an erasure.
    """

    history: list[str]
    state: UserState | None
    version: bytes
    record: bytes = b""


async def read_user(client: AsyncRedis, keys: Keys, user_id: str) -> User:
    """A user's history and record; both empty for an unknown user.

    Args:
        client: Of the role `state.url`, with bytes for replies.
        keys: Of the catalogue.
        user_id: The customer's own id.

    Raises:
        StateError: They cannot be read.
    """
    with state_errors("read a user"):
        pipe = client.pipeline(transaction=False)
        pipe.lrange(keys.history(user_id), 0, -1)
        pipe.get(keys.user(user_id))
        newest_first, record = await pipe.execute()
    digest = hashlib.blake2b(record or b"", digest_size=16)
    for item in newest_first:
        digest.update(len(item).to_bytes(4) + item)
    history = [item.decode() for item in reversed(newest_first)]
    return User(history, _decoded(record), digest.digest(), record or b"")


def _decoded(record: bytes | None) -> UserState | None:
    try:
        return UserState.decode(record)
    except CompatibilityError:
        return None
