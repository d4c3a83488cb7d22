"""Every online feature made anew from the log's long memory, so that state is what the consumer would have made of it.

For a change of the records' layout, for state that was lost or damaged, and for events that were erased. The consumer
stands still meanwhile; gateways go on. Its offsets stay where they are: events that it has applied and not yet archived
are read from the streams, those that it has not applied it applies afterwards. So no reward is joined twice.

Each user and each item is replaced in one script, under the fences of the held partitions. A rebuild that is cut off
leaves some of them as they were, which is sound state too, and is run again.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import redis

from tastemaker.config import StateSettings
from tastemaker.data.imported_events import num_imported_rows
from tastemaker.data.item_archive import ItemArchive, restore_items
from tastemaker.errors import DataError, StateError
from tastemaker.events.archive import EVENT_SCHEMA, parts_of, read_batches
from tastemaker.events.consumer import no_search_for_cycles
from tastemaker.events.manifest import undisturbed
from tastemaker.events.progress import Progress
from tastemaker.events.standstill import Standstill
from tastemaker.features.buckets import Buckets
from tastemaker.features.categories import Categories
from tastemaker.features.replay import CountersReplay, UserReplay, replay_users, touching
from tastemaker.features.replay_owners import restored_owners, settle
from tastemaker.features.replay_sources import imported_first, known_users, unarchived, without_erased
from tastemaker.features.totals import ItemTotals, empty_rankings
from tastemaker.features.user_state import Category
from tastemaker.home import Home
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.state.lease import Command, queue_commit
from tastemaker.terminal import progress

_USERS_A_COMMIT: Final = 500
_ITEMS_A_COMMIT: Final = 2_000
_COMPACTION_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did: imported and live events replayed, users and counters of items that there are now, and that went.

    An item has counters in each partition that knows it.
    """

    events: int = 0
    users: int = 0
    item_counters: int = 0
    dropped_users: int = 0
    dropped_counters: int = 0
    seconds: float = 0.0


def rebuild(client: redis.Redis, keys: Keys, home: Home, settings: StateSettings) -> Rebuilt:
    """Replaces users' records and histories, items' counters, totals and rankings by those of the log.

    Merged users are one, and what their users opted out of counts for items alone. Aliases and profiles come back where the
    server has lost them. The log is the imported events, as if they had come in time and before all others, and the live ones that were not late. The log lies on
    disk meanwhile, sorted by user, under the home's `run`; about half a million events are held at a time.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        home: Holds the catalogue's days and imported tables.
        settings: History length, and when an event is late.

    Raises:
        UsageError: A stream consumer runs, or a compaction for longer than ten minutes. Nothing was changed.
        DataError: The days cannot be read, or there is no room for the sorted log. Nothing was changed.
        StateError: Redis/Valkey cannot be reached, or a consumer took a partition over. It may be run again.
    """
    with Standstill(client, keys) as still, no_search_for_cycles():
        return _Rebuild(client, keys, home, settings, still).run()


