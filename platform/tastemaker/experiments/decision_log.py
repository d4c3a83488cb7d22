"""The record of every answer: what was shown, by which variant and bundle, and how likely each choice was.

Decisions travel through the partition streams beside the events and end in Parquet days under `decisions/`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

import pyarrow as pa
import redis
from redis.asyncio import Redis as AsyncRedis

from tastemaker.config import StateSettings
from tastemaker.errors import StateError
from tastemaker.events.log import FIELD, Entry
from tastemaker.state.connection import state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import Origin

SCHEMA = 1
SHADOW_FAILED: Final = "failed"
"""Rung of a shadow's answer that did not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One answer.

    `propensity` is that of the variant, `propensities` of all of the experiment's variants in order. Arrays
    over the slate run from rank 1 on. `slot_propensity` is the probability of each item in its slot given
    those above it and the filters; empty where `slot_propensity_kind` is none. `eligible_hash` names the set
    that was chosen from. A share of the answers keep the ranker's `features` of the slate, item by item in the
    order of `feature_names`. `shadow_of` is the request that was answered by another version when this answer was made for
    comparison: nobody saw it, no reward joins it, and where it says `SHADOW_FAILED` in `rungs` there was none.

    What tells the answer again, see `replay`: `request` is what was asked as JSON, without user and k; `k` how long a list was
    made; `policy` what the variant changed about the stages; `past_hash` names the history and record that were read, empty
    where they are nothing; `forced` is the rung of the kill switch, `catalogue_epoch` the lineage and epoch of the put items. Of
    a page of a longer list `first_position` is where in it the page begins, and `cached_from` the request that the list was made for.

    `assignments` are those of all layers, see `logged_assignments`; the single fields are the default layer's, or those of the one
    layer that there is. A tester's answer is in no experiment: `forced_variants` says what was asked for, as `experiment=variant`.
    That of a user of the catalogue's holdout, `held_out`, is in none either. Of an interleaved list `slot_team` is the place of each item's
    variant in the assignment's `teams`, -1 for what is neither's, and `sides` is what made each variant's own list, see
    `interleaving.LoggedSide`, which earlier releases did not log.
    """

    decision_id: str
    request_id: str
    timestamp_ms: int
    catalogue: str
    origin: Origin
    unit: str
    user_id: str
    bundle: str
    experiment: str | None = None
    variant: str | None = None
    epoch: int | None = None
    propensity: float | None = None
    propensities: Sequence[float] = ()
    policy_version: str = ""
    policy_hash: str = ""
    item_ids: Sequence[str] = ()
    scores: Sequence[float] = ()
    source_masks: Sequence[int] = ()
    slot_propensity: Sequence[float] = ()
    slot_propensity_kind: Literal["exact", "monte-carlo", "none"] = "none"
    eligible_hash: str = ""
    seed: int = 0
    cached_from: str | None = None
    feature_age_ms: int | None = None
    rungs: Sequence[str] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    feature_names: Sequence[str] = ()
    features: Sequence[float] = ()
    shadow_of: str | None = None
    request: str = ""
    past_hash: str = ""
    policy: str = ""
    forced: str | None = None
    catalogue_epoch: str = ""
    k: int = 0
    first_position: int = 0
    assignments: Sequence[str] = ()
    forced_variants: Sequence[str] = ()
    held_out: bool = False
    slot_team: Sequence[int] = ()
    sides: Sequence[str] = ()


_STRINGS, _MAP = pa.list_(pa.string()), pa.map_
_COLUMNS: dict[str, Any] = {
    "decision_id": pa.string(), "request_id": pa.string(), "timestamp_ms": pa.int64(),
    "received_ms": pa.int64(),
    "catalogue": pa.string(), "origin": pa.string(), "unit": pa.string(), "user_id": pa.string(),
    "bundle": pa.string(), "experiment": pa.string(), "variant": pa.string(), "epoch": pa.int64(),
    "propensity": pa.float64(), "propensities": pa.list_(pa.float64()), "policy_version": pa.string(),
    "policy_hash": pa.string(), "item_ids": _STRINGS, "scores": pa.list_(pa.float32()),
    "source_masks": pa.list_(pa.uint32()), "slot_propensity": pa.list_(pa.float64()),
    "slot_propensity_kind": pa.string(), "eligible_hash": pa.string(), "seed": pa.int64(),
    "cached_from": pa.string(), "feature_age_ms": pa.int64(), "rungs": _STRINGS,
    "context": _MAP(pa.string(), pa.string()), "timings_ms": _MAP(pa.string(), pa.float64()),
    "feature_names": _STRINGS, "features": pa.list_(pa.float32()), "shadow_of": pa.string(),
    "request": pa.string(), "past_hash": pa.string(), "policy": pa.string(), "forced": pa.string(),
    "catalogue_epoch": pa.string(), "k": pa.int32(), "first_position": pa.int32(),
    "assignments": _STRINGS, "forced_variants": _STRINGS, "held_out": pa.bool_(),
    "slot_team": pa.list_(pa.int8()), "sides": _STRINGS,
}  # fmt: skip
DECISION_SCHEMA = pa.schema(list(_COLUMNS.items()), metadata={"schema": str(SCHEMA)})
"""Columns of the Parquet days; `received_ms` is when the log took the record, by the log's clock."""

