"""How often intervals from a decision log of ours hold the truth: worlds whose worth is known, run anew with other visitors and luck."""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import offpolicy_world as world
from turns import Part

from tastemaker.errors import ExperimentError
from tastemaker.events.archive import write_days
from tastemaker.experiments.definition import Experiment, Thompson, Variant
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.reporting.observations import read_observations
from tastemaker.home import Home
from tastemaker.offpolicy.arms import judge_weights
from tastemaker.offpolicy.intervals import Interval
from tastemaker.offpolicy.judgement import Judgement
from tastemaker.offpolicy.lists import judge_lists
from tastemaker.offpolicy.logged_lists import lists_of
from tastemaker.offpolicy.policies import JudgedPolicy

CLICKS = METRICS["clicks_per_request"]
WEIGHTS = np.array([0.1, 0.2, 0.7])
MEAN = 0.3
_WORLD = world.World(0)
_EXPERIMENT = Experiment(
    name="coverage", hypothesis="none", salt="s",
    variants=tuple(Variant(name=name, alias="champion") for name in world.VARIANTS),
    allocation=Thompson(floor=0.1),
)  # fmt: skip


def coverage(part: Part, num_runs: int) -> None:
    """Judges lists and weights of variants in `num_runs` runs each."""
    for name, truth, judge in (
        ("other lists", _WORLD.worth(), judge_drawn),
        ("other weights of a bandit's variants", world.arms_worth(WEIGHTS, MEAN), judge_arms),
    ):
        found = _judged(judge, num_runs)
        held = [
            one is not None and one.low <= truth <= one.high for one in found
        ]  # a refusal counts against us
        values = [one.value for one in found if one is not None]
        widths = [one.high - one.low for one in found if one is not None]
        share = float(np.mean(held))
        part.rows.append(
            (f"{num_runs:,} logs judged for {name}: truth held", f"{share:.1%}", "95%",
             f"truth {truth:.4f}, mean estimate {np.mean(values):.4f}, mean width {np.mean(widths):.4f}")
        )  # fmt: skip
        part.target(f"{name}: share of 95% intervals that hold the truth, at least", share, 0.93, "higher")
        part.target(f"{name}: share of 95% intervals that hold the truth, at most", share, 0.97, "lower")


def _judged(judge: Callable[[int], Judgement], num_runs: int) -> list[Interval | None]:
    """The main estimate of each run, on all cores; None where the log did not support one."""
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        return list(pool.map(partial(_headline, judge), range(num_runs), chunksize=10))


def _headline(judge: Callable[[int], Judgement], seed: int) -> Interval | None:
    try:
        return judge(seed).headline.value
    except ExperimentError:
        return None


def judge_drawn(seed: int) -> Judgement:
    """Three slots that are shuffled or sampled; another order is judged."""
    log = _WORLD.run(seed, num_visitors=240)
    lists = lists_of(log.decisions, log.events, CLICKS, world.NOW_MS, world.WINDOW_MS)
    judged = [_WORLD.items(kind, _WORLD.judged(kind)) for kind in log.kind_R.tolist()]
    return judge_lists(lists, judged, CLICKS, seed=seed)


def judge_arms(seed: int) -> Judgement:
    """A bandit's log judged for other weights, through the Parquet days of a home, as a report reads them."""
    log = world.arms_run(seed, _EXPERIMENT.name, num_visitors=160, mean=MEAN)
    policy = JudgedPolicy(weights=dict(zip(world.VARIANTS, WEIGHTS.tolist(), strict=True)))
    with tempfile.TemporaryDirectory() as folder:
        home = Home.make(Path(folder) / "home")
        write_days(home / "decisions" / "default", log.decisions)
        write_days(home / "events" / "default", log.events)
        seen = read_observations(home, "default", _EXPERIMENT, world.NOW_MS)
    return judge_weights(seen, _EXPERIMENT, CLICKS, policy, seed=seed)
