"""An experiment's rows of the Parquet days: its decisions, and the events of its users. What is not needed is left out file by file."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.events.archive import EVENT_SCHEMA, read_batches, reread, without_repeats
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment

_DAY_MS: Final = 86_400_000
_DECISION_COLUMNS: Final = (
    "decision_id", "request_id", "timestamp_ms", "received_ms", "origin", "unit", "user_id", "experiment", "variant",
    "epoch", "propensities", "item_ids", "rungs", "context", "timings_ms", "shadow_of", "assignments",
)  # fmt: skip
_EVENT_COLUMNS: Final = (
    "event_id", "user_id", "item_id", "kind", "timestamp_ms", "received_ms", "value", "request_id", "origin",
)  # fmt: skip
_OF_ASSIGNMENT: Final = ("experiment", "variant", "unit", "epoch", "propensities")
_DECISIONS = pa.schema([f for f in DECISION_SCHEMA if f.name in _DECISION_COLUMNS])
_EVENTS = pa.schema([EVENT_SCHEMA.field(name) for name in _EVENT_COLUMNS])


def read_decisions(folder: Path, experiment: Experiment) -> pa.Table:
    """All of the experiment's decisions, open ones too; answers that were made for comparison alone are none."""

    def read(parts: list[Path]) -> pa.Table:
        tables = [_DECISIONS.empty_table()]
        for path in _since(parts, experiment.course.reassigned_ms):
            for rows in read_batches(path, _DECISIONS, None):
                batch: Any = pa.concat_tables([tables[0], rows], promote_options="default").select(
                    _DECISIONS.names
                )
                mine: Any = pc.and_(
                    _counted(batch, experiment),
                    pc.or_(
                        pc.fill_null(pc.equal(batch["experiment"], pa.scalar(experiment.name)), False),
                        _names(batch, experiment.name),
                    ),
                )
                tables.append(batch.filter(mine))
        return _as_assigned(without_repeats(pa.concat_tables(tables), "decision_id"), experiment)

    return reread(folder, read)


def _counted(batch: Any, experiment: Experiment) -> Any:
    """Whether a row is of the experiment's traffic, not made for comparison alone, and of the present assignment of units."""
    there: Any = pc.and_(
        pc.equal(batch["origin"], pa.scalar(experiment.origin)), pc.is_null(batch["shadow_of"])
    )
    return pc.and_(there, pc.greater_equal(batch["received_ms"], pa.scalar(experiment.course.reassigned_ms)))


def _names(batch: Any, name: str) -> Any:
    """Whether one of a row's assignments is of that experiment."""
    if "assignments" not in batch.column_names:
        return pa.array(np.zeros(batch.num_rows, bool))
    lists = batch["assignments"].combine_chunks()
    found: Any = pc.match_substring(pc.list_flatten(lists), json.dumps(name))
    named = np.zeros(batch.num_rows, bool)
    named[pc.list_parent_indices(lists).filter(found).to_numpy()] = True
    return pa.array(named)


def _as_assigned(decisions: pa.Table, experiment: Experiment) -> pa.Table:
    """With what the record says of this experiment's assignment in the record's own columns, whichever layer it is of."""
    named: Any = decisions["experiment"]
    other = pc.fill_null(pc.not_equal(named, pa.scalar(experiment.name)), True)
    rows = np.flatnonzero(other.to_numpy())
    if len(rows) == 0:
        return decisions
    columns = {name: decisions[name].to_pylist() for name in _OF_ASSIGNMENT}
    kept = np.ones(decisions.num_rows, bool)
    for row, texts in zip(rows.tolist(), decisions["assignments"].take(rows).to_pylist(), strict=True):
        found = [one for one in map(json.loads, texts or ()) if one.get("experiment") == experiment.name]
        kept[row] = bool(found)
        for name, values in columns.items():
            values[row] = found[0].get(name) if found else None
    for name, values in columns.items():
        place = decisions.schema.get_field_index(name)
        decisions = decisions.set_column(
            place, _DECISIONS.field(name), pa.array(values, _DECISIONS.field(name).type)
        )
    return decisions.filter(pa.array(kept))


def read_events(folder: Path, origin: str, decisions: pa.Table, since_ms: int, now_ms: int) -> pa.Table:
    """The events that name one of the decisions' requests or are one of their users', from `since_ms` up to `now_ms`.

    Days that by their name are over before `since_ms` are not opened: an event of a client whose clock is days behind lies there.
    """
    users: Any = pc.unique(decisions["user_id"])
    requests: Any = decisions["request_id"].combine_chunks()

    def read(parts: list[Path]) -> pa.Table:
        tables = [_EVENTS.empty_table()]
        batch: Any
        for path in _since(parts, since_ms):
            for batch in read_batches(path, _EVENTS, pc.field("origin") == origin):
                mine: Any = pc.or_(
                    pc.is_in(batch["user_id"], value_set=users),
                    pc.is_in(batch["request_id"], value_set=requests),
                )
                tables.append(
                    batch.filter(pc.and_(mine, pc.less_equal(batch["received_ms"], pa.scalar(now_ms))))
                )
        return _each_once(pa.concat_tables(tables, promote_options="default").select(_EVENTS.names))

    return reread(folder, read)


def _each_once(events: pa.Table) -> pa.Table:
    """Events without repeats, in no order, and without what is not needed any more; nothing is copied where there are none."""
    slim = events.select(["event_id", "timestamp_ms", "received_ms"])
    slim = slim.append_column("row", pa.array(np.arange(len(events))))
    events = events.drop_columns(["event_id", "origin"])
    kept = without_repeats(slim, "event_id")["row"]
    return events.take(kept) if len(kept) < len(events) else events


def _since(parts: list[Path], since_ms: int) -> list[Path]:
    """The files of the days from the one before a moment on; of all days for 0."""
    first = datetime.fromtimestamp(max(0, since_ms - _DAY_MS) / 1000, UTC).date().isoformat()
    return [path for path in parts if path.parent.name.removeprefix("day=") >= first]
