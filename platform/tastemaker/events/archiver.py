"""Moves what is applied from the streams to the Parquet days: written first, then trimmed from the stream."""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import redis

from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry, entries, queue_range
from tastemaker.events.progress import Positions, Progress
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command

_MOST = 4_000
"""Entries of one stream at a time: more would outlast the consumer's leases."""


class Archiver:
    """Archives what `positions` holds and has applied.

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

    def archive(self, positions: Positions) -> int:
        """Gives the number of entries that were written, of a bounded amount.

        Raises:
            StateError: As `Positions.commit`.
            DataError: Parquet cannot be written; nothing is trimmed then.
        """
        written = self._read(positions.progress)
        events = [entry for found, _ in written.values() for entry in found]
        decisions = [entry for _, found in written.values() for entry in found]
        if events:
            write_days(self._event_days, event_table(events))
        if decisions:
            write_days(self._decision_days, self._decision_table(decisions))
        self._commit(positions, written)
        return len(events) + len(decisions)

    def _read(self, progress: Mapping[int, Progress]) -> dict[int, tuple[list[Entry], list[Entry]]]:
        partitions = [p for p, at in progress.items() if not at.is_archived]
        with state_errors("read the streams"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in partitions:
                at = progress[p]
                queue_range(pipe, self._keys.events(p), at.archived_events, at.events, _MOST)
                queue_range(pipe, self._keys.decisions(p), at.archived_decisions, at.decisions, _MOST)
            replies = [entries(reply) for reply in pipe.execute()]
        return dict(zip(partitions, zip(replies[0::2], replies[1::2], strict=True), strict=True))

    def _commit(self, positions: Positions, written: Mapping[int, tuple[list[Entry], list[Entry]]]) -> None:
        commands: dict[int, list[Command]] = {}
        after: dict[int, Progress] = {}
        for p, (events, decisions) in written.items():
            at = positions.progress[p]
            after[p] = at._replace(
                archived_events=_reached(events, at.events),
                archived_decisions=_reached(decisions, at.decisions),
            )
            commands[p] = [
                _trim(self._keys.events(p), after[p].archived_events),
                _trim(self._keys.decisions(p), after[p].archived_decisions),
            ]
        positions.commit(commands, after)


def _reached(found: list[Entry], applied: str) -> str:
    """Up to where a range was read: the whole of it, whose last entries may have left the stream as poison."""
    return found[-1].id if len(found) == _MOST else applied


def _trim(stream: str, archived: str) -> Command:
    milliseconds, _, sequence = archived.partition("-")
    return "XTRIM", stream, "MINID", f"{milliseconds}-{int(sequence) + 1}"
