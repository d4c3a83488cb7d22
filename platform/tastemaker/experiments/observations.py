"""An experiment's decisions with what came of them, read from the Parquet days. Not the live posteriors.

A click or impression belongs to a decision when it carries its request_id, has its origin, names an item of
its slate, and was received within its attribution window; each item counts once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.events.archive import EVENT_SCHEMA, read_days
from tastemaker.experiments.decision_log import DECISION_SCHEMA
from tastemaker.experiments.definition import Experiment
from tastemaker.home import Home
from tastemaker.types import Float64, Int64, Strings


@dataclass(frozen=True, slots=True)
class Observations:
    """One row per decision whose window has closed, by time. R decisions, V variants.

    `num_open` decisions were left out, because silence is no answer yet.
    """

    unit_R: Strings
    variant_R: Int64
    epoch_R: Int64
    timestamp_ms_R: Int64
    propensity_RV: Float64
    clicks_R: Float64
    impressions_R: Float64
    num_open: int

    def __len__(self) -> int:
        return len(self.unit_R)

    def first_exposures(self) -> Int64:
        """Rows of each (unit, epoch)'s first decision: where a draw was made."""
        keys = np.array(
            [f"{epoch}:{unit}" for epoch, unit in zip(self.epoch_R, self.unit_R, strict=True)], object
        )
        _, first = np.unique(keys, return_index=True)
        return np.sort(first)


def read_observations(home: Home, catalogue: str, experiment: Experiment, now_ms: int) -> Observations:
    """The decisions of an experiment whose attribution window closed before `now_ms`.

    Raises:
        ExperimentError: There are none, or they name variants that the experiment does not have.
        DataError: A day cannot be read.
    """
    of_experiment = (pc.field("experiment") == experiment.name) & (pc.field("origin") == experiment.origin)
    decisions = read_days(home / "decisions" / catalogue, DECISION_SCHEMA, "decision_id", of_experiment)
    closed = decisions["received_ms"].to_numpy() + experiment.attribution_window_ms < now_ms
    decisions = decisions.filter(pa.array(closed))
    if decisions.num_rows == 0:
        raise ExperimentError(
            f"experiment {experiment.name} has no decision whose window has closed",
            mend="wait for traffic, and for the stream consumer",
        )
    wanted = (pc.field("origin") == experiment.origin) & pc.field("kind").isin(["click", "impression"])
    events = read_days(home / "events" / catalogue, EVENT_SCHEMA, "event_id", wanted)
    joined = _join(decisions, events, experiment.attribution_window_ms)
    epochs: Any = decisions["epoch"]
    return Observations(
        unit_R=np.asarray(decisions["unit"].to_pylist(), dtype=object),
        variant_R=_variants(decisions, experiment),
        epoch_R=epochs.fill_null(0).to_numpy(),
        timestamp_ms_R=decisions["timestamp_ms"].to_numpy(),
        propensity_RV=_propensities(decisions, experiment),
        clicks_R=_count(joined, "click", decisions.num_rows),
        impressions_R=_count(joined, "impression", decisions.num_rows),
        num_open=int((~closed).sum()),
    )


def _join(decisions: pa.Table, events: pa.Table, window_ms: int) -> pa.Table:
    """Rows (kind, row of the decision): each kind, item and decision once, within the window."""
    row = pc.list_parent_indices(decisions["item_ids"])
    shown = (
        decisions.select(["request_id", "received_ms"]).rename_columns(["request_id", "shown_ms"]).take(row)
    )
    shown = shown.append_column("row", row).append_column("item_id", pc.list_flatten(decisions["item_ids"]))
    came = events.select(["request_id", "item_id", "kind", "received_ms"])
    joined = came.join(shown, keys=["request_id", "item_id"], join_type="inner", use_threads=False)
    in_time = pc.less_equal(joined["received_ms"], pc.add(joined["shown_ms"], window_ms))
    return joined.filter(in_time).group_by(["row", "item_id", "kind"], use_threads=False).aggregate([])


def _count(joined: pa.Table, kind: str, num_rows: int) -> Float64:
    rows = joined.filter(pc.field("kind") == kind)["row"].to_numpy()
    return np.bincount(rows, minlength=num_rows).astype(np.float64)


def _variants(decisions: pa.Table, experiment: Experiment) -> Int64:
    place = pc.index_in(decisions["variant"], pa.array(experiment.variant_names))
    if place.null_count:
        strange = pc.unique(decisions["variant"].filter(pc.is_null(place))).to_pylist()
        raise ExperimentError(
            f"decisions of experiment {experiment.name} name variants {strange}",
            limit=f"one of: {', '.join(experiment.variant_names)}",
            mend="give a new experiment a new name",
        )
    return place.to_numpy().astype(np.int64)


def _propensities(decisions: pa.Table, experiment: Experiment) -> Float64:
    rows = decisions["propensities"].to_pylist()
    if any(row is None or len(row) != len(experiment.variants) for row in rows):
        raise ExperimentError(
            f"a decision of experiment {experiment.name} lacks its propensities",
            mend="log the assignment's propensities with it",
        )
    return np.asarray(rows, dtype=np.float64)
