"""How far a consumer has come in each partition that it holds, and the commits that move it on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from tastemaker.errors import StateError
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.layout import raise_first
from tastemaker.state.lease import Command, queue_commit

_START = "0-0"


class Progress(NamedTuple):
    """Stream ids up to which a partition's events and decisions are applied and archived."""

    events: str = _START
    decisions: str = _START
    archived_events: str = _START
    archived_decisions: str = _START

    @classmethod
    def decode(cls, text: str | None) -> "Progress":
        """What `encode` gave; the start where nothing is kept yet."""
        return cls(*(text or "").split())

    def encode(self) -> str:
        """Text to keep; empty at the start."""
        return "" if self == Progress() else " ".join(self)

    @property
    def is_archived(self) -> bool:
        """Whether all that was applied is in Parquet."""
        return self[:2] == self.archived

    @property
    def archived(self) -> tuple[str, ...]:
        """Up to where events and decisions are in Parquet."""
        return self[2:]


class Positions:
    """The progress of the partitions that are held. Not thread-safe."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._fences: dict[int, int] = {}
        self.progress: dict[int, Progress] = {}

    def follow(self, fences: Mapping[int, int]) -> bool:
        """Takes up the partitions that are held now, by fence; says whether any is new.

        Raises:
            StateError: Redis/Valkey cannot be reached; it may be called again.
        """
        kept = {p for p in self.progress if fences.get(p) == self._fences[p]}
        new = [p for p in fences if p not in kept]
        taken = any(self._fences.get(p) != fence for p, fence in fences.items())
        with state_errors("read the consumer's offsets"):
            pipe = self._client.pipeline(transaction=False)
            for partition in new:
                pipe.hget(self._keys.offsets(partition), "progress")
            replies = pipe.execute()
        self.progress = {p: self.progress[p] for p in kept}
        self.progress |= {p: Progress.decode(reply) for p, reply in zip(new, replies, strict=True)}
        self._fences = dict(fences)
        return taken

    def forget(self) -> None:
        """Has `follow` read all offsets again, after an error: a commit may have gone through unseen."""
        self.progress, self._fences = {}, {}

    def doubt(self, partitions: Iterable[int]) -> None:
        """The same for some of the partitions."""
        for partition in partitions:
            self.progress.pop(partition, None)

    def commit(self, commands: Mapping[int, Sequence[Command]], after: Mapping[int, Progress]) -> None:
        """Carries out each partition's commands and moves it on, both or neither.

        Raises:
            StateError: Redis/Valkey cannot be reached, or another consumer has taken a partition; some may have moved
                on.
        """
        with state_errors("commit"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p, progress in after.items():
                guard, before = self._keys.offsets(p), self.progress[p].encode()
                queue_commit(
                    pipe, guard, self._fences[p], commands[p], before=before, after=progress.encode()
                )
            replies = pipe.execute(raise_on_error=False)
            done = {p: at for (p, at), reply in zip(after.items(), replies, strict=True) if reply == 1}
            self.progress.update(done)
            raise_first(replies)
        if len(done) < len(after):
            raise StateError("another process has taken a partition's lease", mend="let it work")
