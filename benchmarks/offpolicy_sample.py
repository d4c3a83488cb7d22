"""The sample of the Open Bandit Dataset that the wheel of obp carries [Saito et al. 2021], read as obp's quickstart does.

Ten thousand fashion items shown at random in three positions, and the priors of the Bernoulli Thompson sampling that ran in
production. Fetched at run time; nothing of it lies in this repository.

Shape letters: R rows, A actions, K positions, X context features, Y action features.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tastemaker.config_sources import read_yaml
from tastemaker.data.downloads import Download, fetch
from tastemaker.home import Home
from tastemaker.types import Float64, Int64

REQUIREMENT = "obp==0.4.1"
_SHA256 = "87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208"
_LICENCE = (
    "By ZOZO Technologies, Inc.: Apache License 2.0 as part of obp; see https://research.zozo.com/data.html"
)
_LOG = Download(
    "open-bandit", REQUIREMENT, _SHA256, "obp/dataset/obd/random/all", "10,000 random choices", _LICENCE
)
_PRIORS = Download(
    "open-bandit-priors", REQUIREMENT, _SHA256, "obp/policy/conf", "priors of a policy", _LICENCE
)
SEED = 12345
NUM_DRAWS = 100_000
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Sample:
    """The log, and the probability of each action in each position under Bernoulli Thompson sampling."""

    action_R: Int64
    position_R: Int64
    reward_R: Float64
    propensity_R: Float64
    context_RX: Float64
    action_AY: Float64
    policy_KA: Float64


def read_sample(folder: Path) -> Sample:
    """The sample, fetched into a home of its own below `folder` where it is not there yet."""
    home = Home.make(folder / "open-bandit")
    for download in (_LOG, _PRIORS):
        fetch(download, home, home / "downloads" / download.name)
    log = pd.read_csv(home / "downloads" / _LOG.name / "all.csv", index_col=0)
    items = pd.read_csv(home / "downloads" / _LOG.name / "item_context.csv", index_col=0)
    priors = read_yaml(home / "downloads" / _PRIORS.name / "prior_bts.yaml")["all"]
    log = log.sort_values("timestamp", kind="stable")
    users = log.loc[:, log.columns.str.contains("user_feature")]
    named = [name for name in items if name != "item_feature_0"]
    codes = [np.unique(items[name], return_inverse=True)[1] for name in named]
    return Sample(
        log["item_id"].to_numpy(np.int64),
        log["position"].to_numpy(np.int64) - 1,
        log["click"].to_numpy(np.float64),
        log["propensity_score"].to_numpy(np.float64),
        pd.get_dummies(users, drop_first=True).to_numpy(np.float64),
        np.column_stack([*codes, items["item_feature_0"]]).astype(np.float64),
        thompson(np.array(priors["alpha"]), np.array(priors["beta"]), int(log["position"].max())),
    )


def thompson(alpha_A: Float64, beta_A: Float64, num_positions: int) -> Float64:
    """How often each action stands in each position of lists sorted by draws of Beta posteriors, (K, A): by Monte Carlo."""
    luck = np.random.RandomState(SEED)
    counts = np.zeros((num_positions, len(alpha_A)))
    for _ in range(0, NUM_DRAWS, _AT_ONCE):
        drawn = luck.beta(alpha_A, beta_A, size=(_AT_ONCE, len(alpha_A)))
        best = drawn.argsort(axis=1)[:, ::-1]
        for position in range(num_positions):
            counts[position] += np.bincount(best[:, position], minlength=len(alpha_A))
    return counts / NUM_DRAWS
