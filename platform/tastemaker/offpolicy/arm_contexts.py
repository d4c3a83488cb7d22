"""What a policy on context would have seen of logged requests: places of their features, read from the decision log.

Where the log's own policy looked at the same features in the same way, its `arm_context` says it. Else places are made of what the
request asked: device, country and the hour of its `local_time`. Whether a user was new is not in it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.events.archive import read_days
from tastemaker.experiments.allocation import Adaptive, Contextual, arm_context
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.home import Home
from tastemaker.types import Int64

Places = tuple[int, ...]
_COLUMNS: Final = (
    "decision_id", "timestamp_ms", "received_ms", "origin", "shadow_of", "experiment", "unit", "assignments", "request",
)  # fmt: skip
_SCHEMA: Final = pa.schema([DECISION_SCHEMA.field(name) for name in _COLUMNS])
_UNTOLD: Final = "user"
"""The feature that requests do not say."""


def read_places(
    home: Home,
    catalogue: str,
    seen: Observations,
    experiment: Experiment,
    allocation: Adaptive,
    row_D: Int64,
) -> list[Places]:
    """The places that an allocation on context sees of some decisions, (D,); of other allocations, none.

    Args:
        home: Of the decision log.
        catalogue: Whose.
        seen: The experiment's decisions.
        experiment: As it ran.
        allocation: That is judged.
        row_D: Rows of `seen`.

    Raises:
        ExperimentError: The log does not have what the allocation looks at.
        DataError: A day cannot be read.
    """
    if not isinstance(allocation, Contextual):
        return [()] * len(row_D)
    logged = _looks_alike(experiment.allocation, allocation)
    if not logged and _UNTOLD in allocation.features:
        raise ExperimentError(
            "feature of the allocation", value=_UNTOLD, limit="device, country or hour: the log does not say who was new",
            mend="leave it out of `features`; only a log of an allocation with the same features, dimension, encoding and epoch has it",
        )  # fmt: skip
    units = seen.units.take(pa.array(seen.unit_R[row_D])).to_pylist()
    keys = [*zip(units, seen.shown_ms_R[row_D].tolist(), strict=True)]
    told = _told(home, catalogue, experiment, {moment for _, moment in keys})
    found = [_places(told.get(key), allocation, logged=logged) for key in keys]
    known = [places for places in found if places is not None]
    if len(known) < len(found):
        raise ExperimentError(
            "first requests of units whose context was recorded", value=f"{len(known):,} of {len(found):,}", limit="all",
            mend="judge days that this release or a newer one logged",
        )  # fmt: skip
    return known


def _looks_alike(logged: Any, judged: Contextual) -> bool:
    """Whether the log's policy saw of a unit's first request in an epoch what the judged one would have."""
    return isinstance(logged, Contextual) and all(
        getattr(logged, name) == getattr(judged, name)
        for name in ("features", "dimension", "encoding", "epoch_seconds")
    )


def _told(
    home: Home, catalogue: str, experiment: Experiment, moments_ms: set[int]
) -> Mapping[tuple[str, int], tuple[Sequence[int], str | None]]:
    """Of the experiment's decisions at some moments, by unit and moment: `arm_context`, and what was asked."""
    mine = (pc.field("origin") == experiment.origin) & pc.field("received_ms").isin(sorted(moments_ms))
    found: dict[tuple[str, int], tuple[Sequence[int], str | None]] = {}
    for row in read_days(home / "decisions" / catalogue, _SCHEMA, "decision_id", mine).to_pylist():
        if row["shadow_of"] is None:
            for one in _assignments(row):
                if one.get("experiment") == experiment.name:
                    key = (one.get("unit") or row["unit"], row["received_ms"])
                    found.setdefault(key, (one.get("arm_context") or (), row["request"]))
    return found


def _assignments(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    texts = row["assignments"] or ()
    return [json.loads(text) for text in texts] if texts else [{"experiment": row["experiment"]}]


def _places(
    told: tuple[Sequence[int], str | None] | None, allocation: Contextual, *, logged: bool
) -> Places | None:
    if told is None:
        return None
    places, request = told
    if logged and places:
        return tuple(places)
    if not request or _UNTOLD in allocation.features:
        return None
    context = json.loads(request).get("context") or {}
    return arm_context(allocation, Subject("", context=context).features())
