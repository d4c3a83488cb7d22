"""The report of the holdout: who counts, what is compared, and what is said, on logs whose truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_log import CATALOGUE, DAY_MS, START_MS, decision, event, write

from tastemaker.errors import ExperimentError
from tastemaker.events.log import Entry
from tastemaker.experiments.holdout import Holdout
from tastemaker.experiments.metrics import METRICS
from tastemaker.experiments.reporting.held_out import build_holdout_report
from tastemaker.experiments.reporting.report import ExperimentReport
from tastemaker.home import Home

HOLDOUT = Holdout(share=0.25, salt="h")
LATER_MS = START_MS + 20 * DAY_MS
USERS = [f"u{n}" for n in range(4000)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def answer(user: str, at_ms: int = 0, **fields: Any) -> Entry:
    """One of no experiment."""
    nothing = {"experiment": None, "propensity": None, "propensities": (), "epoch": None}
    variant = fields.pop("variant", None)
    told = nothing | {"origin": "live", "user_id": user} | fields
    return decision(f"r-{user}-{at_ms}", told.pop("unit", user), variant, at_ms, **told)


def report(home: Home, since_ms: int = START_MS, **fields: Any) -> ExperimentReport:
    return build_holdout_report(home, CATALOGUE, HOLDOUT, since_ms, now_ms=LATER_MS, **fields)


def test_users_are_told_apart_by_the_hash_whatever_they_got(home: Home) -> None:
    held = [user for user in USERS if HOLDOUT.holds(user)]
    free = [user for user in USERS if not HOLDOUT.holds(user)]
    answers = [
        answer(held[0], held_out=True), answer(held[1]),  # the second while experiments could not be read
        answer(free[0]), answer(free[1], experiment="exp", variant="b", propensity=0.5, propensities=(0.5, 0.5), unit="visit-1"),
        answer(free[2], forced_variants=["exp=b"]), answer(held[2], forced_variants=["exp=b"]),  # testers
        answer(free[3], at_ms=-1), answer(free[4], shadow_of="x"), answer(free[5], origin="simulator"),
    ]  # fmt: skip
    clicks = [event(f"r-{user}-0", "x", 10, user_id=user, origin="live") for user in (held[1], free[1])]
    write(home, answers, clicks)
    found = report(home)
    holdout, everyone = found.variants
    assert (holdout.name, holdout.units, holdout.requests, holdout.clicks) == ("holdout", 2, 2, 1)
    assert (everyone.name, everyone.units, everyone.requests, everyone.clicks) == ("everyone-else", 2, 2, 1)
    assert {metric.name for metric in found.metrics} == METRICS.keys()
    assert report(home, origin="simulator").units == 1


def simulated(home: Home, lift: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    answers, clicks = [], []
    for n, user in enumerate(USERS[:1500]):
        for visit in range(2):
            at_ms = int(generator.integers(8 * DAY_MS))
            answers.append(answer(user, at_ms))
            if generator.random() < 0.2 * (1 if HOLDOUT.holds(user) else 1 + lift):
                clicks.append(
                    event(
                        f"r-{user}-{at_ms}",
                        "x",
                        at_ms + 9,
                        event_id=f"c{n}-{visit}",
                        user_id=user,
                        origin="live",
                    )
                )
    write(home, answers, clicks)


@pytest.mark.parametrize(("lift", "verdict", "said"), [(1.0, "keep running", "experiments together help: everyone-else is better than the holdout"), (-0.7, "stop", "experiments together harm, see which do: everyone-else is worse than the holdout"), (0.0, "keep running", "nothing is certain yet")])  # fmt: skip
def test_a_known_difference_is_found_and_said(home: Home, lift: float, verdict: str, said: str) -> None:
    simulated(home, lift, seed=3)
    found = report(home)
    (one,) = found.lifts
    assert one.low is not None
    assert one.high is not None
    assert one.low < lift < one.high
    assert not found.srm_alarm
    assert found.advice.verdict == verdict
    assert said in found.advice.reason


def test_users_that_the_log_lost_are_noticed(home: Home) -> None:
    write(home, [answer(user) for n, user in enumerate(USERS) if not HOLDOUT.holds(user) or n % 2])
    found = report(home)
    assert found.srm_alarm
    assert found.advice.verdict == "look at SRM first"


def test_without_a_holdout_there_is_nothing_to_compare(home: Home) -> None:
    with pytest.raises(
        ExperimentError,
        match="share of the holdout, is 0, must be above 0: set it by `tastemaker experiment holdout",
    ):
        build_holdout_report(home, CATALOGUE, Holdout(), 0)
