"""What one step of the consumer reads: new entries, and the open decisions that they concern."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import redis
from pydantic import ValidationError

from tastemaker.errors import StateError
from tastemaker.events.attribution import Logged, Open, decode_open, requests_of
from tastemaker.events.log import Entry, entries
from tastemaker.events.schema import Event
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys

BATCH = 1000
"""Most entries that are read from one stream in one step."""
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
        return self[:2] == self[2:]


class Batch(NamedTuple):
    """New entries of one partition, decoded, where that leads to, and requests whose window has closed."""

    events: list[Logged]
    decisions: list[Logged]
    due: list[str]
    progress: Progress
    behind: bool


def read_batches(client: redis.Redis, keys: Keys, progress: Sequence[Progress]) -> list[Batch]:
    """What is new in each partition.

    Raises:
        StateError: Redis/Valkey cannot be reached, or an entry cannot be decoded.
    """
    with state_errors("read the streams"):
        clock: Any = client.time()
        now_ms = clock[0] * 1000 + clock[1] // 1000
        pipe: Any = client.pipeline(transaction=False)
        for partition, at in enumerate(progress):
            # Events before decisions: a decision logged before an event that we read is then read too.
            pipe.xrange(keys.events(partition), min=f"({at.events}", count=BATCH)
            pipe.xrange(keys.decisions(partition), min=f"({at.decisions}", count=BATCH)
            pipe.zrange(keys.closing(partition), "-inf", f"({now_ms}", byscore=True, offset=0, num=BATCH)
        replies = pipe.execute()
    return [
        _batch(entries(replies[3 * p]), entries(replies[3 * p + 1]), replies[3 * p + 2], at)
        for p, at in enumerate(progress)
    ]


def read_pending(client: redis.Redis, keys: Keys, batches: Mapping[int, Batch]) -> dict[int, dict[str, Open]]:
    """By partition, the open decisions that a batch may reward, close or open again."""
    wanted = {
        p: list(dict.fromkeys([*requests_of(b.decisions, b.events), *b.due])) for p, b in batches.items()
    }
    wanted = {p: request_ids for p, request_ids in wanted.items() if request_ids}
    with state_errors("read open decisions"):
        pipe: Any = client.pipeline(transaction=False)
        for partition, request_ids in wanted.items():
            pipe.hmget(keys.pending(partition), request_ids)
        replies = pipe.execute()
    pending: dict[int, dict[str, Open]] = {p: {} for p in batches}
    for (partition, request_ids), reply in zip(wanted.items(), replies, strict=True):
        found = zip(request_ids, reply, strict=True)
        pending[partition] = {request_id: decode_open(text) for request_id, text in found if text is not None}
    return pending


def _batch(events: list[Entry], decisions: list[Entry], due: list[str], at: Progress) -> Batch:
    behind = len(events) == BATCH or len(decisions) == BATCH
    after = at._replace(
        events=events[-1].id if events else at.events,
        decisions=decisions[-1].id if decisions else at.decisions,
    )
    return Batch(
        [Logged(entry.received_ms, _event(entry)) for entry in events],
        [Logged(entry.received_ms, json.loads(entry.json)) for entry in decisions],
        []
        if behind
        else due,  # a window closes only when all events in it, and their decisions, have been read
        after,
        behind,
    )


def _event(entry: Entry) -> Event:
    try:
        return Event.model_validate_json(entry.json)
    except ValidationError as error:
        raise StateError(
            f"entry {entry.id} of the event log is no event of this release",
            mend="upgrade the stream consumer",
        ) from error
