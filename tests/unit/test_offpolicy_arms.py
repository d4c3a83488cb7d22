"""Other weights of an experiment's variants, judged from Parquet days: numbers by hand, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_days import START_MS, click, decision, experiment, write

from tastemaker.errors import ConfigError, ExperimentError
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.home import Home
from tastemaker.offpolicy.arms import judge_weights
from tastemaker.offpolicy.policies import JudgedPolicy

CLICKS = METRICS["clicks_per_request"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def assigned(
    home: Home, propensities: tuple[float, float] = (0.75, 0.25), of_b: tuple[float, float] | None = None
) -> Observations:
    """Of 800 visitors a quarter has b; b's are clicked half of the time on mobiles, a's always on tablets."""
    decisions, events = [], []
    for n in range(800):
        variant = "b" if n % 4 == 0 else "a"
        device = "mobile" if (n // 4) % 2 else "tablet"
        drawn_by = of_b if of_b and variant == "b" else propensities
        own = drawn_by[variant == "b"]
        decisions.append(
            decision(
                n, experiment="exp", variant=variant, epoch=0, propensity=own, propensities=list(drawn_by),
                context={"device": device}, item_ids=["x"], slot_propensity=[], slot_propensity_kind="none",
            )
        )  # fmt: skip
        if (variant, device) in {("b", "mobile"), ("a", "tablet")}:
            events.append(click(n, "x"))
    write(home, decisions, events)
    return read_observations(home, "shop", experiment(), START_MS + 100_000)


def test_weights_by_hand(home: Home) -> None:
    seen = assigned(home)
    # Either variant earns 1 on half of the devices.
    found = judge_weights(seen, experiment(), CLICKS, JudgedPolicy(weights={"b": 1.0}))
    assert {e.estimator: e.value.value for e in found.estimates}["ips"] == pytest.approx(0.5)
    assert found.headline.value.value == pytest.approx(0.5)
    assert found.support.mean_weight == pytest.approx(1.0)
    assert found.support.num_used == 200
    # Each device has what it clicks: all of it.
    where = JudgedPolicy(weights={"a": 1.0}, by="device", where={"mobile": {"b": 1.0}})
    best = judge_weights(seen, experiment(), CLICKS, where)
    assert best.headline.value.value == pytest.approx(1.0)
    assert best.headline.difference.low > 0.4
    assert best.rows == best.read == 800


def test_the_weights_of_the_experiment_are_worth_what_was_logged(home: Home) -> None:
    seen = assigned(home)
    same = judge_weights(seen, experiment(), CLICKS, JudgedPolicy(weights={"a": 0.75, "b": 0.25}))
    assert same.headline.value.value == pytest.approx(same.logged.value)
    assert same.headline.difference.value == pytest.approx(0, abs=1e-12)
    assert np.allclose([e.value.value for e in same.estimates], same.logged.value, atol=0.02)


def test_a_variant_that_nobody_could_get_is_refused(home: Home) -> None:
    seen = assigned(home, (1.0, 0.0), of_b=(0.75, 0.25))
    with pytest.raises(
        ExperimentError, match=r"gives requests to b that could never get it.*is 0.75, must be 0"
    ):
        judge_weights(seen, experiment(), CLICKS, JudgedPolicy(weights={"b": 1.0}))


def test_propensities_that_cannot_be_right_are_told(home: Home) -> None:
    # A quarter has b, and the log says a tenth.
    seen = assigned(home, (0.9, 0.1))
    found = judge_weights(seen, experiment(), CLICKS, JudgedPolicy(weights={"b": 1.0}))
    assert any("logged propensities are not those" in note for note in found.notes)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "needs weights, an allocation or stages"),
        ({"weights": {"a": 0.5}}, "weights must add up to 1, add up to 0.5"),
        ({"weights": {"a": 1.0}, "stages": {}}, "one of them"),
        ({"weights": {"a": 1.0}, "where": {"tv": {"a": 1.0}}}, "where needs by"),
        ({"weights": {"a": 1.0}, "by": "device", "where": {"tv": {"a": 0.3}}}, "tv must add up to 1"),
        ({"stages": {"until": "never"}}, "until"),
    ],
)
def test_files_that_are_no_policy(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        JudgedPolicy.parse(fields, "policy.yaml")


def test_variants_that_are_none(home: Home) -> None:
    with pytest.raises(ExperimentError, match="variant of the policy, is 'c', must be one of: a, b"):
        judge_weights(assigned(home), experiment(), CLICKS, JudgedPolicy(weights={"c": 1.0}))
    with pytest.raises(ExperimentError, match="metric coverage"):
        judge_weights(assigned(home), experiment(), METRICS["coverage"], JudgedPolicy(weights={"a": 1.0}))
