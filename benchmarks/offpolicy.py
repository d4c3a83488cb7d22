"""Off-policy estimates beside published values and beside obp's on the same arrays, their speed, and how often intervals hold the truth."""

from pathlib import Path

import numpy as np
from offpolicy_beside import beside, beside_newer, terms_of
from offpolicy_coverage import coverage
from offpolicy_sample import SEED, Sample, read_sample
from turns import Effort, Part

from tastemaker.offpolicy.estimators import Choices
from tastemaker.offpolicy.reward_model import expected_rewards
from tastemaker.types import Float64

PUBLISHED = {"ips": 0.004553, "direct": 0.003545, "doubly robust": 0.004727}
"""Of obp's quickstart: Bernoulli Thompson sampling judged from random choices, seed 12345."""
OUT = Path(__file__).parent / "out"


def offpolicy(effort: Effort) -> Part:
    """All of it."""
    part = Part("Off-policy estimates", ("what", "ours", "beside", "more"))
    sample = read_sample(OUT)
    model_RA = reward_model(sample)
    _published(part, sample, model_RA)
    beside(part, sample, model_RA)
    beside_newer(part)
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


def _published(part: Part, sample: Sample, model_RA: Float64) -> None:
    choices = Choices(
        sample.action_R, sample.reward_R, sample.propensity_R, sample.policy_KA, sample.position_R, model_RA
    )
    terms = terms_of(choices)
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
