"""Off-policy estimates beside published values and beside obp's on the same arrays, their speed, and how often intervals hold the truth."""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bandits import peer_python
from offpolicy_coverage import coverage
from offpolicy_sample import SEED, Sample, read_sample
from turns import Effort, Part

from tastemaker.offpolicy import estimators
from tastemaker.offpolicy.estimators import Choices
from tastemaker.offpolicy.intervals import interval
from tastemaker.offpolicy.reward_model import expected_rewards
from tastemaker.offpolicy.slates import BELIEFS, Slates, slate_value
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Float64

PUBLISHED = {"ips": 0.004553, "direct": 0.003545, "doubly robust": 0.004727}
"""Of obp's quickstart: Bernoulli Thompson sampling judged from random choices, seed 12345."""
TAU, STRENGTH = 1.5, 2.0
NUM_LISTS, NUM_SLOTS = 2000, 3
TURNS, DRAWS = 3, 1000
OUT = Path(__file__).parent / "out"


def offpolicy(effort: Effort) -> Part:
    """All of it."""
    part = Part("Off-policy estimates", ("what", "ours", "beside", "more"))
    sample = read_sample(OUT)
    model_RA = reward_model(sample)
    _published(part, sample, model_RA)
    _peers(part, sample, model_RA)
    coverage(part, 1000 // effort.divide)
    return part


def reward_model(sample: Sample) -> Float64:
    """Expected clicks of every action, by one model for each position, cross-fitted over three parts of the rows."""
    model_RA = np.empty((len(sample.action_R), len(sample.action_AY)))
    for position in np.unique(sample.position_R):
        rows = np.flatnonzero(sample.position_R == position)
        model_RA[rows] = expected_rewards(
            sample.context_RX[rows],
            sample.action_R[rows],
            sample.reward_R[rows],
            sample.action_AY,
            rows,
            seed=SEED,
        )
    return model_RA


def _terms(choices: Choices) -> dict[str, Terms]:
    return {
        "ips": estimators.ips(choices),
        "self-normalised": estimators.self_normalised(choices),
        "direct": estimators.direct(choices),
        "doubly robust": estimators.doubly_robust(choices),
        "self-normalised doubly robust": estimators.self_normalised_doubly_robust(choices),
        "switch doubly robust": estimators.switch_doubly_robust(choices, TAU),
        "shrunk doubly robust": estimators.shrunk_doubly_robust(choices, STRENGTH),
    }


def _choices(sample: Sample, model_RA: Float64) -> Choices:
    return Choices(
        sample.action_R, sample.reward_R, sample.propensity_R, sample.policy_KA, sample.position_R, model_RA
    )


def _published(part: Part, sample: Sample, model_RA: Float64) -> None:
    terms = _terms(_choices(sample, model_RA))
    for name, published in PUBLISHED.items():
        value = terms[name].value
        off = abs(value / published - 1)
        part.rows.append(
            (f"Open Bandit sample, {name}", f"{value:.6f}", f"{published:.6f}", f"{off:.2%} off")
        )
        if name == "ips":
            part.target(
                "ips as published, to six decimals", float(round(value, 6) == published), 1.0, "higher"
            )
        else:
            part.target(f"{name}: distance to the published value", off, 0.05, "lower")
    part.figures["open_bandit"] = {name: one.value for name, one in terms.items()}


def _peers(part: Part, sample: Sample, model_RA: Float64) -> None:
    """obp on the same arrays: as dense as it wants them, which is where ours begin too."""
    num, position_R = len(sample.action_R), sample.position_R
    dense_RAK = np.tile(sample.policy_KA.T, (num, 1, 1))
    model_RAK = np.repeat(model_RA[:, :, None], len(sample.policy_KA), axis=2)
    lists = _lists()
    given = {
        "reward": sample.reward_R, "action": sample.action_R, "pscore": sample.propensity_R, "action_dist": dense_RAK,
        "position": position_R, "model": model_RAK, "tau": TAU, "strength": STRENGTH, "num_slots": NUM_SLOTS, **lists,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/arrays.npz", **given)
        run = [peer_python(), Path(__file__).with_name("offpolicy_peers.py"), f"{folder}/arrays.npz"]
        found = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)
    row_R = np.arange(num)

    def again() -> Choices:
        return Choices(
            sample.action_R, sample.reward_R, sample.propensity_R, dense_RAK[row_R, :, position_R],
            model_RA=model_RAK[row_R, :, position_R],
        )  # fmt: skip

    def values() -> dict[str, float]:
        return {name: one.value for name, one in _terms(again()).items()}

    def intervals() -> Any:
        return {name: interval(one, row_R, num_draws=DRAWS) for name, one in _terms(again()).items()}

    def of_lists() -> dict[str, float]:
        return {belief: slate_value(_slates(lists, belief), belief).value for belief in BELIEFS}

    def list_intervals() -> Any:
        cluster_S = np.arange(NUM_LISTS)
        return [interval(slate_value(_slates(lists, b), b), cluster_S, num_draws=DRAWS) for b in BELIEFS]

    jobs: dict[str, Callable[[], Any]] = {
        "values": values, "intervals": intervals, "slates": of_lists, "slate_intervals": list_intervals,
    }  # fmt: skip
    texts = {
        "values": f"7 estimates of {num:,} choices", "intervals": "intervals of 7 estimates, 1,000 draws",
        "slates": f"3 estimates of {NUM_LISTS:,} lists", "slate_intervals": "intervals of 3 estimates of lists, 1,000 draws",
    }  # fmt: skip
    for name, job in jobs.items():
        ours, seconds = _timed(job)
        theirs = found[f"{name}_seconds"]
        if name in found and name != "intervals":
            apart = max(abs(ours[one] - found[name][one]) for one in ours)
            part.target(f"{texts[name]}: largest distance to obp's", apart, 1e-9, "lower")
        ratio = theirs / seconds
        part.rows.append(
            (
                texts[name],
                f"{1e3 * seconds:.2f} ms",
                f"obp {1e3 * theirs:.2f} ms",
                f"{ratio:.1f} times as fast",
            )
        )
        part.target(f"{texts[name]}: speed against obp", ratio, 10.0, "higher")
    part.notes.append(
        "Both begin with the same dense arrays, in one thread each; the least of three turns. Our intervals are studentised and "
        "by cluster, obp's are percentiles of resampled rows."
    )


def _lists() -> dict[str, Any]:
    """Lists of random probabilities, long as obp wants them: a row a slot, with products spelled out."""
    luck = np.random.default_rng(0)
    shape = (NUM_LISTS, NUM_SLOTS)
    logged, judged = luck.uniform(0.2, 0.9, shape), luck.uniform(0.1, 0.9, shape)
    reward = (luck.random(shape) < 0.3).astype(float)
    long = {"item_position": logged, "cascade": logged.cumprod(axis=1)}
    wide = {"item_position": judged, "cascade": judged.cumprod(axis=1)}
    found = {
        "slate_id": np.repeat(np.arange(NUM_LISTS), NUM_SLOTS), "slate_position": np.tile(np.arange(NUM_SLOTS), NUM_LISTS),
        "slate_reward": reward.ravel(),
        "slate_pscore": np.repeat(logged.prod(axis=1), NUM_SLOTS),
        "slate_evaluation_policy_pscore": np.repeat(judged.prod(axis=1), NUM_SLOTS),
    }  # fmt: skip
    for name, probability in long.items():
        found[f"slate_pscore_{name}"] = probability.ravel()
        found[f"slate_evaluation_policy_pscore_{name}"] = wide[name].ravel()
    return found


def _slates(lists: dict[str, Any], belief: str) -> Slates:
    """The same lists by slot: each slot's own probability, which is what is logged."""
    del belief
    shape = (NUM_LISTS, NUM_SLOTS)
    return Slates(
        lists["slate_reward"].reshape(shape), lists["slate_pscore_item_position"].reshape(shape),
        lists["slate_evaluation_policy_pscore_item_position"].reshape(shape), np.ones(shape, bool),
    )  # fmt: skip


def _timed(job: Callable[[], Any]) -> tuple[Any, float]:
    best, found = np.inf, None
    for _ in range(TURNS):
        began = time.perf_counter()
        found = job()
        best = min(best, time.perf_counter() - began)
    return found, float(best)


PARTS = {"offpolicy": offpolicy}
