"""What one step of the consumer reads: new entries, decoded, and the open decisions that they concern.

An entry that cannot be decoded is poison: it becomes a dead letter with its reason and leaves the stream, and the
entries around it are applied.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import redis
from pydantic import ValidationError

from tastemaker.events.attribution import Logged, Rules, requests_of
from tastemaker.events.log import Entry, entries, queue_range
from tastemaker.events.open_decisions import Open, assignments_fit, decode_open
from tastemaker.events.progress import Progress
from tastemaker.events.schema import Event, broken_rule
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys, partition_of
from tastemaker.state.lease import Command

BATCH = 1000
"""Most entries that are read from one stream in one step."""
CLOCKS_APART_MS = 3_600_000
"""How far an event's time may lie ahead of the log's clock: the gateway has held it against its own."""
MOST_DEAD_LETTERS = 10_000
_MOST_KEPT_OF_RECORD = 65_536
_DAY_MS = 86_400_000
_UNFIT = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
_parse = Event.__pydantic_validator__.validate_json
MakeTable = Callable[[Sequence[Entry]], object]
"""Makes a table of entries, and fails where one of them cannot stand in it."""


class Refused(NamedTuple):
    """An entry that cannot be applied, of the stream `events` or `decisions`, and why."""

    stream: str
    entry: Entry
    reason: str

    def letter(self, keys: Keys, partition: int) -> Command:
        """Its dead letter; the newest `MOST_DEAD_LETTERS` of a partition are kept."""
        return (
            "XADD", keys.dead_letters(partition), "MAXLEN", "~", str(MOST_DEAD_LETTERS), "*", "stream", self.stream,
            "id", self.entry.id, "reason", self.reason, "record", self.entry.json[:_MOST_KEPT_OF_RECORD],
        )  # fmt: skip

    def removal(self, keys: Keys, partition: int) -> Command:
        """Takes it out of its stream, so that the archive does not meet it."""
        stream = keys.events(partition) if self.stream == "events" else keys.decisions(partition)
        return "XDEL", stream, self.entry.id


class Batch(NamedTuple):
    """New entries of one partition, decoded, where that leads to, and requests whose window has closed.

    `entries` are those of `events`. `waited_ms` is the age of the oldest. `forgotten` leave the stream and nothing else,
    see `forgetting`.
    """

    events: list[Logged]
    entries: list[Entry]
    decisions: list[Logged]
    due: list[str]
    poison: list[Refused]
    progress: Progress
    behind: bool
    waited_ms: int
    forgotten: Sequence[Refused] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to apply."""
        return not (self.events or self.decisions or self.due or self.poison or self.forgotten)


def read_batches(
    client: redis.Redis, keys: Keys, progress: Mapping[int, Progress], decision_table: MakeTable
) -> dict[int, Batch]:
    """What is new in each partition.

    Args:
        client: Of the role `state.url`.
        keys: Of the catalogue.
        progress: Of the partitions to read.
        decision_table: What decisions are archived by.

    Raises:
        StateError: Redis/Valkey cannot be reached.
    """
    with state_errors("read the streams"):
        clock: Any = client.time()
        now_ms = clock[0] * 1000 + clock[1] // 1000
        pipe: Any = client.pipeline(transaction=False)
        for partition, at in progress.items():
            # Events before decisions: a decision logged before an event that we read is then read too.
            queue_range(pipe, keys.events(partition), at.events, "+", BATCH)
            queue_range(pipe, keys.decisions(partition), at.decisions, "+", BATCH)
            pipe.zrange(keys.closing(partition), "-inf", f"({now_ms}", byscore=True, offset=0, num=BATCH)
        replies = pipe.execute()
    reads = zip(replies[0::3], replies[1::3], replies[2::3], strict=True)
    return {
        partition: _batch(
            entries(events), entries(decisions), due, at, now_ms, decision_table, (partition, keys.partitions)
        )
        for (partition, at), (events, decisions, due) in zip(progress.items(), reads, strict=True)
    }


def read_pending(
    client: redis.Redis,
    keys: Keys,
    batches: Mapping[int, Batch],
    events: Mapping[int, Sequence[Logged]],
    rules: Rules,
) -> dict[int, dict[str, tuple[Open, ...]]]:
    """By partition and request, the open decisions that a batch may reward, close or open again.

    `events` are those of the batches, with the requests that `last_touch` found.
    """
    wanted = {
        p: list(dict.fromkeys([*requests_of(b.decisions, events[p], rules), *b.due]))
        for p, b in batches.items()
    }
    wanted = {p: request_ids for p, request_ids in wanted.items() if request_ids}
    with state_errors("read open decisions"):
        pipe: Any = client.pipeline(transaction=False)
        for partition, request_ids in wanted.items():
            pipe.hmget(keys.pending(partition), request_ids)
        replies = pipe.execute()
    pending: dict[int, dict[str, tuple[Open, ...]]] = {p: {} for p in batches}
    for (partition, request_ids), reply in zip(wanted.items(), replies, strict=True):
        found = zip(request_ids, reply, strict=True)
        pending[partition] = {request_id: decode_open(text) for request_id, text in found if text is not None}
    return pending


