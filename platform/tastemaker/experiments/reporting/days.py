"""Which rows of the Parquet days a report is about, as they are read file by file: the answers of an experiment, and events.

A record is brought to the columns of `ANSWERS` as soon as it is read, whichever layer's assignment of it counts.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.events.archive import EVENT_SCHEMA, read_batches
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment

_DAY_MS: Final = 86_400_000
_BATCH_ROWS: Final = 16_384
"""Records that are held at once: one is near a kilobyte before what is not needed is left out."""
_OF_ASSIGNMENT: Final = ("variant", "unit", "epoch", "propensities")
_DECISIONS: Final = pa.schema(
    [
        DECISION_SCHEMA.field(name)
        for name in (
            "decision_id", "request_id", "timestamp_ms", "received_ms", "origin", "unit", "user_id", "experiment", "variant",
            "epoch", "propensities", "item_ids", "rungs", "context", "timings_ms", "shadow_of", "assignments",
            "forced_variants", "slot_team",
        )
    ]
)  # fmt: skip
_EVENT_NAMES: Final = (
    "event_id", "user_id", "item_id", "kind", "timestamp_ms", "received_ms", "value", "request_id",
)  # fmt: skip
EVENTS: Final = pa.schema([EVENT_SCHEMA.field(name) for name in _EVENT_NAMES])
_OWN_COLUMNS: Final[list[Any]] = [
        *(DECISION_SCHEMA.field(name) for name in ("decision_id", "request_id", "timestamp_ms", "received_ms", "user_id")),
        *(DECISION_SCHEMA.field(name) for name in (*_OF_ASSIGNMENT, "item_ids", "slot_team")),
        *(pa.field(name, pa.string()) for name in ("device", "country")),
        pa.field("is_degraded", pa.bool_()), pa.field("total_ms", pa.float64()),
    ]  # fmt: skip
ANSWERS: Final = pa.schema(_OWN_COLUMNS)
"""Columns of answers: `unit`, `variant`, `epoch` and `propensities` are those of the assignment that counts."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions of the log count, and what of each.

    Args:
        name: What is wanted, for messages.
        origin: Of the traffic.
        since_ms: Decisions that the log received from then on.
        pick: Of a batch of decisions of that traffic and time those that count, with the columns of an assignment.
    """

    name: str
    origin: str
    since_ms: int
    pick: Callable[[pa.Table], pa.Table]


def of_experiment(experiment: Experiment) -> Wanted:
    """All of an experiment's decisions since its units were assigned as they are now, open ones too."""
    course, name = experiment.course, experiment.name
    return Wanted(
        f"experiment {name}", experiment.origin, course.reassigned_ms, lambda batch: _assigned(batch, name)
    )


def of_everyone(
    variant_of: Callable[[str], str], propensities: Mapping[str, float], origin: str, since_ms: int
) -> Wanted:
    """All decisions of an origin but testers', as if users were in one experiment; which decision was in which of the real ones does not matter.

    Args:
        variant_of: Of a user.
        propensities: How likely each variant is, by name, in order.
        origin: Of the traffic.
        since_ms: Decisions that the log received from then on.
    """
    shares = [*propensities.values()]

    def pick(batch: pa.Table) -> pa.Table:
        tested: Any = pc.fill_null(pc.list_value_length(batch["forced_variants"]), 0)
        mine: Any = batch.filter(pc.equal(tested, pa.scalar(0)))
        users: Any = pc.dictionary_encode(mine["user_id"].combine_chunks())
        variants: Any = pa.array([variant_of(user) for user in users.dictionary.to_pylist()], pa.string())
        instead: dict[str, Any] = {
            "variant": variants.take(users.indices),
            "unit": mine["user_id"],
            "epoch": pa.array(np.zeros(len(mine), np.int64)),
            "propensities": pa.array([shares] * len(mine), pa.list_(pa.float64())),
        }
        for name, column in instead.items():
            mine = mine.set_column(mine.schema.get_field_index(name), _DECISIONS.field(name), column)
        return cast(pa.Table, mine)

    return Wanted("the log", origin, since_ms, pick)


