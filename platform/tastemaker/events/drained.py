"""Whether all that came in has had its effect; for whoever waits for that."""

import time
from typing import Any

import redis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys


def is_drained(client: redis.Redis, keys: Keys) -> bool:
    """Whether every event and decision is applied and archived, no attribution window is open, and no user on the move.

    Any process may ask, such as one that waits for an experiment's last rewards.
    """
    with state_errors("look at the streams"):
        pipe: Any = client.pipeline(transaction=False)
        for p in range(keys.partitions):
            pipe.xlen(keys.events(p))
            pipe.xlen(keys.decisions(p))
            pipe.zcard(keys.closing(p))
            pipe.exists(keys.forgetting(p), keys.moving(p), keys.inbox(p))
            pipe.xlen(keys.outbox(p))
        return not any(pipe.execute())


def await_drained(client: redis.Redis, keys: Keys, timeout_seconds: float, poll_seconds: float = 0.1) -> bool:
    """Waits while another process's consumer works; False when time ran out first."""
    deadline = time.monotonic() + timeout_seconds
    while not is_drained(client, keys):
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_seconds)
    return True