_FIELDS = tuple(f.name for f in fields(Decision))
# KEYS: stream. ARGV: cap, JSON.
_APPEND = f"""
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('XADD', KEYS[1], '*', '{FIELD}', ARGV[2])
return 1
"""


def encode_decision(decision: Decision) -> str:
    """JSON of a decision, without its empty fields."""
    content = {name: getattr(decision, name) for name in _FIELDS}
    return json.dumps(
        {name: value for name, value in content.items() if not _is_empty(value)},
        separators=(",", ":"),
        ensure_ascii=False,
        default=_plain,
    )


def _is_empty(value: Any) -> bool:
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _plain(value: Any) -> Any:
    return (
        dict(value)
        if isinstance(value, Mapping)
        else value.tolist()
        if hasattr(value, "tolist")
        else list(value)
    )


def decode_decision(text: str) -> Decision:
    """The decision that `encode_decision` gave; sequences come back as lists, unknown fields are dropped."""
    content = json.loads(text)
    return Decision(**{name: content[name] for name in _FIELDS if name in content})


def decision_table(entries: Sequence[Entry]) -> pa.Table:
    """Stream entries as a table of `DECISION_SCHEMA`."""
    decisions = [decode_decision(entry.json) for entry in entries]
    columns: dict[str, list[Any]] = {name: [getattr(d, name) for d in decisions] for name in _FIELDS}
    columns["received_ms"] = [entry.received_ms for entry in entries]
    for name in ("context", "timings_ms"):
        columns[name] = [list(mapping.items()) for mapping in columns[name]]
    return pa.table({name: columns[name] for name in DECISION_SCHEMA.names}, schema=DECISION_SCHEMA)


def decisions_in(table: pa.Table) -> list[Decision]:
    """The decisions of a table with `DECISION_SCHEMA`; what an older release did not log is as if unset."""
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        for name in ("context", "timings_ms"):
            row[name] = dict(row[name] or ())
    return [Decision(**{name: row[name] for name in _FIELDS if row.get(name) is not None}) for row in rows]


def logged_assignments(decision: Decision) -> list[dict[str, Any]]:
    """A decision's assignments, one a layer, the default layer's first; empty where it is outside of all experiments.

    Each has layer, experiment, variant, unit (the id that was assigned), epoch, propensity, propensities, policy_version and
    policy_hash; `arm_context` where a policy looked at the request, `teams` and `generation` where the list holds two variants' picks. Of a record of
    an earlier release, which had one layer, they are made of the single fields.
    """
    if decision.assignments:
        return [json.loads(text) for text in decision.assignments]
    if decision.experiment is None:
        return []
    names = ("experiment", "variant", "unit", "epoch", "propensity", "policy_version", "policy_hash")
    single = {name: getattr(decision, name) for name in names}
    return [{"layer": "default", **single, "propensities": list(decision.propensities)}]


def append_decision(client: redis.Redis, keys: Keys, decision: Decision, settings: StateSettings) -> None:
    """Appends one decision to its user's partition.

    Raises:
        StateError: Not appended: Redis/Valkey cannot be reached, or the stream is at its cap.
    """
    with state_errors("log a decision"):
        _check(client.eval(*_arguments(keys, decision, settings)), settings)


async def append_decision_async(
    client: AsyncRedis, keys: Keys, decision: Decision, settings: StateSettings
) -> None:
    """The same as `append_decision`, for asyncio."""
    with state_errors("log a decision"):
        _check(await client.eval(*_arguments(keys, decision, settings)), settings)  # type: ignore[misc]


async def append_decisions_async(
    client: AsyncRedis, keys: Keys, decisions: Sequence[Decision], settings: StateSettings
) -> int:
    """Appends decisions in one exchange; gives how many their streams had room for.

    Raises:
        StateError: Redis/Valkey cannot be reached; some may have been appended.
    """
    with state_errors("log decisions"):
        pipe: Any = client.pipeline(transaction=False)
        for decision in decisions:
            pipe.eval(*_arguments(keys, decision, settings))
        return sum(await pipe.execute())


def _arguments(keys: Keys, decision: Decision, settings: StateSettings) -> tuple[Any, ...]:
    stream = keys.decisions(keys.partition(decision.user_id))
    return _APPEND, 1, stream, str(settings.stream_max_length), encode_decision(decision)


def _check(appended: Any, settings: StateSettings) -> None:
    if appended != 1:
        raise StateError(
            "a partition's decision stream is full",
            limit=f"at most {settings.stream_max_length} entries",
            mend="see that the stream consumer runs",
        )
