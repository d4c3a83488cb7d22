"""An experiment's decisions with what came of them, read from the Parquet days. Not the live posteriors.

Nothing is kept between two readings: what came late is in the next one. Whatever is not needed of a day is left out file by
file, so that memory follows the experiment's own decisions and its users' events.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.days import read_decisions, read_events
from tastemaker.experiments.reporting.joining import Slates, Touches, join
from tastemaker.experiments.reporting.past import Past, no_past, read_past
from tastemaker.home import Home
from tastemaker.types import Bool, Float64, Int64, Strings


@dataclass(frozen=True, slots=True)
class Observations:
    """One row per decision whose attribution window has closed, by time. R decisions, V variants, U units, E events.

    `unit_R` are rows of `units`. `num_open` decisions were left out, because silence is no answer yet; windows that are
    longer than the experiment's may still be open of others. `activity_unit_A` and `activity_ms_A` are the moments at which units gave a sign of life,
    by the log's clock: the decisions' in their order, and behind them those of events. `unknown_events` named a request that is none of these decisions', or an item that its list did not show.
    """

    units: Strings
    unit_R: Int64
    variant_R: Int64
    epoch_R: Int64
    timestamp_ms_R: Int64
    shown_ms_R: Int64
    propensity_RV: Float64
    degraded_R: Bool
    latency_ms_R: Float64
    device_R: Strings
    country_R: Strings
    slates: Slates
    touches: Touches
    activity_unit_A: Int64
    activity_ms_A: Int64
    past: Past
    num_open: int
    unknown_events: int
    now_ms: int

    def __len__(self) -> int:
        return len(self.unit_R)

    def own_propensities(self) -> Float64:
        """The probability with which each decision's own variant was drawn. Shape (R,)."""
        return self.propensity_RV[np.arange(len(self)), self.variant_R]

    def num_units(self) -> int:
        """How many units there are here; `units` may hold more."""
        return int(np.count_nonzero(np.bincount(self.unit_R)))

    def draws(self) -> Int64:
        """A number for each decision's draw, from 0: those of one unit and epoch have one. Shape (R,)."""
        pair_R = self.unit_R * (int(self.epoch_R.max()) + 1) + self.epoch_R
        draw_R: Int64 = np.unique(pair_R, return_inverse=True)[1].astype(np.int64)
        return draw_R

    def first_exposures(self) -> Int64:
        """Rows of each (unit, epoch)'s first decision: where a draw was made."""
        _, first = np.unique(self.draws(), return_index=True)
        return np.sort(first)


def where(seen: Observations, keep_R: Bool) -> Observations:
    """The observations of some units; `keep_R` holds for all of a unit's decisions or for none. Numbers of units stay."""
    kept_R, keep_U = np.cumsum(keep_R) - 1, np.zeros(len(seen.units), np.bool_)
    keep_U[seen.unit_R[keep_R]] = True
    slates, touches = seen.slates, seen.touches.take(keep_R[seen.touches.row_E])
    keep_S, keep_A = keep_R[slates.row_S], keep_U[seen.activity_unit_A]
    of_rows = (
        "unit_R",
        "variant_R",
        "epoch_R",
        "timestamp_ms_R",
        "shown_ms_R",
        "propensity_RV",
        "degraded_R",
        "latency_ms_R",
        "device_R",
        "country_R",
    )
    return replace(
        seen,
        **{name: getattr(seen, name)[keep_R] for name in of_rows},
        slates=replace(slates, row_S=kept_R[slates.row_S[keep_S]], item_S=slates.item_S[keep_S]),
        touches=replace(touches, row_E=kept_R[touches.row_E]),
        activity_unit_A=seen.activity_unit_A[keep_A],
        activity_ms_A=seen.activity_ms_A[keep_A],
    )


