"""Each user's newest items, each once, as serving reads them; the stream consumer writes them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import redis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

NOT_HISTORY = frozenset({"impression", "skip", "dislike", "hide"})
"""Kinds that do not say that a user took an item."""
_LOAD_BATCH = 1000


def push_commands(keys: Keys, user_id: str, items: Iterable[str], length: int) -> list[Command]:
    """Commands that put `items` (oldest first) in front of a user's history; an item seen before moves up."""
    key = keys.history(user_id)
    commands: list[Command] = []
    for item_id in items:
        commands += [("LREM", key, "0", item_id), ("LPUSH", key, item_id)]
    return [*commands, ("LTRIM", key, "0", str(length - 1))]


def load_histories(
    client: redis.Redis,
    keys: Keys,
    histories: Mapping[str, Sequence[str]] | Iterable[tuple[str, Sequence[str]]],
    length: int,
) -> int:
    """Replaces users' histories by imported ones; gives the number of users.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        histories: Each user's item ids, oldest first.
        length: How many of the newest to keep.
    """
    pairs = iter(histories.items() if isinstance(histories, Mapping) else histories)
    num_users = 0
    with state_errors("load histories"):
        while batch := list(itertools.islice(pairs, _LOAD_BATCH)):
            pipe = client.pipeline(transaction=False)
            for user_id, items in batch:
                newest_first = list(dict.fromkeys(reversed(items)))[:length]
                pipe.delete(keys.history(user_id))
                if newest_first:
                    pipe.rpush(keys.history(user_id), *newest_first)
            pipe.execute()
            num_users += len(batch)
    return num_users


def read_history(client: redis.Redis, keys: Keys, user_id: str) -> list[str]:
    """A user's item ids, oldest first; empty for an unknown user."""
    with state_errors("read a history"):
        reply = client.lrange(keys.history(user_id), 0, -1)
    assert isinstance(reply, list)
    return reply[::-1]
