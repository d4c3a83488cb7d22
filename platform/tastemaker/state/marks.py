"""Sets of marks, one of each partition: what has changed and is still to be looked at. Who marks and who unmarks, those say who use it."""

from collections.abc import Sequence
from typing import Any

import redis

from tastemaker.state.connection import state_errors


def some_marked(client: redis.Redis, sets: Sequence[str], most: int, what: str) -> dict[int, list[str]]:
    """About `most` of what is marked, by partition, drawn by chance so that none waits for ever; partitions without any are left out.

    Args:
        client: Of the role `state.url`.
        sets: The key of each partition's set.
        most: Of all sets together; each gives the same share of it at most.
        what: Is marked, for the error.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    each = -(-most // len(sets))
    with state_errors(f"read marks of {what}"):
        pipe: Any = client.pipeline(transaction=False)
        for key in sets:
            pipe.srandmember(key, each)
        return {p: found for p, found in enumerate(pipe.execute()) if found}
