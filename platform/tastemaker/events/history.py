"""Each user's newest items, each once, as serving reads them; the stream consumer writes them."""

from collections.abc import Iterable

import redis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

NOT_HISTORY = frozenset({"impression", "skip", "dislike", "hide"})
"""Kinds that do not say that a user took an item."""


def push_commands(keys: Keys, user_id: str, items: Iterable[str], length: int) -> list[Command]:
    """Commands that put `items` (oldest first) in front of a user's history; an item seen before moves up."""
    key = keys.history(user_id)
    commands: list[Command] = []
    for item_id in items:
        commands += [("LREM", key, "0", item_id), ("LPUSH", key, item_id)]
    return [*commands, ("LTRIM", key, "0", str(length - 1))]


def read_history(client: redis.Redis, keys: Keys, user_id: str) -> list[str]:
    """A user's item ids, oldest first; empty for an unknown user."""
    with state_errors("read a history"):
        reply = client.lrange(keys.history(user_id), 0, -1)
    assert isinstance(reply, list)
    return reply[::-1]
