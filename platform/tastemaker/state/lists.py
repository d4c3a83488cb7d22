"""Lists of recommendations that were computed ahead for every user, as serving falls back on them.

They are results, not state: each has a time to live, and losing them costs a fallback, nothing else.
"""

import itertools
import json
from collections.abc import Iterable
from typing import NamedTuple, Self

import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

_WRITE_BATCH = 1000


class StoredList(NamedTuple):
    """A user's list: best first, by which bundle, and when."""

    bundle_id: str
    made_ms: int
    item_ids: list[str]

    def encode(self) -> str:
        """Text to keep."""
        return json.dumps(self, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def decode(cls, text: str | bytes | None) -> Self | None:
        """What `encode` gave; None where nothing is kept."""
        return None if text is None else cls(*json.loads(text))


def write_lists(
    client: redis.Redis, keys: Keys, lists: Iterable[tuple[str, StoredList]], seconds: int
) -> int:
    """Keeps users' lists, in place of earlier ones; gives their number.

    Args:
        client: Of the role `state.cache_url`.
        keys: Of the catalogue.
        lists: By user id.
        seconds: Time to live.
    """
    pairs, written = iter(lists), 0
    with state_errors("write lists"):
        while batch := list(itertools.islice(pairs, _WRITE_BATCH)):
            pipe = client.pipeline(transaction=False)
            for user_id, stored in batch:
                pipe.set(keys.stored_list(user_id), stored.encode(), ex=seconds)
            pipe.execute()
            written += len(batch)
    return written


async def read_list_async(client: AsyncRedis, keys: Keys, user_id: str) -> StoredList | None:
    """A user's list, whatever the client's replies are; None where there is none, or it has outlived its time."""
    with state_errors("read a list"):
        return StoredList.decode(await client.get(keys.stored_list(user_id)))