def read_observations(
    home: Home, catalogue: str, experiment: Experiment, now_ms: int, *, with_past: bool = True
) -> Observations:
    """The decisions of an experiment whose attribution window closed before `now_ms`.

    Without the past, which `compare`, segments and serendipity use, old days of events are not read.

    Raises:
        ExperimentError: There are none, or they name variants that the experiment does not have.
        DataError: A day cannot be read.
    """
    decisions = read_decisions(home / "decisions" / catalogue, experiment)
    closed = decisions["received_ms"].to_numpy() + experiment.attribution_window_ms < now_ms
    num_open = int((~closed).sum())
    decisions = decisions.filter(pa.array(closed))
    if decisions.num_rows == 0:
        raise ExperimentError(
            f"experiment {experiment.name} has no decision whose window has closed",
            mend="wait for traffic, and for the stream consumer",
        )
    first_ms = int(pc.min(decisions["received_ms"]).as_py())
    events = read_events(
        home / "events" / catalogue, experiment.origin, decisions, 0 if with_past else first_ms, now_ms
    )
    before_E = events["received_ms"].to_numpy() < first_ms
    named: Any = pc.is_in(events["request_id"], value_set=decisions["request_id"].combine_chunks())
    slates = Slates.of(decisions["item_ids"])
    joined = join(decisions, slates, events.filter(pa.array(~before_E | named.to_numpy())))
    units: Any = pc.dictionary_encode(decisions["unit"].combine_chunks())
    unit_R = units.indices.to_numpy().astype(np.int64)
    seen = Observations(
        units=units.dictionary.to_numpy(zero_copy_only=False).astype(object),
        unit_R=unit_R,
        variant_R=_variants(decisions, experiment),
        epoch_R=_filled(decisions["epoch"], 0),
        timestamp_ms_R=decisions["timestamp_ms"].to_numpy(),
        shown_ms_R=decisions["received_ms"].to_numpy(),
        propensity_RV=_propensities(decisions, experiment),
        degraded_R=_filled(pc.list_value_length(decisions["rungs"]), 0) > 0,
        latency_ms_R=_of_map(decisions["timings_ms"], "total", np.nan).astype(np.float64),
        device_R=_of_map(decisions["context"], "device", ""),
        country_R=_of_map(decisions["context"], "country", ""),
        slates=slates,
        touches=joined.touches,
        activity_unit_A=unit_R,
        activity_ms_A=decisions["received_ms"].to_numpy(),
        past=read_past(home, catalogue, experiment.origin, decisions, events.filter(pa.array(before_E)), units.dictionary, slates.items, first_ms)
        if with_past
        else no_past(len(units.dictionary), len(slates.items)),
        num_open=num_open,
        unknown_events=joined.num_unknown_requests + joined.num_not_shown,
        now_ms=now_ms,
    )  # fmt: skip
    return _with_activity(seen, decisions, events.filter(pa.array(~before_E)))


def _with_activity(seen: Observations, decisions: pa.Table, events: pa.Table) -> Observations:
    """With the events' moments: an event is of the unit whose latest decision before it had its user."""
    users: Any = pc.dictionary_encode(decisions["user_id"].combine_chunks())
    user_R: Int64 = users.indices.to_numpy().astype(np.int64)
    user_E: Int64 = _filled(pc.index_in(events["user_id"], value_set=users.dictionary), -1).astype(np.int64)
    received_ms_E = events["received_ms"].to_numpy()
    order = np.lexsort((seen.shown_ms_R, user_R))
    first_ms = int(seen.shown_ms_R.min())
    span = max(int(seen.shown_ms_R.max()), int(received_ms_E.max(initial=0))) - first_ms + 1
    moment_R = (user_R * span + seen.shown_ms_R - first_ms)[order]
    before_E = np.searchsorted(moment_R, user_E * span + received_ms_E - first_ms, side="right") - 1
    row_E = order[np.maximum(before_E, 0)]
    right_E = (user_E >= 0) & (before_E >= 0) & (user_R[row_E] == user_E)
    return replace(
        seen,
        activity_unit_A=np.concatenate([seen.unit_R, seen.unit_R[row_E[right_E]]]),
        activity_ms_A=np.concatenate([seen.shown_ms_R, received_ms_E[right_E]]),
    )


def _of_map(column: Any, key: str, absent: Any) -> Any:
    """The value of a key in a column of maps, `absent` where there is none."""
    return _filled(pc.map_lookup(column.combine_chunks(), key, "first"), absent)


def _filled(column: Any, absent: Any) -> Any:
    values = pc.fill_null(column, absent)
    return values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)


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
    lists, num_variants = decisions["propensities"].combine_chunks(), len(experiment.variants)
    lengths = _filled(pc.list_value_length(lists), 0)
    if (lengths != num_variants).any():
        raise ExperimentError(
            f"a decision of experiment {experiment.name} lacks its propensities",
            mend="log the assignment's propensities with it",
        )
    propensity_RV = pc.list_flatten(lists).to_numpy().reshape(-1, num_variants).astype(np.float64)
    drawn_R = propensity_RV[np.arange(len(propensity_RV)), _variants(decisions, experiment)]
    if not (drawn_R > 0).all():
        raise ExperimentError(
            f"propensity of a variant that experiment {experiment.name} drew",
            value=float(drawn_R.min()),
            limit="above 0",
            mend="log the probabilities that the draw was made with",
        )
    return propensity_RV
