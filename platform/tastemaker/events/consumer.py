"""Applies the event log: users' histories, rewards, Parquet days. One process per catalogue, under a lease.

Effects on state are exactly once: per partition, what a step writes and the offset that it read to are one
fenced script. Parquet is at least once, see `archive`. Two offsets per stream: applied (every step) and
archived (every `ARCHIVE_SECONDS`); a stream is trimmed up to the archived one.

Events are applied in the order in which the log received them; one that comes late does not re-sort a
history.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import redis

from tastemaker import telemetry
from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.events.archive import event_table, write_days
from tastemaker.events.attribution import Logged, Open, Outcome, attribute
from tastemaker.events.batch import Batch, Progress, read_batches, read_pending
from tastemaker.events.history import NOT_HISTORY, push_commands
from tastemaker.events.log import Entry, entries
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command, Lease, queue_commit

ARCHIVE_SECONDS = 2.0
_ARCHIVE_BATCH = 10_000


class Rewards(Protocol):
    """Who wants the rewards: `experiments.posterior.RewardJoiner`."""

    def windows_ms(self) -> dict[tuple[str, str], int]:
        """Attribution window by (experiment, origin) of the experiments whose rewards count."""

    def commands(self, partition: int, outcomes: Sequence[Outcome]) -> list[Command]:
        """What final outcomes write to their partition."""

    def roll_up(self, experiments: Iterable[str] | None, fence: int) -> None:
        """Brings catalogue-wide totals up to date; of all experiments for None."""

    def count(self, outcomes: Iterable[Outcome]) -> None:
        """Counts outcomes in the metrics."""

    def decision_table(self, decisions: Sequence[Entry]) -> pa.Table:
        """Decisions as the table to archive."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did. `leased` is False when another process holds the lease; then it did nothing."""

    leased: bool = False
    events: int = 0
    decisions: int = 0
    outcomes: int = 0
    archived: int = 0


