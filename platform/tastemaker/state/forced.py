"""The kill switch of a catalogue: the rung that its answers must not go above, whatever works.

Kept as one JSON. A rung that was forced for a time says itself when it ends, so that whoever has read it once lets it end
without reading it again.
"""

import json
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self, cast

from tastemaker.errors import StateError, UsageError
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

if TYPE_CHECKING:
    import redis
    from redis.asyncio import Redis as AsyncRedis

RUNGS: Final = ("no-rerank", "retrieval-order", "base-vector", "cached", "trending", "popular")
"""From the one that is nearest to a whole answer to the one that needs least; each does without what those above do without."""
LONGEST_SECONDS: Final = 30 * 86_400


@dataclass(frozen=True, slots=True)
class Forced:
    """A rung, since when, and until when in ms; 0 is until it is released."""

    rung: str
    since_ms: int
    until_ms: int = 0

    @classmethod
    def of(cls, rung: str, seconds: float | None = None) -> Self:
        """The rung from now on.

        Raises:
            UsageError: No such rung, or a time out of range.
        """
        if rung not in RUNGS:
            raise UsageError("rung", value=rung, limit=f"one of {', '.join(RUNGS)}", mend="name one of them")
        if seconds is not None and not 1 <= seconds <= LONGEST_SECONDS:
            limit = f"1 to {LONGEST_SECONDS} seconds"
            raise UsageError(
                "time of a forced rung", value=seconds, limit=limit, mend="leave it out for no end"
            )
        now = time.time_ns() // 1_000_000
        return cls(rung, now, 0 if seconds is None else now + int(1000 * seconds))

    def holds(self, now_ms: int) -> bool:
        """Whether it has not ended."""
        return not self.until_ms or now_ms < self.until_ms


def force(client: "redis.Redis", keys: Keys, forced: Forced) -> None:
    """Forces a rung, in place of any that was forced before.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("force a rung"):
        client.set(keys.forced_rung, json.dumps(asdict(forced)), pxat=forced.until_ms or None)


def release(client: "redis.Redis", keys: Keys) -> bool:
    """Ends the forcing; whether there was any.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("release the forced rung"):
        return bool(client.delete(keys.forced_rung))


def read_forced(client: "redis.Redis", keys: Keys) -> Forced | None:
    """What is forced; None where nothing is.

    Raises:
        StateError: Redis/Valkey cannot be reached, or holds something else under this key.
    """
    with state_errors("read the forced rung"):
        text = client.get(keys.forced_rung)
    return _parse(text, keys)


async def read_forced_async(client: "AsyncRedis", keys: Keys) -> Forced | None:
    """The same as `read_forced` for asyncio."""
    with state_errors("read the forced rung"):
        text = await cast("Awaitable[Any]", client.get(keys.forced_rung))
    return _parse(text, keys)


def _parse(text: Any, keys: Keys) -> Forced | None:
    if text is None:
        return None
    try:
        forced = Forced(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise _foreign(text, keys) from error
    if forced.rung not in RUNGS or not isinstance(forced.until_ms, int):
        raise _foreign(text, keys)
    return forced


def _foreign(text: Any, keys: Keys) -> StateError:
    mend = "`tastemaker ladder release`"
    return StateError(f"{keys.forced_rung} does not hold a forced rung", value=str(text)[:80], mend=mend)