def is_late(received_ms: int, timestamp_ms: int, late_days: int) -> bool:
    """Whether an event came too late to touch state; by the log's clock, so that a rebuild says the same.

    >>> [is_late(40 * 86_400_000, day * 86_400_000, late_days=30) for day in (9, 10)]
    [True, False]
    """
    return received_ms - timestamp_ms > late_days * _DAY_MS


def _batch(
    events: list[Entry],
    decisions: list[Entry],
    due: list[str],
    at: Progress,
    now_ms: int,
    decision_table: MakeTable,
    place: tuple[int, int],
) -> Batch:
    behind = len(events) == BATCH or len(decisions) == BATCH
    after = at._replace(
        events=events[-1].id if events else at.events,
        decisions=decisions[-1].id if decisions else at.decisions,
    )
    logged, sound, poison = _events(events, *place)
    decided, unsound = _decisions(decisions, decision_table)
    return Batch(
        logged,
        sound,
        decided,
        # A window closes only when all events in it, and their decisions, have been read.
        [] if behind else due,
        poison + unsound,
        after,
        behind,
        max((now_ms - entry.received_ms for entry in events[:1]), default=0),
    )


def _events(
    found: Sequence[Entry], partition: int, partitions: int
) -> tuple[list[Logged], list[Entry], list[Refused]]:
    logged: list[Logged] = []
    sound: list[Entry] = []
    poison: list[Refused] = []
    for entry in found:
        received_ms = entry.received_ms
        try:
            event = _parse(entry.json)
        except ValidationError as error:
            poison.append(Refused("events", entry, f"no event of this release: {_first(error)}"))
            continue
        reason = _ahead(event.timestamp_ms, received_ms) or broken_rule(event, event.timestamp_ms)
        own = partition_of(event.user_id, partitions)
        if own != partition:  # its user's keys lie elsewhere, under another consumer's lease
            reason = f"its user belongs to partition {own}"
        if reason:
            poison.append(Refused("events", entry, reason))
            continue
        logged.append(Logged(received_ms, event))
        sound.append(entry)
    return logged, sound, poison


def _decisions(found: Sequence[Entry], decision_table: MakeTable) -> tuple[list[Logged], list[Refused]]:
    reasons = _unfit(found, decision_table)
    logged: list[Logged] = []
    for entry in found:
        if entry.id not in reasons:
            decision = json.loads(entry.json)
            if reason := _broken(decision, entry.received_ms):
                reasons[entry.id] = reason
            else:
                logged.append(Logged(entry.received_ms, decision))
    return logged, [Refused("decisions", entry, reasons[entry.id]) for entry in found if entry.id in reasons]


def _broken(decision: Mapping[str, Any], received_ms: int) -> str | None:
    if decision.get("experiment") and not decision.get("variant"):
        return "variant is missing: a decision of an experiment needs one"
    if not assignments_fit(decision):
        return "assignments must name experiment and variant, and places from 0 as arm_context"
    if decision["timestamp_ms"] < 0:
        return f"timestamp_ms is {decision['timestamp_ms']}, must be at least 0"
    return _ahead(decision["timestamp_ms"], received_ms)


def _ahead(timestamp_ms: int, received_ms: int) -> str | None:
    if timestamp_ms <= received_ms + CLOCKS_APART_MS:
        return None
    ahead = (timestamp_ms - received_ms) / 1000
    return f"timestamp_ms lies {ahead:.0f} s ahead of the log's clock, at most {CLOCKS_APART_MS // 1000} s are allowed"


def _unfit(found: Sequence[Entry], decision_table: MakeTable) -> dict[str, str]:
    """Reasons by id of the entries that make the table fail; each is tried on its own only where all together fail."""
    if not found:
        return {}
    try:
        decision_table(found)
    except _UNFIT as error:
        if len(found) == 1:
            return {found[0].id: f"no decision of this release: {type(error).__name__}: {error}"}
        return {id_: why for entry in found for id_, why in _unfit([entry], decision_table).items()}
    return {}


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return " ".join([*map(str, first["loc"]), first["msg"]])
