"""Whom the events of the log count for, as a replay sees it: what `events.owners` says to the stream consumer.

Before anything is replayed, what was moving from one user to another is brought to rest, and aliases and profiles that a
lost server has no more come back from the disk.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import redis

from tastemaker.events.owners import PLAIN
from tastemaker.features.merging import forward, is_moving, join
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command
from tastemaker.users.archive import restore_archived
from tastemaker.users.merged import MergedUsers, read_merges
from tastemaker.users.merges import restore_aliases

PERSONAL = "personal"
"""Column of `BUCKET_SCHEMA`: false where an event counts for its item alone."""
Commit = Callable[[int, list[Command]], None]


class ReplayOwners:
    """What is special about users.

    Args:
        merged: Which ids are one user.
        since_ms: By user id, the time up to which events do not count for the user.
    """

    def __init__(self, merged: MergedUsers, since_ms: Mapping[str, int]) -> None:
        self._merged, self._since_ms = merged, since_ms

    def of(self, table: pa.Table) -> pa.Table:
        """Rows with `user_id` and `timestamp_ms` under the ids that users have by now, and with `PERSONAL`.

        An event counts for its user where neither the id that it came under nor the user opted out of it.
        """
        if not self._merged and not self._since_ms:
            return table
        users: Any = table["user_id"].combine_chunks().dictionary_encode()
        known: list[str] = users.dictionary.to_pylist()
        since = [max(map(self._since, (user, self._merged.root(user)))) for user in known]
        is_personal = pc.greater(table["timestamp_ms"], pa.array(since, pa.int64()).take(users.indices))
        return self._merged.renamed(table).append_column(PERSONAL, is_personal)

    def _since(self, user_id: str) -> int:
        return self._since_ms.get(user_id, PLAIN.since_ms)


def restored_owners(client: redis.Redis, keys: Keys, home: Home) -> ReplayOwners:
    """Brings aliases and profiles back that the server has not, and gives what they say.

    Raises:
        StateError: Redis/Valkey cannot be reached.
        DataError: What is archived of them cannot be read.
    """
    merged = read_merges(home, keys.catalogue)
    restore_archived(client, keys, home, frozenset(merged.merges))
    restore_aliases(client, keys, merged.merges)
    with state_errors("read consent"):
        pipe: Any = client.pipeline(transaction=False)
        for p in range(keys.partitions):
            pipe.hgetall(keys.consent(p))
        pairs = itertools.chain.from_iterable(found.items() for found in pipe.execute())
    return ReplayOwners(merged, {user_id: int(ms) for user_id, ms in pairs})


def settle(client: redis.Redis, keys: Keys, history_length: int, commit: Commit) -> None:
    """Brings what merges move to where it joins, all of it, while the caller holds every partition.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        history_length: How many of the newest items a history keeps.
        commit: Carries out commands of one partition under the caller's fence.

    Raises:
        StateError: As `join`, `forward` and `commit`.
    """
    partitions = range(keys.partitions)
    while is_moving(client, keys):
        for partition, commands in join(client, keys, partitions, history_length).items():
            commit(partition, commands)
        forward(client, keys, partitions)