def read_answers(paths: list[Path], wanted: Wanted) -> Iterator[pa.Table]:
    """The wanted decisions of some files, repeats included, batch by batch; answers that were made for comparison alone are none.

    Raises:
        DataError: A file cannot be read.
    """
    for path in since(paths, wanted.since_ms):
        for rows in read_batches(path, _DECISIONS, None, _BATCH_ROWS):
            batch: Any = pa.concat_tables([_DECISIONS.empty_table(), rows], promote_options="default")
            there: Any = pc.and_(
                pc.equal(batch["origin"], pa.scalar(wanted.origin)), pc.is_null(batch["shadow_of"])
            )
            there = pc.and_(there, pc.greater_equal(batch["received_ms"], pa.scalar(wanted.since_ms)))
            yield _slim(wanted.pick(batch.select(_DECISIONS.names).filter(there)))


def read_events(paths: list[Path], origin: str, since_ms: int, now_ms: int) -> Iterator[pa.Table]:
    """The events of an origin that the log received up to a moment, repeats included, batch by batch.

    Days that by their name are over before `since_ms` are not opened: an event of a client whose clock is days behind lies there.

    Raises:
        DataError: A file cannot be read.
    """
    where = (pc.field("origin") == origin) & (pc.field("received_ms") <= now_ms)
    schema = pa.schema([*EVENTS, EVENT_SCHEMA.field("origin")])
    for path in since(paths, since_ms):
        for batch in read_batches(path, schema, where):
            whole = pa.concat_tables([EVENTS.empty_table(), batch], promote_options="default")
            yield whole.select(EVENTS.names)


def since(paths: list[Path], since_ms: int) -> list[Path]:
    """The files of the days from the one before a moment on; of all days for 0."""
    first = datetime.fromtimestamp(max(0, since_ms - _DAY_MS) / 1000, UTC).date().isoformat()
    return [path for path in paths if path.parent.name.removeprefix("day=") >= first]


def _assigned(batch: pa.Table, name: str) -> pa.Table:
    """The decisions of an experiment, with what the record says of that experiment's assignment in the record's own columns."""
    own: Any = _is(batch["experiment"], name)
    mine: Any = batch.filter(pc.or_(own, _names(batch, name)))
    rows = np.flatnonzero(~_is(mine["experiment"], name).to_numpy())
    if len(rows) == 0:
        return cast(pa.Table, mine)
    columns = {column: mine[column].to_pylist() for column in _OF_ASSIGNMENT}
    kept = np.ones(mine.num_rows, bool)
    for row, texts in zip(rows.tolist(), mine["assignments"].take(rows).to_pylist(), strict=True):
        found = [one for one in map(json.loads, texts or ()) if one.get("experiment") == name]
        kept[row] = bool(found)
        for column, values in columns.items():
            values[row] = found[0].get(column) if found else None
    for column, values in columns.items():
        field = _DECISIONS.field(column)
        mine = mine.set_column(mine.schema.get_field_index(column), field, pa.array(values, field.type))
    return cast(pa.Table, mine.filter(pa.array(kept)))


def _is(column: Any, name: str) -> Any:
    same: Any = pc.equal(column, pa.scalar(name))
    return pc.fill_null(same, False)


def _names(batch: pa.Table, name: str) -> Any:
    """Whether one of a row's assignments is of that experiment."""
    lists: Any = batch["assignments"].combine_chunks()
    found: Any = pc.match_substring(pc.list_flatten(lists), json.dumps(name))
    named = np.zeros(batch.num_rows, bool)
    named[pc.list_parent_indices(lists).filter(found).to_numpy()] = True
    return pa.array(named)


def _slim(batch: pa.Table) -> pa.Table:
    """With `ANSWERS` for columns: of maps and lists that are not needed whole what is."""
    told: dict[str, Any] = {name: batch[name] for name in ANSWERS.names if name in batch.column_names}
    num_rungs: Any = pc.fill_null(pc.list_value_length(batch["rungs"]), 0)
    told["is_degraded"] = pc.greater(num_rungs, pa.scalar(0))
    told["total_ms"] = pc.map_lookup(batch["timings_ms"].combine_chunks(), "total", "first")
    for name in ("device", "country"):
        told[name] = pc.map_lookup(batch["context"].combine_chunks(), name, "first")
    return pa.table({name: told[name] for name in ANSWERS.names}, schema=ANSWERS)
