"""Lists of one variant alone, as a split that stays dealt them: numbers by hand, what is left out, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from judged_days import START_MS, WINDOW_MS, click, decision, experiment, write

from tastemaker.errors import ExperimentError
from tastemaker.experiments.allocation import LinThompson, Thompson
from tastemaker.experiments.definition import Course, Experiment
from tastemaker.experiments.metrics import METRICS
from tastemaker.home import Home
from tastemaker.offpolicy.dealt import DealtLists
from tastemaker.offpolicy.lists import judge_lists
from tastemaker.offpolicy.logged_lists import LoggedLists, read_lists

CLICKS = METRICS["clicks_per_request"]
OF_A = {"experiment": "exp", "variant": "a", "epoch": 0, "propensity": 0.5, "propensities": (0.5, 0.5)}
OF_B = OF_A | {"variant": "b"}
FORCED = {"forced_variants": ("exp=a",)}
OTHERS = "were of no or another variant than variant a of experiment exp"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def read(home: Home, of: Experiment | None, variant: str = "a") -> LoggedLists:
    return read_lists(
        home, "shop", CLICKS, origin="live", since_ms=START_MS, until_ms=START_MS + 10_000, now_ms=START_MS + 100_000,
        window_ms=WINDOW_MS, dealt=None if of is None else DealtLists.of(of, variant, "live"),
    )  # fmt: skip


def in_second_layer(variant: str) -> dict[str, Any]:
    """An answer that is in experiment one of the default layer and in exp of another."""
    kept = {"unit": "u", "epoch": 0, "propensities": [0.5, 0.5]}
    texts = [
        json.dumps({"layer": "default", "experiment": "one", "variant": "b", **kept}),
        json.dumps({"layer": "rest", "experiment": "exp", "variant": variant, **kept}),
    ]
    return {"experiment": "one", "variant": "b", "assignments": texts}


def test_a_variant_is_judged_from_and_compared_with_its_own_lists(home: Home) -> None:
    """400 lists of a: even luck puts y first in half, where it is clicked. 400 of b, always x y: x is clicked in each. 100 forced."""
    decisions, events = [], []
    for n in range(400):
        items = ["x", "y"] if n % 2 else ["y", "x"]
        decisions.append(decision(n, item_ids=items, slot_propensity=[0.5, 1.0], **OF_A))
        decisions.append(decision(400 + n, slot_propensity=[1.0, 1.0], **OF_B))
        events += [click(n, "y")] * (n % 2 == 0) + [click(400 + n, "x")]
    for n in range(800, 900):
        decisions.append(decision(n, item_ids=["y", "x"], **FORCED))
    write(home, decisions, events)
    logged = read(home, experiment())
    assert (len(logged), logged.num_read) == (400, 900)
    assert {reason: count for reason, count in logged.left_out.items() if count} == {
        "were forced for testers": 100,
        OTHERS: 400,
    }
    found = judge_lists(logged, [["y", "x"]] * 400, CLICKS)
    # Half of a's lists agree, weigh 2 and earned 1: 1. It is compared with a's own 200 / 400, not with all traffic's 600 / 900.
    assert found.logged.value == pytest.approx(0.5)
    values = {one.estimator: one.value.value for one in found.estimates}
    assert values["reward interaction"] == pytest.approx(1.0)
    assert found.headline.difference.value == pytest.approx(0.5, abs=0.01)  # folds differ
    everybody = read(home, None)
    assert len(everybody) == 900
    assert everybody.reward_SK.sum() / 900 == pytest.approx(600 / 900)


def test_assignments_of_other_layers_count(home: Home) -> None:
    write(home, [decision(0, **in_second_layer("a")), decision(1, **in_second_layer("b")), decision(2)], [])
    found = read(home, experiment())
    assert found.decisions["decision_id"].to_pylist() == ["d0"]
    assert found.left_out[OTHERS] == 2


def test_answers_before_units_were_assigned_as_now_are_left_out(home: Home) -> None:
    write(home, [decision(n, **OF_A) for n in range(6)], [])
    again = experiment(course=Course(started_ms=START_MS, reassigned_ms=START_MS + 4, generation=1))
    found = read(home, again)
    assert found.decisions["decision_id"].to_pylist() == ["d4", "d5"]
    assert found.left_out["were dealt before experiment exp assigned as it does now"] == 4


def test_a_variant_without_a_list_is_refused_with_the_reasons(home: Home) -> None:
    write(home, [decision(0, **OF_B), decision(1, **FORCED)], [])
    with pytest.raises(
        ExperimentError, match=rf"among 2 answers .1 were forced for testers; 1 {OTHERS}., is 0"
    ):
        read(home, experiment())


@pytest.mark.parametrize("allocation", [Thompson(), LinThompson(features=("device",))])
def test_an_allocation_that_learns_deals_no_random_sample(allocation: Any) -> None:
    with pytest.raises(
        ExperimentError, match=rf"allocation of experiment exp, is '{allocation.kind}', must be fixed"
    ):
        DealtLists.of(experiment(allocation=allocation), "a", "live")


def test_what_the_experiment_does_not_have_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"variant of experiment exp, is 'c', must be one of: a, b"):
        DealtLists.of(experiment(), "c", "live")
    with pytest.raises(ExperimentError, match=r"origin of experiment exp, is 'live'.*give --origin live"):
        DealtLists.of(experiment(), "a", "simulator")


def test_the_notes_say_whose_lists_they_are() -> None:
    dealt = DealtLists.of(experiment(), "a", "live")
    said = (
        "of the lists of variant a of experiment exp, 1,400 of 2,900 answers; "
        "what it is compared with is what this variant earned, not all traffic"
    )
    assert dealt.notes(1400, 2900, None) == [said]
    assert dealt.notes(1400, 2900, "b7") == [
        said,
        "judged with bundle b7, which answered last of this variant's lists",
    ]
