"""obp's estimators on arrays of ours, and how long they take: run by the Python of an environment that holds obp.

Reads the npz that it is given and prints JSON: values, intervals, and the least seconds of some turns for each.
"""

import json
import sys
import time
import types
import warnings

import numpy as np

TURNS = 3
DRAWS = 1000


def timed(job):
    best, found = np.inf, None
    for _ in range(TURNS):
        began = time.perf_counter()
        found = job()
        best = min(best, time.perf_counter() - began)
    return found, best


def main(path):
    # obp plots with it, and imports it for estimates as well.
    sys.modules["seaborn"] = types.ModuleType("seaborn")
    from obp import ope

    with np.load(path) as arrays:
        given = dict(arrays)
    single = {
        "ips": (ope.InverseProbabilityWeighting(), False),
        "self-normalised": (ope.SelfNormalizedInverseProbabilityWeighting(), False),
        "direct": (ope.DirectMethod(), True),
        "doubly robust": (ope.DoublyRobust(), True),
        "self-normalised doubly robust": (ope.SelfNormalizedDoublyRobust(), True),
        "switch doubly robust": (ope.SwitchDoublyRobust(tau=float(given["tau"])), True),
        "shrunk doubly robust": (ope.DoublyRobustWithShrinkage(lambda_=float(given["strength"])), True),
    }
    common = {name: given[name] for name in ("reward", "action", "pscore", "action_dist", "position")}
    model = {"estimated_rewards_by_reg_model": given["model"]}

    def values():
        return {
            n: float(e.estimate_policy_value(**common, **(model if m else {})))
            for n, (e, m) in single.items()
        }

    def intervals():
        options = {"n_bootstrap_samples": DRAWS, "random_state": 1}
        return {
            n: e.estimate_interval(**common, **(model if m else {}), **options)
            for n, (e, m) in single.items()
        }

    slates = {
        "whole-list": ope.SlateStandardIPS(len_list=int(given["num_slots"])),
        "reward-interaction": ope.SlateRewardInteractionIPS(len_list=int(given["num_slots"])),
        "item-position": ope.SlateIndependentIPS(len_list=int(given["num_slots"])),
    }
    names = {
        "whole-list": ("pscore", "evaluation_policy_pscore"),
        "reward-interaction": ("pscore_cascade", "evaluation_policy_pscore_cascade"),
        "item-position": ("pscore_item_position", "evaluation_policy_pscore_item_position"),
    }

    def lists(method, **options):
        found = {}
        for name, estimator in slates.items():
            logged, judged = names[name]
            found[name] = getattr(estimator, method)(
                slate_id=given["slate_id"], reward=given["slate_reward"], position=given["slate_position"],
                **{logged: given[f"slate_{logged}"], judged: given[f"slate_{judged}"]}, **options,
            )  # fmt: skip
        return found

    found = {}
    found["values"], found["values_seconds"] = timed(values)
    found["intervals"], found["intervals_seconds"] = timed(intervals)
    found["slates"], found["slates_seconds"] = timed(lambda: lists("estimate_policy_value"))
    began = time.perf_counter()
    lists("estimate_interval", n_bootstrap_samples=DRAWS, random_state=1)
    found["slate_intervals_seconds"] = time.perf_counter() - began
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
