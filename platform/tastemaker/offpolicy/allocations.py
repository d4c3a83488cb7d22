"""An allocation judged from an experiment's log: the shares that it would have given as time went on, learning from that log.

Its posterior is that of serving: of decisions whose window had closed by then, whatever policy had drawn them. So it learns from what was
shown, not from what it would have shown itself: where the log's shares are more even than its own, it learns of the worse
variants sooner. A unit keeps its draw for an epoch. What was drawn when, by what the allocation knew then, does not depend
on what came of it later, and importance weights make up for the rest.

Shape letters: R decisions, D draws of the judged allocation, V variants, P distributions.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.events.attribution import Outcome
from tastemaker.experiments.allocation import Adaptive, encoded_as, reward_problem
from tastemaker.experiments.definition import Experiment
from tastemaker.experiments.metrics import Metric, metric_of
from tastemaker.experiments.posterior import NEWEST, Posterior, increments
from tastemaker.experiments.reporting.measures import measure
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.home import Home
from tastemaker.offpolicy.arm_contexts import Places, read_places
from tastemaker.offpolicy.arms import Shares, judge_shares
from tastemaker.offpolicy.judgement import Judgement
from tastemaker.offpolicy.support import LEAST_EFFECTIVE
from tastemaker.types import Int64

NUM_UPDATES: Final = 100
"""How often what the allocation knows is read over the log; in serving it is a second old at most."""


class Draws(NamedTuple):
    """Which draw each decision is of (R,), and the first decision of each draw (D,), by time."""

    draw_R: Int64
    first_D: Int64


def judge_allocation(
    home: Home,
    catalogue: str,
    seen: Observations,
    experiment: Experiment,
    metric: Metric,
    allocation: Adaptive,
    *,
    name: str = "policy",
    level: float = 0.95,
    least_effective: float = LEAST_EFFECTIVE,
    seed: int = 0,
) -> Judgement:
    """What the experiment's traffic would have earned under another allocation that learns from the same log.

    Args:
        home: Of the decision log.
        catalogue: Whose.
        seen: The experiment's decisions.
        experiment: Theirs; its `reward` is what the allocation learns from.
        metric: Of requests: shares change with time, and with them what a unit as a whole was given.
        allocation: That is judged. Where it does not say how it encodes context, it does as the log's policy did.
        name: Of the allocation, in the judgement.
        level: Of intervals.
        least_effective: See `support.require_support`.
        seed: Of the bootstrap.

    Raises:
        ExperimentError: The metric is of no request, the log lacks what the allocation looks at, or it does not support it.
        DataError: The log cannot be read.
    """
    if metric.kind != "ratio" or metric.per == "session":
        raise ExperimentError(
            f"metric {metric.name} of an allocation", value=f"per {metric.per}", limit="per request, impression or event",
            mend="take clicks_per_request, or judge fixed `weights`",
        )  # fmt: skip
    allocation = encoded_as(allocation, experiment.allocation)
    draws = draws_of(seen, allocation)
    places_D = read_places(home, catalogue, seen, experiment, allocation, draws.first_D)
    shares = learned_shares(seen, experiment, allocation, draws, places_D)
    return judge_shares(
        seen, experiment, metric, shares, name=name, level=level, least_effective=least_effective, seed=seed
    )


def draws_of(seen: Observations, allocation: Adaptive) -> Draws:
    """The draws that an allocation would make: one of each unit and epoch, at the first decision."""
    epoch_R = seen.timestamp_ms_R // (1000 * allocation.epoch_seconds)
    key_R = seen.unit_R * (int(epoch_R.max()) + 1) + epoch_R
    order_R = np.lexsort((np.arange(len(seen)), seen.shown_ms_R))
    _, first, code_R = np.unique(key_R[order_R], return_index=True, return_inverse=True)
    by_time = np.argsort(first, kind="stable")
    rank = np.empty(len(first), np.int64)
    rank[by_time] = np.arange(len(first))
    draw_R = np.empty(len(seen), np.int64)
    draw_R[order_R] = rank[code_R]
    return Draws(draw_R, order_R[first[by_time]])


def learned_shares(
    seen: Observations, experiment: Experiment, allocation: Adaptive, draws: Draws, places_D: Sequence[Places]
) -> Shares:
    """The shares of each draw.

    Args:
        seen: The experiment's decisions.
        experiment: As it ran; its `reward` is what the allocation learns from.
        allocation: That is judged.
        draws: See `draws_of`.
        places_D: See `arm_contexts.read_places`.

    Raises:
        ExperimentError: The allocation does not suit the number of variants or what is learned from.
    """
    metric = metric_of(experiment.reward)
    if metric.reward is not None and (reason := reward_problem(allocation, metric.reward)) is not None:
        raise ExperimentError(f"the judged allocation cannot learn: {reason}")
    judged = Experiment.parse(
        experiment.model_dump(mode="json") | {"allocation": allocation.model_dump(mode="json")}, "allocation"
    )
    knowledge = _Knowledge(allocation, metric.reward == "real", _outcomes(seen, judged, draws, places_D))
    row_D, distributions = np.empty(len(draws.first_D), np.int64), list[Sequence[float]]()
    for block in np.array_split(np.arange(len(row_D)), min(NUM_UPDATES, len(row_D))):
        posterior = knowledge.at(int(seen.shown_ms_R[draws.first_D[block[0]]]))
        known: dict[Places, int] = {}
        for d in block.tolist():
            if places_D[d] not in known:
                known[places_D[d]] = len(distributions)
                distributions.append(posterior.shares(judged, places_D[d]))
            row_D[d] = known[places_D[d]]
    return Shares(np.array(distributions), row_D[draws.draw_R], draws.first_D)


def _outcomes(
    seen: Observations, judged: Experiment, draws: Draws, places_D: Sequence[Places]
) -> Iterator[Outcome]:
    """The reward of each decision whose window has closed, in the order of closing."""
    metric = metric_of(judged.reward)
    found = measure(seen, metric)
    variant_R = seen.variant_R
    closes_ms_K = seen.shown_ms_R[found.row_K] + metric.window_of(judged.attribution_window_ms)
    for k in np.argsort(closes_ms_K, kind="stable").tolist():
        row = int(found.row_K[k])
        yield Outcome(
            judged.name, judged.variant_names[variant_R[row]], float(found.numerator_K[k]), int(closes_ms_K[k]),
            places_D[draws.draw_R[row]],
        )  # fmt: skip


class _Knowledge:
    """What the allocation knows as time goes on."""

    def __init__(self, allocation: Adaptive, is_real: bool, outcomes: Iterator[Outcome]) -> None:
        self._allocation, self._is_real, self._outcomes = allocation, is_real, outcomes
        self._totals: dict[str, float] = defaultdict(float)
        self._next = next(outcomes, None)

    def at(self, moment_ms: int) -> Posterior:
        """Of all that had closed by a moment; moments rise."""
        while self._next is not None and self._next.at_ms <= moment_ms:
            for name, value in increments(self._next, self._allocation, self._is_real):
                self._totals[name] += value
            self._totals[NEWEST] = self._next.at_ms
            self._next = next(self._outcomes, None)
        return Posterior.decode({name: repr(value) for name, value in self._totals.items()})
