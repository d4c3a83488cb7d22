"""A few requests of the last hour, to try versions on: what a user has in the past and asks for, not who it is.

They lie in Redis/Valkey for an hour at most; an erasure removes them all.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import redis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Int32, Query

MOST: Final = 32
RowOf = Callable[[str], int | None]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request, in ids of items. It names no user."""

    history: Sequence[str] = ()
    visit: Sequence[str] = ()
    k: int = 10
    context: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Recorded":
        """What `encode` gave."""
        return cls(**json.loads(text))

    @classmethod
    def of(cls, query: Query, item_ids: Sequence[str]) -> "Recorded":
        """A query of the bundle that has these items."""
        history, visit = ([item_ids[row] for row in rows] for rows in (query.history_L, query.visit_L))
        return cls(history, visit, query.k, dict(query.context))

    def query(self, row_of: RowOf) -> Query:
        """The same in the rows of another bundle, which need not know all items."""
        history_L, visit_L = (_rows(ids, row_of) for ids in (self.history, self.visit))
        now_ms = time.time_ns() // 1_000_000
        return Query(history_L, k=self.k, context=self.context, visit_L=visit_L, now_ms=now_ms)


def read_recorded(client: redis.Redis, keys: Keys) -> list[Recorded]:
    """What gateways took in the last hour, the newest first.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read recorded requests"):
        found: Any = client.lrange(keys.recorded, 0, MOST - 1)
    return [Recorded.decode(text) for text in found]


def _rows(ids: Sequence[str], row_of: RowOf) -> Int32:
    return np.array([row for item_id in ids if (row := row_of(item_id)) is not None], np.int32)