class _Rebuild:
    def __init__(
        self, client: redis.Redis, keys: Keys, home: Home, settings: StateSettings, still: Standstill
    ) -> None:
        self._client, self._keys, self._home, self._settings = client, keys, home, settings
        self._still = still
        self._category = Categories(home, client, keys)
        self._progress = self._offsets()

    def run(self) -> Rebuilt:
        started = time.monotonic()
        restore_items(self._client, self._keys, ItemArchive(self._home, self._keys.catalogue).read())
        self._category.refresh()
        settle(self._client, self._keys, self._settings.history_length, self._commit)
        self._owners = restored_owners(self._client, self._keys, self._home)
        done = Rebuilt()
        with self._sorted_log() as (buckets, num_rows), progress("replay the log", num_rows) as advance:
            for partition in range(self._keys.partitions):
                done = self._partition(partition, buckets, advance, done)
        trend_window = self._settings.trend_window
        remake_totals(self._client, self._keys, self._category, self._still.hold, trend_window)
        return _plus(done, seconds=time.monotonic() - started)

    def _offsets(self) -> dict[int, str]:
        with state_errors("read the consumer's offsets"):
            pipe: Any = self._client.pipeline(transaction=False)
            for p in range(self._keys.partitions):
                pipe.hget(self._keys.offsets(p), "progress")
            return {p: text or "" for p, text in enumerate(pipe.execute())}

    @contextmanager
    def _sorted_log(self) -> Iterator[tuple[Buckets, int]]:
        """The log in buckets, and about how many rows it has."""
        folder = self._home / "run" / f"rebuild-{self._keys.catalogue}"
        shutil.rmtree(folder, ignore_errors=True)  # left by one that was killed: all leases are ours
        try:
            yield self._sort(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sort(self, folder: Path) -> tuple[Buckets, int]:
        days = self._home / "events" / self._keys.catalogue
        days.mkdir(parents=True, exist_ok=True)
        try:
            with undisturbed(days, _COMPACTION_SECONDS):
                parts = parts_of(days)
                num_rows = num_imported_rows(self._home, self._keys.catalogue)
                num_rows += sum(pq.read_metadata(part).num_rows for part in parts)
                buckets = Buckets(folder, self._keys.partitions, num_rows)
                with buckets, progress("sort the log by user", num_rows) as advance:
                    for table in self._rows(parts, advance):
                        buckets.add(table)
                        self._still.hold()
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"cannot sort the log in {folder}: {error}", mend="make room, or mend the days"
            ) from error
        return buckets, num_rows

    def _rows(self, parts: Sequence[Path], advance: Callable[[int], None]) -> Iterator[pa.Table]:
        yield from known_users(self._client, self._keys)
        for table in imported_first(self._home, self._keys.catalogue):
            yield self._owners.of(table)
            advance(len(table))
        wanted = touching(self._settings.late_days)
        for part in parts:
            for table in read_batches(part, EVENT_SCHEMA):
                yield self._owners.of(table.filter(wanted))
                advance(len(table))
        for partition, text in self._progress.items():
            at = Progress.decode(text)
            for table in unarchived(self._client, self._keys.events(partition), at):
                yield self._owners.of(table.filter(wanted))

    def _partition(
        self, partition: int, buckets: Buckets, advance: Callable[[int], None], done: Rebuilt
    ) -> Rebuilt:
        items, local = CountersReplay.of_items(), CountersReplay.by_country()
        with state_errors("read the erasures"):
            erased: Any = self._client.hgetall(self._keys.erased(partition))
        for whole in buckets.of(partition):
            table = without_erased(whole, erased)
            for users in replay_users(
                table, (items, local), self._category, self._settings.history_length, _USERS_A_COMMIT
            ):
                commands = [command for user in users for command in self._user_commands(user)]
                self._commit(partition, [*commands, self._marked(partition, users)])
                with_state = sum(user.is_known for user in users)
                num_events = sum(user.num_events for user in users)
                advance(num_events)
                done = _plus(done, events=num_events, users=with_state, dropped_users=len(users) - with_state)
        keys = self._keys
        gone = self._replace(partition, keys.item_counters(partition), keys.changed_items(partition), items)
        self._replace(partition, keys.local_counters(partition), keys.changed_local(partition), local)
        return _plus(done, item_counters=len(items.place), dropped_counters=gone)

    def _user_commands(self, user: UserReplay) -> list[Command]:
        record, history = self._keys.user(user.user_id), self._keys.history(user.user_id)
        commands: list[Command] = [("SET", record, user.record) if user.record else ("DEL", record)]
        commands.append(("DEL", history))
        if user.history:
            commands.append(("RPUSH", history, *user.history))
        return commands

    def _marked(self, partition: int, users: Sequence[UserReplay]) -> Command:
        return ("SADD", self._keys.changed_users(partition), *(user.user_id for user in users))

    def _replace(self, partition: int, records: str, marks: str, replayed: CountersReplay) -> int:
        """Puts the replayed counters in place of those that are there; gives how many went."""
        for found in replayed.encoded(_ITEMS_A_COMMIT):
            fields = [word for pair in found.items() for word in pair]
            self._commit(partition, [("HSET", records, *fields), ("SADD", marks, *found)])
        with state_errors("read items"):
            known: Any = self._client.hkeys(records)
        gone = [name for name in known if name not in replayed.place]
        for start in range(0, len(gone), _ITEMS_A_COMMIT):
            some = gone[start : start + _ITEMS_A_COMMIT]
            self._commit(partition, [("HDEL", records, *some), ("SADD", marks, *some)])
        return len(gone)

    def _commit(self, partition: int, commands: Sequence[Command]) -> None:
        self._still.hold()
        with state_errors("replace state"):
            pipe: Any = self._client.pipeline(transaction=False)
            at, fence = self._progress[partition], self._still.fences[partition]
            queue_commit(pipe, self._keys.offsets(partition), fence, commands, before=at, after=at)
            committed = all(pipe.execute())
        if not committed:
            raise StateError("a stream consumer has taken a partition", mend="stop it and run this again")


def remake_totals(
    client: redis.Redis, keys: Keys, category: Category, hold: Callable[[], None], trend_window: str
) -> None:
    """Makes all items' totals and rankings anew; until that is done, rankings lack items."""
    empty_rankings(client, keys)
    totals = ItemTotals(client, keys, category, trend_window)
    with progress("make item totals") as advance:
        while made := totals.project():
            advance(made)
            hold()
    totals.close()


def _plus(done: Rebuilt, **more: float) -> Rebuilt:
    values = {name: getattr(done, name) + more.get(name, 0) for name in Rebuilt.__slots__}
    return Rebuilt(**values)
