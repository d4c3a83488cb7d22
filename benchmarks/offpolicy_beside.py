"""Off-policy estimates beside obp's on the same arrays, and how long either takes.

obp 0.4.1 has the estimates of choices and three of lists; 0.5.7 those of lists that came later. Both are installed at run time into
environments under benchmarks/out.

Shape letters: R rows, A actions, K positions, S lists.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bandits import PEERS, peer_python
from offpolicy_sample import Sample
from turns import Part

from tastemaker.offpolicy import estimators
from tastemaker.offpolicy.estimators import Choices
from tastemaker.offpolicy.intervals import interval
from tastemaker.offpolicy.slates import (
    BELIEFS,
    Slates,
    SlotModel,
    doubly_robust_slate_value,
    self_normalised_slate_value,
    slate_value,
)
from tastemaker.offpolicy.terms import Terms
from tastemaker.types import Float64

TAU, STRENGTH = 1.5, 2.0
NUM_LISTS, NUM_SLOTS, NUM_ACTIONS = 2000, 3, 10
TURNS, DRAWS = 3, 1000
NEWER = PEERS.parent / "venv-obp-newer"
Jobs = dict[str, tuple[str, Callable[[], Any]]]


def terms_of(choices: Choices) -> dict[str, Terms]:
    """Every estimate of choices that obp has too."""
    return {
        "ips": estimators.ips(choices),
        "self-normalised": estimators.self_normalised(choices),
        "direct": estimators.direct(choices),
        "doubly robust": estimators.doubly_robust(choices),
        "self-normalised doubly robust": estimators.self_normalised_doubly_robust(choices),
        "switch doubly robust": estimators.switch_doubly_robust(choices, TAU),
        "shrunk doubly robust": estimators.shrunk_doubly_robust(choices, STRENGTH),
    }


def beside(part: Part, sample: Sample, model_RA: Float64) -> None:
    """obp 0.4.1 on the same arrays: as dense as it wants them, which is where ours begin too."""
    dense_RAK = np.tile(sample.policy_KA.T, (len(sample.action_R), 1, 1))
    model_RAK = np.repeat(model_RA[:, :, None], len(sample.policy_KA), axis=2)
    lists = _lists()
    given = {
        "reward": sample.reward_R, "action": sample.action_R, "pscore": sample.propensity_R, "action_dist": dense_RAK,
        "position": sample.position_R, "model": model_RAK, "tau": TAU, "strength": STRENGTH, "num_slots": NUM_SLOTS, **lists,
    }  # fmt: skip
    found = _asked(peer_python(), "offpolicy_peers.py", given)
    _compared(part, found, _of_choices(sample, dense_RAK, model_RAK) | _of_lists(_slates(lists)))
    part.notes.append(
        "Both begin with the same dense arrays, in one thread each; the least of three turns. Our intervals are studentised and "
        "by cluster, obp's are percentiles of resampled rows."
    )


def beside_newer(part: Part) -> None:
    """obp 0.5.7: Cascade-DR and the self-normalised estimate of whole lists."""
    luck, shape = np.random.default_rng(1), (NUM_LISTS, NUM_SLOTS)
    lists = _lists()
    policy_SKA = luck.dirichlet(np.ones(NUM_ACTIONS), shape)
    action_SK, model_SKA = luck.integers(NUM_ACTIONS, size=shape), luck.random((*shape, NUM_ACTIONS))
    chosen = action_SK[:, :, None]
    judged_SK = np.take_along_axis(policy_SKA, chosen, axis=2)[:, :, 0]
    lists |= {
        "slate_evaluation_policy_pscore": np.repeat(judged_SK.prod(axis=1), NUM_SLOTS),
        "slate_evaluation_policy_pscore_item_position": judged_SK.ravel(),
        "slate_evaluation_policy_pscore_cascade": judged_SK.cumprod(axis=1).ravel(),
    }
    given = lists | {
        "num_slots": NUM_SLOTS, "num_actions": NUM_ACTIONS, "slate_action": action_SK.ravel(), "q_hat": model_SKA.ravel(),
        "action_dist": policy_SKA.ravel(),
    }  # fmt: skip
    python = peer_python(NEWER, ("obp==0.5.7",))
    found = _asked(python, "offpolicy_newer_peers.py", given)

    def values() -> dict[str, float]:
        slates = _slates(lists)
        model = SlotModel(
            np.take_along_axis(model_SKA, chosen, axis=2)[:, :, 0],
            np.einsum("ska,ska->sk", policy_SKA, model_SKA),
        )
        return {
            "cascade": doubly_robust_slate_value(slates, "reward-interaction", model).value,
            "self-normalised": self_normalised_slate_value(slates, "whole-list").value,
        }

    text = f"doubly robust and self-normalised estimates of {NUM_LISTS:,} lists"
    _compared(part, found, {"values": (text, values)})


def _asked(python: Path, script: str, given: dict[str, Any]) -> dict[str, Any]:
    """What a peer's script says of arrays."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/arrays.npz", **given)
        run = [python, Path(__file__).with_name(script), f"{folder}/arrays.npz"]
        done = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _of_choices(sample: Sample, dense_RAK: Float64, model_RAK: Float64) -> Jobs:
    num, position_R = len(sample.action_R), sample.position_R
    row_R = np.arange(num)

    def choices() -> Choices:
        return Choices(
            sample.action_R, sample.reward_R, sample.propensity_R, dense_RAK[row_R, :, position_R],
            model_RA=model_RAK[row_R, :, position_R],
        )  # fmt: skip

    def values() -> dict[str, float]:
        return {name: one.value for name, one in terms_of(choices()).items()}

    def intervals() -> Any:
        return {name: interval(one, row_R, num_draws=DRAWS) for name, one in terms_of(choices()).items()}

    return {
        "values": (f"7 estimates of {num:,} choices", values),
        "intervals": ("intervals of 7 estimates, 1,000 draws", intervals),
    }


def _of_lists(slates: Slates) -> Jobs:
    def values() -> dict[str, float]:
        return {belief: slate_value(slates, belief).value for belief in BELIEFS}

    def intervals() -> Any:
        cluster_S = np.arange(NUM_LISTS)
        return [interval(slate_value(slates, belief), cluster_S, num_draws=DRAWS) for belief in BELIEFS]

    return {
        "slates": (f"3 estimates of {NUM_LISTS:,} lists", values),
        "slate_intervals": ("intervals of 3 estimates of lists, 1,000 draws", intervals),
    }


def _compared(part: Part, found: dict[str, Any], jobs: Jobs) -> None:
    """A row for each job, and its targets: the same values where there are some, in a tenth of the time."""
    for name, (text, job) in jobs.items():
        ours, seconds = _timed(job)
        theirs = found[f"{name}_seconds"]
        if name in found and name != "intervals":
            apart = max(abs(ours[one] - found[name][one]) for one in ours)
            part.target(f"{text}: largest distance to obp's", apart, 1e-9, "lower")
        ratio = theirs / seconds
        shown = (f"{1e3 * seconds:.2f} ms", f"obp {1e3 * theirs:.2f} ms", f"{ratio:.1f} times as fast")
        part.rows.append((text, *shown))
        part.target(f"{text}: speed against obp", ratio, 10.0, "higher")


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


def _slates(lists: dict[str, Any]) -> Slates:
    """The same lists by slot: each slot's own probability, which is what is logged."""
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