class StreamConsumer:
    """The one reader of a catalogue's streams. Not thread-safe.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Gets the Parquet days under `events/` and `decisions/`.
        settings: History length.
        rewards: Gets the rewards.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, home: Home, settings: Settings, rewards: Rewards
    ) -> None:
        self._client, self._keys, self._settings, self._rewards = client, keys, settings, rewards
        self._event_days = home / "events" / keys.catalogue
        self._decision_days = home / "decisions" / keys.catalogue
        self._lease = Lease(client, keys.lease, keys.fence)
        self._fence = 0
        self._progress: list[Progress] = []
        self._archive_at = 0.0

    def step(self) -> Step:
        """Applies what is new, a bounded amount, and archives where it is time.

        Raises:
            StateError: Redis/Valkey cannot be reached, or another process took the lease meanwhile. Calling
                again is right in both cases.
            DataError: Parquet cannot be written; nothing is trimmed then.
        """
        if not self._lease.hold():
            return Step()
        if self._lease.fence != self._fence:
            self._take_over()
        try:
            return self._step()
        except StateError:
            self._fence = 0  # read the offsets again: a commit may have gone through unseen
            raise

    def drain(self, timeout_seconds: float = 30.0, poll_seconds: float = 0.02) -> bool:
        """Steps until all is applied and archived and no window is open; False when time ran out first."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            self._archive_at = 0.0
            if self.step().leased and is_drained(self._client, self._keys):
                return True
            time.sleep(poll_seconds)
        return False

    def close(self) -> None:
        """Gives up the lease."""
        self._lease.release()
        self._fence = 0

    def _take_over(self) -> None:
        with state_errors("read the consumer's offsets"):
            pipe = self._client.pipeline(transaction=False)
            for partition in range(self._keys.partitions):
                pipe.hget(self._keys.offsets(partition), "progress")
            self._progress = [Progress.decode(reply) for reply in pipe.execute()]
        self._rewards.roll_up(None, self._lease.fence)
        self._fence = self._lease.fence

    def _step(self) -> Step:
        events, decisions, outcomes = self._apply()
        archived = 0
        if time.monotonic() >= self._archive_at:
            archived = self._archive()
            self._archive_at = time.monotonic() + ARCHIVE_SECONDS
        return Step(True, events, decisions, outcomes, archived)

    def _apply(self) -> tuple[int, int, int]:
        read = read_batches(self._client, self._keys, self._progress)
        self._report_lag(read)
        batches = {p: batch for p, batch in enumerate(read) if batch.events or batch.decisions or batch.due}
        if not batches:
            return 0, 0, 0
        windows_ms = self._rewards.windows_ms()  # after reading: a decision's experiment is there before it
        pending = read_pending(self._client, self._keys, batches)
        commands: dict[int, list[Command]] = {}
        outcomes: list[Outcome] = []
        for p, batch in batches.items():
            commands[p], final = self._commands(p, batch, pending[p], windows_ms)
            outcomes += final
        self._commit(commands, {p: batch.progress for p, batch in batches.items()})
        if outcomes:
            self._rewards.roll_up({outcome.experiment for outcome in outcomes}, self._fence)
        self._rewards.count(outcomes)
        kinds = Counter(event.kind for batch in batches.values() for _, event in batch.events)
        for kind, count in kinds.items():
            telemetry.CONSUMED.labels(self._keys.catalogue, kind).inc(count)
        num_events = sum(len(batch.events) for batch in batches.values())
        num_decisions = sum(len(batch.decisions) for batch in batches.values())
        return num_events, num_decisions, len(outcomes)

    def _commands(
        self,
        partition: int,
        batch: Batch,
        pending: Mapping[str, Open],
        windows_ms: Mapping[tuple[str, str], int],
    ) -> tuple[list[Command], list[Outcome]]:
        attributed = attribute(batch.decisions, batch.events, pending, batch.due, windows_ms)
        commands = attributed.commands(self._keys, partition)
        commands += self._rewards.commands(partition, attributed.outcomes)
        length = self._settings.state.history_length
        for user_id, items in _taken_items(batch.events).items():
            commands += push_commands(self._keys, user_id, items[-length:], length)
        return commands, attributed.outcomes

    def _commit(self, commands: Mapping[int, list[Command]], after: Mapping[int, Progress]) -> None:
        with state_errors("commit"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p, progress in after.items():
                guard, before = self._keys.offsets(p), self._progress[p].encode()
                queue_commit(pipe, guard, self._fence, commands[p], before=before, after=progress.encode())
            replies = pipe.execute()
        if not all(replies):
            raise StateError("another process has taken the stream consumer's lease", mend="let it work")
        for p, progress in after.items():
            self._progress[p] = progress

    def _archive(self) -> int:
        partitions = [p for p, progress in enumerate(self._progress) if not progress.is_archived]
        if not partitions:
            return 0
        with state_errors("read the streams"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in partitions:
                at = self._progress[p]
                _queue_range(pipe, self._keys.events(p), at.archived_events, at.events)
                _queue_range(pipe, self._keys.decisions(p), at.archived_decisions, at.decisions)
            replies = [entries(reply) for reply in pipe.execute()]
        events, decisions = replies[0::2], replies[1::2]
        if any(events):
            write_days(self._event_days, event_table(_flat(events)))
        if any(decisions):
            write_days(self._decision_days, self._rewards.decision_table(_flat(decisions)))
        self._commit_archived(dict(zip(partitions, zip(events, decisions, strict=True), strict=True)))
        return sum(map(len, replies))

    def _commit_archived(self, written: Mapping[int, tuple[list[Entry], list[Entry]]]) -> None:
        commands: dict[int, list[Command]] = {}
        after: dict[int, Progress] = {}
        for p, (events, decisions) in written.items():
            at = self._progress[p]
            after[p] = at._replace(
                archived_events=events[-1].id if events else at.archived_events,
                archived_decisions=decisions[-1].id if decisions else at.archived_decisions,
            )
            commands[p] = [
                _trim(self._keys.events(p), after[p].archived_events),
                _trim(self._keys.decisions(p), after[p].archived_decisions),
            ]
        self._commit(commands, after)

    def _report_lag(self, batches: Sequence[Batch]) -> None:
        """Entries that this step leaves unread; counts those that only await archiving too, where it lags."""
        behind = [p for p, batch in enumerate(batches) if batch.behind]
        lag = 0
        if behind:
            with state_errors("measure the lag"):
                lag = sum(self._client.xlen(self._keys.events(p)) for p in behind)  # type: ignore[misc]
        telemetry.CONSUMER_LAG.labels(self._keys.catalogue).set(lag)


def is_drained(client: redis.Redis, keys: Keys) -> bool:
    """Whether every event and decision is applied and archived, and no attribution window is open.

    Any process may ask, such as one that waits for an experiment's last rewards.
    """
    with state_errors("look at the streams"):
        pipe: Any = client.pipeline(transaction=False)
        for p in range(keys.partitions):
            pipe.xlen(keys.events(p))
            pipe.xlen(keys.decisions(p))
            pipe.zcard(keys.closing(p))
        return not any(pipe.execute())


def await_drained(client: redis.Redis, keys: Keys, timeout_seconds: float, poll_seconds: float = 0.1) -> bool:
    """Waits while another process's consumer works; False when time ran out first."""
    deadline = time.monotonic() + timeout_seconds
    while not is_drained(client, keys):
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_seconds)
    return True


def _taken_items(events: Iterable[Logged]) -> dict[str, list[str]]:
    """Each live user's newly taken items, oldest first."""
    taken: dict[str, list[str]] = {}
    for _, event in events:
        if event.origin == "live" and event.kind not in NOT_HISTORY:
            taken.setdefault(event.user_id, []).append(event.item_id)
    return taken


def _flat(parts: Iterable[list[Entry]]) -> list[Entry]:
    return [entry for part in parts for entry in part]


def _queue_range(pipe: Any, stream: str, after: str, until: str) -> None:
    pipe.xrange(stream, min=f"({after}", max=until, count=_ARCHIVE_BATCH)


def _trim(stream: str, archived: str) -> Command:
    milliseconds, _, sequence = archived.partition("-")
    return "XTRIM", stream, "MINID", f"{milliseconds}-{int(sequence) + 1}"
