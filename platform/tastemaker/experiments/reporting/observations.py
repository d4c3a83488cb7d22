"""An experiment's decisions with what came of them, read from the Parquet days. Not the live posteriors.

Nothing is kept between two readings: what came late is in the next one. Texts are joined part by part (`parts`); what stays of a
decision is some 60 bytes, 8 for each place of its list and 46 for each event of its user.
"""

from dataclasses import dataclass, replace

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.assembling import assembled
from tastemaker.experiments.reporting.days import Wanted, of_experiment
from tastemaker.experiments.reporting.joining import Slates, Touches
from tastemaker.experiments.reporting.parts import LogParts
from tastemaker.experiments.reporting.past import Past
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
        slates=replace(
            slates, row_S=kept_R[slates.row_S[keep_S]].astype(np.int32), item_S=slates.item_S[keep_S]
        ),
        touches=replace(touches, row_E=kept_R[touches.row_E].astype(np.int32)),
        activity_unit_A=seen.activity_unit_A[keep_A],
        activity_ms_A=seen.activity_ms_A[keep_A],
    )


def read_observations(
    home: Home,
    catalogue: str,
    experiment: Experiment,
    now_ms: int,
    *,
    with_past: bool = True,
    wanted: Wanted | None = None,
) -> Observations:
    """The decisions of an experiment whose attribution window closed before `now_ms`.

    Without the past, which `compare`, segments and serendipity use, old days of events are not read. `wanted` says of other decisions
    than the experiment's own that they are its.

    Raises:
        NothingYetError: There are none.
        ExperimentError: It is an interleaving, or they name variants that the experiment does not have.
        DataError: A day cannot be read.
    """
    if experiment.interleaves:
        raise ExperimentError(
            f"no list of experiment {experiment.name} is one variant's: it is an interleaving",
            mend="read its report",
        )
    parts = LogParts(
        home,
        catalogue,
        of_experiment(experiment) if wanted is None else wanted,
        experiment.attribution_window_ms,
        now_ms,
        with_past=with_past,
    )
    found: Observations = parts.read(
        lambda first_ms, read: Observations(
            **assembled(read, experiment, first_ms, with_past=with_past), now_ms=now_ms
        )
    )
    return found
