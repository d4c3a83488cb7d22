"""Histories of users, put where serving reads them, for tests that need no events."""

from collections.abc import Mapping, Sequence
from typing import Any

from tastemaker.state.keys import Keys


def put_histories(client: Any, keys: Keys, histories: Mapping[str, Sequence[str]]) -> None:
    """Replaces users' histories, each oldest first."""
    for user_id, items in histories.items():
        client.delete(keys.history(user_id))
        client.rpush(keys.history(user_id), *reversed(items))
