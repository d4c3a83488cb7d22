"""Estimators of lists that only newer releases of obp have: run by the Python of an environment that holds obp 0.5.7.

Reads the npz that it is given and prints JSON: values, and the least seconds of some turns.
"""

import json
import sys
import types
import warnings

import numpy as np
from offpolicy_peers import timed


def main(path):
    # obp plots with it, and imports it for estimates as well.
    sys.modules["seaborn"] = types.ModuleType("seaborn")
    from obp import ope

    with np.load(path) as arrays:
        given = dict(arrays)
    num_slots, num_actions = int(given["num_slots"]), int(given["num_actions"])
    cascade = ope.SlateCascadeDoublyRobust(len_list=num_slots, n_unique_action=num_actions)
    whole = ope.SelfNormalizedSlateStandardIPS(len_list=num_slots)
    common = {
        "slate_id": given["slate_id"],
        "reward": given["slate_reward"],
        "position": given["slate_position"],
    }

    def values():
        return {
            "cascade": cascade.estimate_policy_value(
                **common, action=given["slate_action"], pscore_cascade=given["slate_pscore_cascade"],
                evaluation_policy_pscore_cascade=given["slate_evaluation_policy_pscore_cascade"],
                q_hat=given["q_hat"], evaluation_policy_action_dist=given["action_dist"],
            ),
            "self-normalised": whole.estimate_policy_value(
                **common, pscore=given["slate_pscore"],
                evaluation_policy_pscore=given["slate_evaluation_policy_pscore"],
            ),
        }  # fmt: skip

    found = {}
    found["values"], found["values_seconds"] = timed(values)
    print(json.dumps(found, default=float))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])
