"""How often intervals from a decision log of ours hold the truth: worlds whose worth is known, run anew with other visitors and luck."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import offpolicy_world as world
from turns import Part

from tastemaker.errors import ExperimentError
from tastemaker.events.archive import write_days
from tastemaker.experiments.allocation import LinThompson, Thompson
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.policies.context import active_places
from tastemaker.experiments.reporting.observations import read_observations
from tastemaker.home import Home
from tastemaker.offpolicy.allocations import draws_of, learned_shares
from tastemaker.offpolicy.arm_contexts import read_places
from tastemaker.offpolicy.arms import judge_shares, judge_weights
from tastemaker.offpolicy.intervals import Interval
from tastemaker.offpolicy.judgement import Judgement
from tastemaker.offpolicy.lists import judge_lists
from tastemaker.offpolicy.logged_lists import LoggedLists, lists_of
from tastemaker.offpolicy.policies import JudgedPolicy
from tastemaker.offpolicy.slot_chances import slot_chances
from tastemaker.offpolicy.support import LEAST_EFFECTIVE

CLICKS = METRICS["clicks_per_request"]
WEIGHTS = np.array([0.1, 0.2, 0.7])
MEAN = 0.3
_WORLD = world.World(0)
_EXPERIMENT = Experiment(
    name="coverage", hypothesis="none", salt="s",
    variants=tuple(Variant(name=name, alias="champion") for name in world.VARIANTS),
    allocation=Thompson(floor=0.1),
)  # fmt: skip
_BANDIT = LinThompson(features=("device",), epoch_seconds=7200, floor=0.1, deviation=0.5)
_MODELLED = ("direct",)
"""As right as its model, which interval and truth do not know."""
UNBIASED_ERRORS = 3.5
"""How many of its standard errors the mean of unbiased estimates may lie off."""


class Run(NamedTuple):
    """The truth of one log, and the intervals of each estimator, none where the log was refused."""

    truth: float
    found: Mapping[str, Interval]


def coverage(part: Part, num_runs: int) -> None:
    """Judges lists, slots, weights of variants and an allocation in `num_runs` runs each."""
    for name, judge in (
        ("other lists", judge_drawn), ("slots by themselves", judge_slots),
        ("other weights of a bandit's variants", judge_arms), ("a bandit on context", judge_bandit),
    ):  # fmt: skip
        runs = _judged(judge, num_runs)
        for estimator in dict.fromkeys(one for run in runs for one in run.found):
            _told(part, f"{name}, {estimator}", [(run.truth, run.found.get(estimator)) for run in runs])


def _told(part: Part, name: str, runs: Sequence[tuple[float, Interval | None]]) -> None:
    """A row and targets for one estimator; a refusal counts against it."""
    held = [one is not None and one.low <= truth <= one.high for truth, one in runs]
    off = [one.value - truth for truth, one in runs if one is not None]
    widths = [one.high - one.low for _, one in runs if one is not None]
    share, bias, error = float(np.mean(held)), float(np.mean(off)), float(np.std(off) / np.sqrt(len(off)))
    truth = float(np.mean([truth for truth, _ in runs]))
    part.rows.append(
        (f"{len(runs):,} logs, {name}: truth held", f"{share:.1%}", "95%",
         f"truth {truth:.4f}, bias {bias:+.4f} ({bias / error:+.1f} standard errors), mean width {np.mean(widths):.4f}")
    )  # fmt: skip
    part.target(f"{name}: share of 95% intervals that hold the truth, at least", share, 0.93, "higher")
    part.target(f"{name}: share of 95% intervals that hold the truth, at most", share, 0.97, "lower")
    if "self-normalised" not in name and "direct" not in name:
        part.target(f"{name}: bias in standard errors", abs(bias / error), UNBIASED_ERRORS, "lower")


def _judged(judge: Callable[[int], Run], num_runs: int) -> list[Run]:
    """All runs, on all cores."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        return list(pool.map(judge, range(num_runs), chunksize=10))


def _run(truth: float, judge: Callable[[], Judgement], *unasked: str) -> Run:
    try:
        found = {one.estimator: one.value for one in judge().estimates if one.estimator not in unasked}
    except ExperimentError:
        found = {}
    return Run(truth, found)


def judge_drawn(seed: int) -> Run:
    """Three slots that are shuffled or sampled; another order is judged."""
    _, lists, judged = _drawn(seed)
    return _run(_WORLD.worth(), lambda: judge_lists(lists, judged, CLICKS, seed=seed))


def judge_slots(seed: int) -> Run:
    """The same, slot by slot."""
    kinds, lists, judged = _drawn(seed)
    draws = [_WORLD.draw(kind) for kind in kinds]
    chances = slot_chances(lists, judged, draws, {"b": _WORLD})
    return _run(
        _WORLD.worth(),
        lambda: judge_lists(lists, judged, CLICKS, belief="item-position", chances=chances, seed=seed),
    )


def _drawn(seed: int) -> tuple[list[int], LoggedLists, list[list[str]]]:
    """Kinds of the requests, what was shown, and what is judged."""
    log = _WORLD.run(seed, num_visitors=240)
    lists = lists_of(log.decisions, log.events, CLICKS, world.NOW_MS, world.WINDOW_MS)
    kinds = log.kind_R.tolist()
    return kinds, lists, [_WORLD.items(kind, _WORLD.judged(kind)) for kind in kinds]


def judge_arms(seed: int) -> Run:
    """A bandit's log judged for other weights, through the Parquet days of a home, as a report reads them."""
    policy = JudgedPolicy(weights=dict(zip(world.VARIANTS, WEIGHTS.tolist(), strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        home = _home(Path(folder), world.arms_run(seed, _EXPERIMENT.name, num_visitors=160, mean=MEAN))
        seen = read_observations(home, "default", _EXPERIMENT, world.NOW_MS)
    truth = world.arms_worth(WEIGHTS, MEAN)
    return _run(truth, lambda: judge_weights(seen, _EXPERIMENT, CLICKS, policy, seed=seed), *_MODELLED)


def judge_bandit(seed: int) -> Run:
    """The same log, where devices differ, judged for a bandit that looks at them; its worth is that of the shares that it gave."""
    log = world.arms_run(seed, _EXPERIMENT.name, num_visitors=160, mean=MEAN, by_device=True)
    with tempfile.TemporaryDirectory() as folder:
        home = _home(Path(folder), log)
        seen = read_observations(home, "default", _EXPERIMENT, world.NOW_MS)
        draws = draws_of(seen, _BANDIT)
        places_D = read_places(home, "default", seen, _EXPERIMENT, _BANDIT, draws.first_D)
    shares = learned_shares(seen, _EXPERIMENT, _BANDIT, draws, places_D)
    place_R = np.array([places_D[draw] for draw in draws.draw_R.tolist()])[:, -1]
    of_device = [
        active_places({"device": name}, ("device",), _BANDIT.dimension)[-1] for name in world.DEVICES
    ]
    share_RV = shares.weight_PV[shares.row_R]
    share_DV = np.stack([share_RV[place_R == place].mean(axis=0) for place in of_device])
    return _run(
        world.by_device_worth(share_DV, MEAN),
        lambda: judge_shares(
            seen,
            _EXPERIMENT,
            CLICKS,
            shares,
            name="bandit",
            level=0.95,
            least_effective=LEAST_EFFECTIVE,
            seed=seed,
        ),
        *_MODELLED,
    )


def _home(folder: Path, log: world.Log) -> Home:
    home = Home.make(folder / "home")
    write_days(home / "decisions" / "default", log.decisions)
    write_days(home / "events" / "default", log.events)
    return home
