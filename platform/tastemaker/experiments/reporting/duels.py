"""The lists of an interleaving with what each team's picks earned, read from the Parquet days. Not what they say (`interleaved`).

Shape letters: R lists, S places of lists, E events, T the two teams.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from tastemaker.errors import ExperimentError
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import Metric
from tastemaker.experiments.reporting.days import of_experiment
from tastemaker.experiments.reporting.joining import Slates, join
from tastemaker.experiments.reporting.parts import LogParts, Part
from tastemaker.home import Home
from tastemaker.types import Float64, Int64


@dataclass(frozen=True, slots=True)
class Duels:
    """One row per list whose window has closed, part by part.

    `earned_RT` is what the picks of each team earned: the number of distinct items with an event of the metric, or the sum of the
    events' values; `picks_RT` how many places were its. What stands at nobody's place earns nothing.
    """

    unit_R: Int64
    shown_ms_R: Int64
    earned_RT: Float64
    picks_RT: Int64
    num_open: int
    unknown_events: int

    def __len__(self) -> int:
        return len(self.unit_R)

    def scores(self) -> Float64:
        """1 where team 1 won the list, -1 where team 0 did, 0 for a tie. Shape (R,)."""
        return np.sign(self.earned_RT[:, 1] - self.earned_RT[:, 0])


def read_duels(home: Home, catalogue: str, experiment: Experiment, metric: Metric, now_ms: int) -> Duels:
    """The lists of an interleaving whose window, as long as the metric's own, closed before `now_ms`.

    Raises:
        ExperimentError: There are none, or a record does not say whose picks its list holds.
        DataError: A day cannot be read.
    """
    window_ms = metric.window_of(experiment.attribution_window_ms)
    parts = LogParts(home, catalogue, of_experiment(experiment), window_ms, now_ms, with_past=False)
    found: Duels = parts.read(lambda first_ms, read: _together(read, metric, window_ms, first_ms))
    return found


def _together(parts: Iterator[Part], metric: Metric, window_ms: int, first_ms: int) -> Duels:
    number_of: dict[str, int] = {}
    pieces, num_open = [], 0
    for part in parts:
        num_open += part.num_open
        if len(part.answers):
            pieces.append(_of_part(part, metric, window_ms, first_ms, number_of))
    return Duels(
        np.concatenate([one.unit_R for one in pieces]),
        np.concatenate([one.shown_ms_R for one in pieces]),
        np.concatenate([one.earned_RT for one in pieces]),
        np.concatenate([one.picks_RT for one in pieces]),
        num_open,
        sum(one.unknown_events for one in pieces),
    )


def _of_part(part: Part, metric: Metric, window_ms: int, first_ms: int, number_of: dict[str, int]) -> Duels:
    answers = part.answers
    slates, team_S = Slates.of(answers["item_ids"]), _teams(answers)
    joined = join(answers, slates, part.events_to_join(first_ms))
    touches = joined.touches.within(metric.events, window_ms)
    key_S = slates.keys(slates.row_S, slates.item_S)
    order = np.argsort(key_S, kind="stable")
    place_E = order[np.searchsorted(key_S[order], slates.keys(touches.row_E, touches.item_E))]
    weight_E = touches.value_E if metric.measure == "value" else None
    earned_S = np.bincount(place_E, weights=weight_E, minlength=len(key_S)).astype(np.float64)
    if metric.measure != "value":
        earned_S = np.minimum(earned_S, 1)
    units: Any = pc.dictionary_encode(answers["unit"].combine_chunks())
    numbers = [number_of.setdefault(unit, len(number_of)) for unit in units.dictionary.to_pylist()]
    return Duels(
        np.array(numbers, np.int64)[units.indices.to_numpy()],
        answers["received_ms"].to_numpy(),
        _by_team(slates, team_S, earned_S, len(answers)),
        _by_team(slates, team_S, np.ones(len(team_S)), len(answers)).astype(np.int64),
        0,
        joined.num_unknown_requests + joined.num_not_shown,
    )


def _teams(answers: Any) -> Int64:
    """Of each place of the lists its team."""
    lengths = (pc.fill_null(pc.list_value_length(answers[name]), 0) for name in ("item_ids", "slot_team"))
    items, teams = (one.to_numpy() for one in lengths)
    if (items != teams).any():
        raise ExperimentError(
            "a list of an interleaving does not say whose picks it holds", mend="log slot_team with item_ids"
        )
    found: Int64 = pc.list_flatten(answers["slot_team"].combine_chunks()).to_numpy().astype(np.int64)
    return found


def _by_team(slates: Slates, team_S: Int64, value_S: Float64, num_lists: int) -> Float64:
    """Sums by list and team. Shape (R, 2)."""
    mine_S = team_S >= 0
    cell_S = slates.row_S[mine_S].astype(np.int64) * 2 + team_S[mine_S]
    sums = np.bincount(cell_S, weights=value_S[mine_S], minlength=2 * num_lists)
    return sums.astype(np.float64).reshape(num_lists, 2)
