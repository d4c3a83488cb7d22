"""An experiment's decisions with what came of them, read from the Parquet days. Not the live posteriors.

Nothing is kept between two readings: what came late is in the next one. Texts are joined part by part (`parts`), and of events only what they add
up to is kept (`earned`, `visits`). What stays of a decision is some 50 bytes, 1 to 4 for each place of its list and 10 to 16 for each visit.
"""

# ruff: noqa: N802 (shape letters)

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.reporting.assembling import assembled
from tastemaker.experiments.reporting.days import Wanted, of_experiment
from tastemaker.experiments.reporting.earned import Clicks, Tally
from tastemaker.experiments.reporting.lists import Lists
from tastemaker.experiments.reporting.narrow import wide
from tastemaker.experiments.reporting.parts import LogParts
from tastemaker.experiments.reporting.past import Past
from tastemaker.experiments.reporting.rows import Rows
from tastemaker.experiments.reporting.visits import Visits
from tastemaker.home import Home
from tastemaker.types import Bool, Float64, Int64, Strings


@dataclass(frozen=True, slots=True)
class Observations:
    """One row per decision whose attribution window has closed, by time. R decisions, V variants, U units.

    `unit_R` are rows of `units`. `num_open` decisions were left out, because silence is no answer yet; windows that are
    longer than the experiment's may still be open of others. `visits` are when units gave a sign of life: decisions and events,
    by the log's clock. `unknown_events` named a request that is none of these decisions', or an item that its list did not show.

    Columns are held in `rows`; what is asked for here is widened to calculate with, anew each time.
    """

    units: Any
    rows: Rows
    lists: Lists
    clicks: Clicks
    visits: Visits
    past: Past
    num_open: int
    unknown_events: int
    now_ms: int
    attribution_window_ms: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def unit_R(self) -> Int64:
        """Which unit each decision is for."""
        return wide(self.rows.unit_R)

    @property
    def variant_R(self) -> Int64:
        """Which variant each decision has."""
        return wide(self.rows.variant_R)

    @property
    def epoch_R(self) -> Int64:
        """In which epoch each decision was drawn."""
        return wide(self.rows.epoch_R)

    @property
    def shown_ms_R(self) -> Int64:
        """When the log took each decision."""
        return self.rows.shown_ms_R

    @property
    def timestamp_ms_R(self) -> Int64:
        """When each decision was made, by its gateway's clock."""
        return self.rows.shown_ms_R - self.rows.lag_ms_R

    @property
    def propensity_RV(self) -> Float64:
        """The probability of each variant at each decision's draw."""
        return self.rows.shares_PV[self.rows.share_R]

    @property
    def degraded_R(self) -> Bool:
        """Which decisions were made by a fallback."""
        return self.rows.degraded_R > 0

    @property
    def latency_ms_R(self) -> Float64:
        """How long each answer took; NaN where that was not logged."""
        return self.rows.latency_ms_R.astype(np.float64)

    @property
    def device_R(self) -> Strings:
        """From which device each request came; empty where it did not say."""
        return self.rows.devices[self.rows.device_R]

    @property
    def country_R(self) -> Strings:
        """From which country each request came; empty where it did not say."""
        return self.rows.countries[self.rows.country_R]

    def own_propensities(self) -> Float64:
        """The probability with which each decision's own variant was drawn. Shape (R,)."""
        return self.rows.shares_PV[self.rows.share_R, self.rows.variant_R]

    def earned(self, tally: Tally) -> Float64:
        """A tally of each decision, see `earned`. Shape (R,)."""
        return self.rows.earned[tally].astype(np.float64)

    def num_units(self) -> int:
        """How many units there are here; `units` may hold more."""
        return int(np.count_nonzero(np.bincount(self.rows.unit_R)))

    def draws(self) -> Int64:
        """A number for each decision's draw, from 0: those of one unit and epoch have one. Shape (R,)."""
        pair_R = self.unit_R * (int(self.rows.epoch_R.max()) + 1) + self.rows.epoch_R
        draw_R: Int64 = np.unique(pair_R, return_inverse=True)[1].astype(np.int64, copy=False)
        return draw_R

    def first_exposures(self) -> Int64:
        """Rows of each (unit, epoch)'s first decision: where a draw was made."""
        _, first = np.unique(self.draws(), return_index=True)
        return np.sort(first)


def where(seen: Observations, keep_R: Bool) -> Observations:
    """The observations of some units; `keep_R` holds for all of a unit's decisions or for none. Numbers of units stay."""
    if keep_R.all():
        return seen
    rows, keep_U = seen.rows.take(keep_R), np.zeros(len(seen.units), np.bool_)
    keep_U[rows.unit_R] = True
    keep_E = keep_R[seen.clicks.row_E]
    place_R = np.cumsum(keep_R, dtype=np.int32) - 1
    clicks = Clicks(place_R[seen.clicks.row_E[keep_E]], seen.clicks.item_E[keep_E])
    visits = seen.visits.take(keep_U[seen.visits.unit_N])
    return replace(seen, rows=rows, clicks=clicks, visits=visits)


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
            **assembled(read, experiment, first_ms, with_past=with_past),
            now_ms=now_ms,
            attribution_window_ms=experiment.attribution_window_ms,
        )
    )
    return found
