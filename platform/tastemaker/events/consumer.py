"""Applies the event log: users' histories and features, rewards, Parquet days. As many processes as wanted.

Consumers share a catalogue's partitions, see `partitions`. Effects on state are exactly once: per partition, what a
step writes and the offset that it read to are one fenced script. Parquet is at least once, see `archive`. Two offsets
per stream: applied (every step) and archived (every `ARCHIVE_SECONDS`); a stream is trimmed up to the archived one.

Events are applied in the order in which the log received them; one that comes late does not re-sort a
history. What spans partitions (posteriors, item totals) is summed up from theirs and written anew: see `effects`.
Where a part of a cluster is away, the other partitions go on: see `apart`.
"""

import gc
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass

import redis

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.events.apart import Apart
from tastemaker.events.applying import Applier
from tastemaker.events.archiver import Archiver, AtOnce, Written
from tastemaker.events.batch import Batch, read_batches
from tastemaker.events.drained import is_drained
from tastemaker.events.effects import Effects, Rewards
from tastemaker.events.forgetting import without_erased
from tastemaker.events.partitions import PartitionLeases
from tastemaker.events.progress import Positions
from tastemaker.home import Home
from tastemaker.state.cluster import Cluster
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import LEASE_SECONDS

ARCHIVE_SECONDS = 2.0
PROJECT_SECONDS = 1.0
PROJECT_REST = 9.0
"""How much longer than a projection took the next one waits, at most `PROJECT_SECONDS`."""
MERGE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `partitions` is how many are held; with none it did nothing.

    `behind` says that a stream had more than one step reads.
    """

    partitions: int = 0
    events: int = 0
    decisions: int = 0
    outcomes: int = 0
    archived: int = 0
    projected: int = 0
    behind: bool = False


class StreamConsumer:
    """One of the readers of a catalogue's streams. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Gets the Parquet days under `events/` and `decisions/`.
        settings: History length, and when an event is late.
        rewards: Gets the rewards.
        effects: Gets the live events.
        lease_seconds: After which others take over from a consumer that stands still.
        writer: Writes Parquet while steps go on; where it is None, each step waits for it.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        home: Home,
        settings: Settings,
        rewards: Rewards,
        effects: Effects,
        lease_seconds: float = LEASE_SECONDS,
        writer: Executor | None = None,
    ) -> None:
        self._client, self._keys, self._state = client, keys, settings.state
        self._rewards, self._effects = rewards, effects
        self._applier = Applier(client, keys, settings.state, rewards, effects)
        self._leases = PartitionLeases(client, keys, lease_seconds)
        self._positions = Positions(client, keys)
        self._archiver = Archiver(client, keys, home, rewards.decision_table)
        self._writer = writer or AtOnce()
        self._writing: Future[Written] | None = None
        self._apart = Apart(in_parts=isinstance(client, Cluster))
        self._sums_are_old = False
        self._archive_at = self._project_at = self._merge_at = 0.0

    def step(self) -> Step:
        """Applies what is new, a bounded amount; archives and projects where it is time.

        Raises:
            StateError: Redis/Valkey cannot be reached, or another process took a lease meanwhile. Calling
                again is right in both cases.
            DataError: Parquet could not be written, and nothing is trimmed then; or the catalogue's items cannot be read.
        """
        fences = self._leases.hold()
        with no_search_for_cycles():
            return self._step(fences)

    def drain(self, timeout_seconds: float = 30.0, poll_seconds: float = 0.02) -> bool:
        """Steps until all is applied, archived and projected and no window is open; False when time ran out first."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            self._archive_at = self._project_at = self._merge_at = 0.0
            step = self.step()
            is_idle = step.partitions and not step.projected and not self._apart.is_waiting
            if is_idle and is_drained(self._client, self._keys):
                return True
            if not (step.behind or step.projected):
                time.sleep(poll_seconds)
        return False

    def close(self) -> None:
        """Ends the writing under way and gives up the leases.

        Raises:
            StateError: Redis/Valkey cannot be reached.
            DataError: Parquet cannot be written; the leases are given up all the same.
        """
        try:
            self._trim()
        finally:
            self._release()

    def _release(self) -> None:
        self._positions.forget()
        self._leases.release()
        self._effects.close()
        for gauge in (telemetry.CONSUMER_PARTITIONS, telemetry.CONSUMER_LAG, telemetry.CONSUMER_AGE):
            gauge.labels(self._keys.catalogue).set(0)

    def _step(self, fences: Mapping[int, int]) -> Step:
        try:
            # Who held them before may have died in between.
            self._sums_are_old |= self._positions.follow(fences)
            if self._sums_are_old:
                self._sums_are_old = not self._apart.attempt(self._sum_up, otherwise=False)
            telemetry.CONSUMER_PARTITIONS.labels(self._keys.catalogue).set(len(fences))
            return self._work() if fences else Step()
        except StateError:
            self._leases.doubt()
            self._positions.forget()
            self._apart.begin()
            raise

    def _sum_up(self) -> bool:
        self._rewards.roll_up(None)
        return True

    def _work(self) -> Step:
        batches, outcomes = self._advance()
        archived = projected = 0
        behind = any(batch.behind for batch in batches.values())
        if time.monotonic() >= self._merge_at:
            self._apart.attempt(self._merge, otherwise=None)
            self._merge_at = time.monotonic() + MERGE_SECONDS
        if time.monotonic() >= self._project_at:
            began = time.monotonic()
            projected = self._apart.attempt(self._effects.project, otherwise=0)
            ended = time.monotonic()
            # Where there is more to do, a share of the time goes to it, and the rest to events.
            more = projected and not behind
            self._project_at = ended + min(
                PROJECT_SECONDS, PROJECT_REST * (ended - began) if more else math.inf
            )
        if self._writing is None and time.monotonic() >= self._archive_at:
            self._archive_at = time.monotonic() + ARCHIVE_SECONDS  # on a full disk as well: the rest goes on
            self._writing = self._writer.submit(self._archiver.write, dict(self._positions.progress))
        if self._writing is not None and self._writing.done():
            archived = self._apart.attempt(self._trim, otherwise=0)
        return Step(
            len(batches),
            sum(len(batch.events) for batch in batches.values()),
            sum(len(batch.decisions) for batch in batches.values()),
            outcomes,
            archived,
            projected,
            behind,
        )

    def _advance(self) -> tuple[dict[int, Batch], int]:
        """Reads and applies what is new in all partitions, or in those that can be; gives it, and the final outcomes."""
        batches: dict[int, Batch] = {}
        outcomes, failed = 0, None
        for group in self._apart.groups(self._positions.progress):
            try:
                found, finals = self._advance_group(group)
                batches |= found
                outcomes += finals
            except StateError as error:
                if not self._apart.is_on:
                    raise
                self._leases.doubt()
                self._positions.doubt(group)
                self._apart.rest(group)
                telemetry.SET_BACK.labels(self._keys.catalogue).inc()
                failed = error
        if failed is not None and not batches:
            raise failed
        self._report_lag(batches)
        return batches, outcomes

    def _advance_group(self, partitions: Sequence[int]) -> tuple[dict[int, Batch], int]:
        at = {p: self._positions.progress[p] for p in partitions}
        batches = read_batches(self._client, self._keys, at, self._rewards.decision_table)
        return batches, self._apply({p: batch for p, batch in batches.items() if not batch.is_empty})

    def _trim(self) -> int:
        """Once the writing under way is over, takes what is on disk out of the streams; gives the number of entries."""
        if self._writing is None:
            return 0
        writing, self._writing = self._writing, None
        return self._archiver.commit(self._positions, writing.result())

    def _merge(self) -> None:
        """Moves on what joins other users, and forgets those who opted out; in commits, so that no record is torn."""
        progress = self._positions.progress
        commands = self._effects.join(progress, self._state.history_length)
        self._positions.commit(commands, {p: progress[p] for p in commands})
        self._effects.forward(progress)

    def _apply(self, batches: Mapping[int, Batch]) -> int:
        """Commits what batches change; gives the number of final outcomes."""
        if not batches:
            return 0
        batches = without_erased(self._client, self._keys, batches)
        changes = self._applier.changes(batches)
        self._positions.commit(
            {p: change.commands for p, change in changes.items()},
            {p: batch.progress for p, batch in batches.items()},
        )
        return self._applier.count(batches.values(), list(changes.values()))

    def _report_lag(self, batches: Mapping[int, Batch]) -> None:
        """Entries that this step leaves unread; counts those that only await archiving too, where it lags."""
        behind = [p for p, batch in batches.items() if batch.behind]
        lag = 0
        if behind:
            with state_errors("measure the lag"):
                lag = sum(self._client.xlen(self._keys.events(p)) for p in behind)  # type: ignore[misc]
        telemetry.CONSUMER_LAG.labels(self._keys.catalogue).set(lag)
        waited_ms = max((batch.waited_ms for batch in batches.values()), default=0)
        telemetry.CONSUMER_AGE.labels(self._keys.catalogue).set(waited_ms / 1000)


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """A step makes some hundred thousand objects and no cycles: the garbage collector's search takes a third of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
