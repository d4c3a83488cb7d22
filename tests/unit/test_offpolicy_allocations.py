"""Allocations that learn, judged from the log of a fixed split: what they see, what they know when, and what they are worth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_days import START_MS, WINDOW_MS, click, decision, experiment, write

from tastemaker.errors import ConfigError, ExperimentError
from tastemaker.experiments.allocation import Adaptive, LinThompson, LinUcb, Thompson
from tastemaker.experiments.assignment import Assignment
from tastemaker.experiments.definition import Fixed, Variant
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.policies.context import active_places
from tastemaker.experiments.reporting.observations import Observations, read_observations
from tastemaker.home import Home
from tastemaker.offpolicy.allocations import draws_of, judge_allocation, learned_shares
from tastemaker.offpolicy.arm_contexts import read_places
from tastemaker.offpolicy.policies import JudgedPolicy

CLICKS = METRICS["clicks_per_request"]
NUM, STEP_MS = 1200, 1000
ON_DEVICE = LinUcb(features=("device",), exploration=0.1, epoch_seconds=60, floor=0.1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def one(n: int, variant: str, device: str, **fields: Any) -> Any:
    asked = {"user_id": "nobody", "context": {"device": device, "local_time": "2026-11-26T09:30:00"}}
    at_ms = START_MS + n * STEP_MS
    return decision(
        n * STEP_MS, request_id=f"r{n}", timestamp_ms=at_ms, unit=f"u{n // 2}", user_id=f"u{n // 2}",
        experiment="exp", variant=variant, epoch=0, propensity=0.5, propensities=[0.5, 0.5], item_ids=["x"],
        slot_propensity=[], slot_propensity_kind="none", request=json.dumps(asked), **fields,
    )  # fmt: skip


def logged(home: Home, clicked_until: int = NUM, **fields: Any) -> Observations:
    """Each variant is clicked on its device: b on mobiles, a on desktops. Visitors ask twice, and keep variant and device."""
    decisions, events = [], []
    for n in range(NUM):
        visitor = n // 2
        variant, device = "ab"[visitor % 2], ("desktop", "mobile")[visitor // 2 % 2]
        decisions.append(one(n, variant, device, **fields))
        if ((variant == "b") == (device == "mobile")) and n < clicked_until:
            events.append(click(n * STEP_MS, "x", request_id=f"r{n}", user_id=f"u{visitor}"))
    write(home, decisions, events)
    return read_observations(home, "shop", experiment(), START_MS + 10 * NUM * STEP_MS)


def shares_of(home: Home, seen: Observations, allocation: Adaptive) -> np.ndarray:
    """The share of variant b at each decision, (R,)."""
    draws = draws_of(seen, allocation)
    places = read_places(home, "shop", seen, experiment(), allocation, draws.first_D)
    shares = learned_shares(seen, experiment(), allocation, draws, places)
    return shares.weight_PV[shares.row_R, 1]


@pytest.mark.parametrize(
    "allocation",
    [ON_DEVICE, LinThompson(features=("device", "hour"), deviation=0.5, epoch_seconds=60, floor=0.1)],
)
def test_what_is_best_by_context_is_learned_and_worth_it(home: Home, allocation: Adaptive) -> None:
    seen = logged(home)
    found = judge_allocation(home, "shop", seen, experiment(), CLICKS, allocation, least_effective=50)
    assert found.logged.value == pytest.approx(0.5)
    assert 0.8 < found.headline.value.value < 0.92  # the floor takes .1, learning some more
    assert found.headline.difference.low > 0.2
    share_R = shares_of(home, seen, allocation)
    assert share_R[0] == pytest.approx(0.5)
    assert (
        share_R[-200:][seen.device_R[-200:] == ""].tolist() == share_R[-200:].tolist()
    )  # the request alone says it
    mobile_R = np.array([(n // 4) % 2 == 1 for n in range(NUM)])
    assert share_R[-200:][mobile_R[-200:]].min() > 0.85
    assert share_R[-200:][~mobile_R[-200:]].max() < 0.15


def test_without_context_nothing_can_be_told_apart(home: Home) -> None:
    found = judge_allocation(
        home, "shop", logged(home), experiment(), CLICKS, Thompson(epoch_seconds=60), least_effective=50
    )
    assert found.headline.value.low < 0.5 < found.headline.value.high


def test_shares_depend_on_what_had_closed_by_then_alone(home: Home, tmp_path: Path) -> None:
    allocation = LinThompson(features=("device",), deviation=0.5, epoch_seconds=60)
    every = shares_of(home, logged(home), allocation)
    other = Home.make(tmp_path / "other")
    silent = shares_of(other, logged(other, clicked_until=60), allocation)
    known = 60 + WINDOW_MS // STEP_MS
    assert silent[:known] == pytest.approx(every[:known])
    assert np.abs(silent - every).max() > 0.01


def test_a_unit_keeps_its_draw_for_an_epoch(home: Home) -> None:
    seen = logged(home)
    draws = draws_of(seen, Thompson(epoch_seconds=3600))
    assert len(draws.first_D) == len(np.unique(seen.unit_R)) + _crossing(seen, 3_600_000)
    assert (np.diff(seen.shown_ms_R[draws.first_D]) >= 0).all()
    assert (seen.unit_R[draws.first_D[draws.draw_R]] == seen.unit_R).all()
    assert (seen.shown_ms_R[draws.first_D[draws.draw_R]] <= seen.shown_ms_R).all()


def _crossing(seen: Observations, epoch_ms: int) -> int:
    """Visitors whose two requests lie in two epochs."""
    epoch_R = seen.timestamp_ms_R // epoch_ms
    return sum(len(np.unique(epoch_R[seen.unit_R == unit])) - 1 for unit in np.unique(seen.unit_R))


def test_places_that_were_logged_are_taken(home: Home) -> None:
    drawn = Assignment("exp", "a", "champion", 0.5, (0.5, 0.5), "lin-ucb-1", "h", arm_context=(0, 5))
    seen = logged(home, assignments=[drawn.logged()])
    row_D = np.array([0, 3])
    ran = experiment(allocation=ON_DEVICE)
    assert read_places(home, "shop", seen, ran, ON_DEVICE, row_D) == [(0, 5), (0, 5)]
    # Another dimension: they are made of what was asked.
    wider = ON_DEVICE.model_copy(update={"dimension": 32})
    made = active_places({"device": "desktop"}, ("device",), 32)
    assert read_places(home, "shop", seen, ran, wider, row_D) == [made, made]
    assert read_places(home, "shop", seen, ran, Thompson(), row_D) == [(), ()]


def test_what_the_log_does_not_have_is_refused(home: Home) -> None:
    seen = logged(home)
    with pytest.raises(
        ExperimentError, match=r"feature of the allocation, is 'user', must be device, country or hour"
    ):
        judge_allocation(home, "shop", seen, experiment(), CLICKS, LinUcb())
    with pytest.raises(ExperimentError, match=r"metric conversion of an allocation, is 'per unit'"):
        judge_allocation(home, "shop", seen, experiment(), METRICS["conversion"], ON_DEVICE)
    with pytest.raises(
        ExperimentError, match=r"allocation.reward is real, but the metric to learn from is binary"
    ):
        judge_allocation(home, "shop", seen, experiment(), CLICKS, Thompson(reward="real"))
    three = experiment(
        variants=tuple(Variant(name=name, alias="champion") for name in "abc"),
        allocation=Fixed(weights=(0.4, 0.3, 0.3)),
    )
    draws = draws_of(seen, Thompson())
    with pytest.raises(ConfigError, match="floor must be at most 1/3"):
        learned_shares(seen, three, Thompson(floor=0.5), draws, [()] * len(seen))


def test_a_file_that_does_not_say_how_context_is_encoded_is_judged_as_the_log_encoded_it(home: Home) -> None:
    """A request does not say who was new, so that this can be judged by what was logged alone."""
    drawn = Assignment("exp", "a", "champion", 0.5, (0.5, 0.5), "lin-ucb-1", "h", arm_context=(0, 5))
    seen = logged(home, assignments=[drawn.logged()])
    judged = LinUcb(features=("device", "user"), epoch_seconds=60)
    ran = experiment(allocation=judged.model_copy(update={"encoding": 1}))
    found = judge_allocation(home, "shop", seen, ran, CLICKS, judged)
    assert found.estimates
    said = LinUcb(features=("device", "user"), epoch_seconds=60, encoding=2)
    with pytest.raises(ExperimentError, match="the same features, dimension, encoding and epoch"):
        judge_allocation(home, "shop", seen, ran, CLICKS, said)


def test_a_log_without_what_was_asked_is_refused(home: Home) -> None:
    write(home, [one(n, "ab"[n % 2], "tv") if n else decision(0, experiment="exp", variant="a", epoch=0,
          propensity=0.5, propensities=[0.5, 0.5], request="") for n in range(40)], [])  # fmt: skip
    seen = read_observations(home, "shop", experiment(), START_MS + 10 * NUM * STEP_MS)
    with pytest.raises(ExperimentError, match=r"whose context was recorded, is '\d+ of \d+', must be all"):
        judge_allocation(home, "shop", seen, experiment(), CLICKS, ON_DEVICE)


def test_a_file_spells_out_a_bandit() -> None:
    found = JudgedPolicy.parse({"allocation": {"kind": "lin-ucb", "features": ["device"]}}, "policy.yaml")
    assert found.allocation == LinUcb(features=("device",))
    with pytest.raises(ConfigError, match="fixed"):
        JudgedPolicy.parse({"allocation": {"kind": "fixed", "weights": [1.0]}}, "policy.yaml")
    with pytest.raises(ConfigError, match="one of them"):
        JudgedPolicy.parse({"allocation": {"kind": "thompson"}, "weights": {"a": 1.0}}, "policy.yaml")
