"""Moves what is applied from the streams to the Parquet days: written first, then trimmed from the stream."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

import pyarrow as pa
import redis

from tastemaker.errors import TastemakerError
from tastemaker.events.archive import erase_user, event_table, write_days
from tastemaker.events.forgetting import erased_meanwhile
from tastemaker.events.log import Entry, entries, queue_range
from tastemaker.events.progress import Positions, Progress
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

P = ParamSpec("P")
T = TypeVar("T")
_MOST = 4_000
"""Entries of one stream at a time: more would outlast the consumer's leases."""


class Written(NamedTuple):
    """What is on disk: per partition where it began, and up to which ids of both streams it reaches."""

    since: Mapping[int, Progress]
    reached: Mapping[int, tuple[str, str]]
    entries: int


class _Part(NamedTuple):
    """Entries of one partition's two streams, in their order."""

    events: list[Entry]
    decisions: list[Entry]

    def reached(self, at: Progress) -> tuple[str, str]:
        """Up to which ids both are read, where `at` is what was asked for."""
        return _reached(self.events, at.events), _reached(self.decisions, at.decisions)


class AtOnce(Executor):
    """Does what is submitted before it returns: for consumers of one thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """What it gives is done, or has failed."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except TastemakerError as error:
            future.set_exception(error)
        return future


class Archiver:
    """Archives what is applied, in two halves: `write`, which may run in another thread, and then `commit`.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Gets the Parquet days under `events/` and `decisions/`.
        decision_table: Makes the rows of decisions.
    """

    def __init__(
        self, client: redis.Redis, keys: Keys, home: Home, decision_table: Callable[[list[Entry]], pa.Table]
    ) -> None:
        self._client, self._keys, self._decision_table = client, keys, decision_table
        self._event_days = home / "events" / keys.catalogue
        self._decision_days = home / "decisions" / keys.catalogue

    def write(self, progress: Mapping[int, Progress]) -> Written:
        """Writes a bounded amount of what is applied and not archived; may run beside the consumer's steps.

        Raises:
            StateError: Redis/Valkey cannot be reached.
            DataError: Parquet cannot be written.
        """
        parts = self._read(progress)
        events = [entry for part in parts.values() for entry in part.events]
        decisions = [entry for part in parts.values() for entry in part.decisions]
        if events:
            self._write(self._event_days, event_table(events), "event_id")
        if decisions:
            self._write(self._decision_days, self._decision_table(decisions), "decision_id")
        reached = {p: part.reached(progress[p]) for p, part in parts.items()}
        return Written({p: progress[p] for p in parts}, reached, len(events) + len(decisions))

    def _write(self, folder: Path, rows: pa.Table, id_column: str) -> None:
        write_days(folder, rows)
        for user_id in erased_meanwhile(self._client, self._keys, rows):
            erase_user(folder, user_id, id_column)

    def commit(self, positions: Positions, written: Written) -> int:
        """Trims the streams of what is on disk; gives the number of entries that were written.

        A partition that is not held any more, or that another consumer has archived meanwhile, is left as it is: who
        holds it archives the same again, which readers drop.

        Raises:
            StateError: As `Positions.commit`.
        """
        commands: dict[int, list[Command]] = {}
        after: dict[int, Progress] = {}
        for p, reached in written.reached.items():
            at = positions.progress.get(p)
            if at is not None and at.archived == written.since[p].archived:
                after[p] = at._replace(archived_events=reached[0], archived_decisions=reached[1])
                commands[p] = [
                    _trim(self._keys.events(p), reached[0]),
                    _trim(self._keys.decisions(p), reached[1]),
                ]
        positions.commit(commands, after)
        return written.entries

    def _read(self, progress: Mapping[int, Progress]) -> dict[int, _Part]:
        partitions = [p for p, at in progress.items() if not at.is_archived]
        with state_errors("read the streams"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in partitions:
                at = progress[p]
                queue_range(pipe, self._keys.events(p), at.archived_events, at.events, _MOST)
                queue_range(pipe, self._keys.decisions(p), at.archived_decisions, at.decisions, _MOST)
            replies = [entries(reply) for reply in pipe.execute()]
        return {
            p: _Part(*found)
            for p, found in zip(partitions, zip(replies[0::2], replies[1::2], strict=True), strict=True)
        }


def _reached(found: list[Entry], applied: str) -> str:
    """Up to where a range was read: the whole of it, whose last entries may have left the stream as poison."""
    return found[-1].id if len(found) == _MOST else applied


def _trim(stream: str, archived: str) -> Command:
    milliseconds, _, sequence = archived.partition("-")
    return "XTRIM", stream, "MINID", f"{milliseconds}-{int(sequence) + 1}"
