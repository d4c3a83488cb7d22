"""Vectors of put items in spaces whose encoder is too heavy for processes that serve: one process makes them, all read them.

Writing some tells all who follow the catalogue that these items have changed, so that they look here again.

Shape letters: N items, D dimension.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import redis

from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Float32

_MARK_BYTES: Final = 8
"""Before each vector: of the row that it was made of."""
# KEYS: vectors, changes, head. ARGV: item ids and vectors in turn.
_WRITE = """
for i = 1, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[3], 'epoch', 1), ARGV[i])
end
"""


def write_vectors(
    client: redis.Redis, keys: Keys, space: str, rows: Mapping[str, str], vectors_ND: Float32
) -> None:
    """Keeps the vectors of items.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        space: Fingerprint of the space that the vectors are of.
        rows: By item id, in order of the vectors: what each was made of.
        vectors_ND: Of the items.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    if not rows:
        return
    kept = zip(rows.items(), vectors_ND.astype("<f4"), strict=True)
    words = [word for (item_id, row), vector in kept for word in (item_id, _mark(row) + vector.tobytes())]
    with state_errors("keep items' vectors"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.eval(_WRITE, 3, keys.item_vectors(space), keys.put_changes, keys.put_head, *words)
        pipe.execute()


def without_vectors(client: redis.Redis, keys: Keys, space: str, rows: Mapping[str, str]) -> dict[str, str]:
    """Those of the rows, by item id, whose vector is not kept, or was made of another row.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    kept = zip(rows.items(), _read(client, keys, space, list(rows)), strict=True)
    return {item_id: row for (item_id, row), found in kept if (found or b"")[:_MARK_BYTES] != _mark(row)}


def read_vectors(client: redis.Redis, keys: Keys, space: str, dim: int, item_ids: Sequence[str]) -> Float32:
    """Vectors (N, D) of items; zeros where none was made yet.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    found_ND = np.zeros((len(item_ids), dim), np.float32)
    for n, kept in enumerate(_read(client, keys, space, item_ids)):
        if kept is not None and len(kept) == _MARK_BYTES + 4 * dim:
            found_ND[n] = np.frombuffer(kept, "<f4", offset=_MARK_BYTES)
    return found_ND


def _read(client: redis.Redis, keys: Keys, space: str, item_ids: Sequence[str]) -> list[bytes | None]:
    if not item_ids:
        return []
    with state_errors("read items' vectors"):
        pipe: Any = client.pipeline(transaction=False)
        pipe.execute_command("HMGET", keys.item_vectors(space), *item_ids, NEVER_DECODE=True)
        (kept,) = pipe.execute()
    found: list[bytes | None] = kept
    return found


def _mark(row: str) -> bytes:
    return hashlib.blake2b(row.encode(), digest_size=_MARK_BYTES).digest()
