"""Judgements from Parquet days as the gateway and the consumer write them: numbers by hand, and refusals."""

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_days import START_MS, WINDOW_MS, click, decision, write

from tastemaker.errors import ExperimentError
from tastemaker.experiments.metrics import METRICS
from tastemaker.home import Home
from tastemaker.offpolicy import slot_chances as slot_chances_module
from tastemaker.offpolicy.lists import agreement, judge_lists, unsupported_lists
from tastemaker.offpolicy.logged_lists import LoggedLists, read_lists
from tastemaker.offpolicy.page import render
from tastemaker.offpolicy.slot_chances import SlotChances, slot_chances, with_known_draws
from tastemaker.offpolicy.slots import Luck, by_one_luck
from tastemaker.stages.exploring import ExplorationConfig
from tastemaker.stages.rerankers.luck import (
    Draw,
    SamplingConfig,
    ShuffleConfig,
    drawn,
    is_sampled,
    logits,
    plackett_luce,
)
from tastemaker.types import Query

CLICKS = METRICS["clicks_per_request"]
NO_EXPLORATION = ExplorationConfig(share=0.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.make(tmp_path / "home")


def read(home: Home, **fields: Any) -> LoggedLists:
    span: dict[str, Any] = {
        "origin": "live", "since_ms": START_MS, "until_ms": START_MS + 10_000, "now_ms": START_MS + 100_000,
        "window_ms": WINDOW_MS,
    }  # fmt: skip
    return read_lists(home, "shop", CLICKS, **span | fields)


def test_slots_earn_what_was_clicked_in_time(home: Home) -> None:
    write(
        home,
        [decision(0), decision(1, item_ids=["y"], slot_propensity=[0.25]), decision(2)],
        [
            click(0, "y"), click(0, "y", 200), click(0, "elsewhere"), click(1, "y", WINDOW_MS + 1), click(2, "x"),
            click(2, "y", kind="impression"), click(2, "y", origin="simulator"),
        ],
    )  # fmt: skip
    found = read(home)
    assert found.reward_SK.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert found.propensity_SK.tolist() == [[0.5, 1], [0.25, 1], [0.5, 1]]
    assert found.filled_SK.tolist() == [[True, True], [True, False], [True, True]]


def test_what_cannot_be_used_is_counted_by_its_reason(home: Home) -> None:
    write(
        home,
        [
            decision(0), decision(1, slot_propensity=[], slot_propensity_kind="none"), decision(2, shadow_of="r0"),
            decision(3, cached_from="r0"), decision(4, first_position=10), decision(5, rungs=["popular"]),
            decision(6, forced="popular"), decision(7, origin="simulator"), decision(20_000),
            decision(95_000),
        ],
        [],
    )  # fmt: skip
    found = read(home, until_ms=START_MS + 98_000)
    assert len(found) == 2
    assert found.num_read == 9  # all but the simulator's
    assert found.left_out == {
        "were made for comparison": 1, "are still open": 1, "were kept lists or later pages": 2, "were fallbacks": 2,
        "lack propensities of their slots": 1,
    }  # fmt: skip


def test_a_log_without_propensities_is_refused_with_numbers(home: Home) -> None:
    write(home, [decision(0, slot_propensity=[], slot_propensity_kind="none")], [])
    with pytest.raises(
        ExperimentError,
        match=r"among 1 answers .1 lack propensities of their slots., is 0, must be at least 1",
    ):
        read(home)
    with pytest.raises(ExperimentError, match="metric rewarded_requests, is 'not a sum over slots'"):
        read_lists(
            home, "shop", METRICS["rewarded_requests"], origin="live", since_ms=0, until_ms=1, now_ms=1, window_ms=1
        )  # fmt: skip


def test_a_time_without_answers_is_told_as_that(home: Home) -> None:
    write(home, [decision(0)], [])
    with pytest.raises(
        ExperimentError, match=r"no answer was logged whose window has closed in the days .*--days"
    ):
        read(home, until_ms=START_MS)


def shown(home: Home, num: int = 400) -> LoggedLists:
    """Even luck decides which of two items is first; item y is clicked in the first slot alone."""
    decisions, events = [], []
    for n in range(num):
        items = ["x", "y"] if n % 2 else ["y", "x"]
        decisions.append(decision(n, item_ids=items, slot_propensity=[0.5, 1.0]))
        if items[0] == "y":
            events.append(click(n, "y"))
    write(home, decisions, events)
    return read(home)


def test_a_policy_is_worth_what_agreeing_lists_earned(home: Home) -> None:
    logged = shown(home)
    found = judge_lists(logged, [["y", "x"]] * 400, CLICKS)
    # Half of the lists agree, weigh 2 and earned 1; what was logged earned 1/2.
    assert found.headline.estimator == "reward interaction, doubly robust"
    assert found.headline.value.value == pytest.approx(1.0, abs=0.01)  # folds differ
    assert found.headline.difference.value == pytest.approx(0.5, abs=0.01)
    assert found.logged.value == pytest.approx(0.5)
    values = {e.estimator: e.value.value for e in found.estimates}
    assert values.pop("reward interaction, doubly robust") == found.headline.value.value
    assert values == pytest.approx(
        {"reward interaction": 1.0, "reward interaction, self-normalised": 1.0, "whole list": 1.0}
    )
    assert found.support.num_used == 200
    assert found.support.effective_rows == pytest.approx(200)
    assert "would have earned more" in found.advice()
    other = judge_lists(logged, [["x", "y"]] * 400, CLICKS)
    assert other.headline.value.value == pytest.approx(0, abs=0.01)
    assert other.headline.difference.value == pytest.approx(-0.5, abs=0.01)
    page = render([found])
    assert "reward interaction" in page
    assert "<script src" not in page


def test_a_policy_that_was_never_tried_is_refused(home: Home) -> None:
    logged = shown(home)
    with pytest.raises(
        ExperimentError, match=r"of its mass, 100.0% is on what was never tried, and 0 of 400 answers"
    ):
        judge_lists(logged, [["z", "x"]] * 400, CLICKS)


def test_slots_alone_are_worth_what_their_items_earn_there(home: Home) -> None:
    # Three items in all six orders, 100 lists each. A click needs the first slot and y, or the second slot and x.
    decisions, events = [], []
    for n in range(600):
        items = list(list(permutations("xyz"))[n % 6])
        decisions.append(decision(n, item_ids=items, slot_propensity=[1 / 3, 1 / 2, 1.0]))
        events += [click(n, item) for k, item in enumerate(items) if (k, item) in {(0, "y"), (1, "x")}]
    write(home, decisions, events)
    logged = read(home)
    judged = [["y", "x", "z"]] * 600
    chances = SlotChances(np.full((600, 3), 1 / 3), np.ones((600, 3), bool))
    found = judge_lists(logged, judged, CLICKS, belief="item-position", chances=chances)
    values = {e.estimator: e.value.value for e in found.estimates}
    assert values.pop("item and position, doubly robust") == pytest.approx(2.0, abs=0.01)
    assert values == pytest.approx({"item and position": 2.0, "item and position, self-normalised": 2.0})
    # A third of the lists have the judged item in the second slot; by interaction a sixth has both.
    assert found.support.mean_weight == pytest.approx(1.0)
    assert found.support.effective_rows == pytest.approx(200)
    assert judge_lists(logged, judged, CLICKS).support.effective_rows == pytest.approx(100)
    whole = judge_lists(logged, judged, CLICKS, belief="whole-list")
    assert whole.headline.value.value == pytest.approx(2.0, abs=0.01)
    never = SlotChances(np.ones((600, 3)), np.array([[True, False, True]] * 600))
    with pytest.raises(ExperimentError, match=r"lacks support in the log: of its mass, 100.0% is"):
        judge_lists(logged, [["y", "w", "z"]] * 600, CLICKS, belief="item-position", chances=never)


def test_a_certain_slot_that_differs_has_no_support(home: Home) -> None:
    write(home, [decision(n, slot_propensity=[1.0, 0.5]) for n in range(4)], [])
    logged = read(home)
    # The first list agrees, the second differs in its certain first slot, the third in its drawn second slot.
    judged = [["x", "y"], ["y", "x"], ["x", "z"], ["x", "y"]]
    policy_SK = agreement(logged, judged)
    assert policy_SK.tolist() == [[1, 1], [0, 0], [1, 0], [1, 1]]
    assert unsupported_lists(logged, policy_SK) == pytest.approx(0.25)


def test_fewer_slots_need_less_agreement(home: Home) -> None:
    logged = shown(home).down_to(1)
    found = judge_lists(logged, [["y", "whatever"]] * 400, CLICKS)
    assert found.headline.value.value == pytest.approx(1.0, abs=0.01)


def test_lists_tell_of_slots_by_the_luck_that_drew_them(home: Home) -> None:
    # Half of the candidates' orders are sampled: those alone tell, with the propensities of sampling alone.
    sampling = SamplingConfig(share=0.4, temperature=1.0)
    score_N = np.array([0.6, 0.5, 0.4], np.float32)
    decisions = []
    for n in range(40):
        order, chance = drawn(Query(np.empty(0, np.int32), seed=n), score_N, 0, None, sampling)
        items = [f"i{k}" for k in order]
        decisions.append(
            decision(n, seed=n, item_ids=items, slot_propensity=chance.astype(np.float32).tolist())
        )
    write(home, decisions, [])
    logged = read(home)
    seeds = logged.decisions["seed"].to_pylist()
    propensity_SK, known_S = by_one_luck(logged, [Luck(False, 0.4, NO_EXPLORATION)] * 40)
    assert known_S.tolist() == [is_sampled(seed or 0, 0.4) for seed in seeds]
    assert 5 < known_S.sum() < 35
    for s in np.flatnonzero(known_S):
        order = [int(item[1]) for item in logged.items[s]]
        assert propensity_SK[s] == pytest.approx(plackett_luce(logits(score_N)[order]), rel=1e-4)
    _, shuffled_S = by_one_luck(logged, [Luck(True, 0.4, NO_EXPLORATION)] * 40)
    assert (shuffled_S == ~known_S).all()
    assert not by_one_luck(logged, [None] * 40)[1].any()


def test_an_order_that_only_exploring_could_change_was_no_luck(home: Home) -> None:
    # A tenth of the requests shows an explored item in the second or third slot, half each; the others keep their order.
    exploration = ExplorationConfig(share=0.1, first_slot=1)
    kept = [1.0, 0.95, 0.9 / 0.95]
    write(home, [decision(n, seed=n, item_ids=["x", "y", "z"], slot_propensity=kept) for n in range(60)], [])
    logged = read(home)
    propensity_SK, known_S = by_one_luck(logged, [Luck(True, 0.0, exploration)] * 60)
    assert 45 <= known_S.sum() < 60
    assert propensity_SK[known_S] == pytest.approx(1.0)


class Rows:
    """What knows the rows of x and y, as the bundle that showed them."""

    def index_of(self, item_id: str) -> int | None:
        return {"x": 0, "y": 1}.get(item_id)


def test_lists_whose_draw_does_not_come_out_again_are_left_out(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_chances_module, "_exploration", lambda _: ExplorationConfig(share=0.0))
    logged = shown(home, 6)
    rows_N, score_N = np.array([0, 1], np.int32), np.full(2, 0.5, np.float32)
    even = Draw(rows_N, score_N, 0, ShuffleConfig(window=2, head=2), None)
    certain = Draw(rows_N, score_N, 0, None, None)
    draws = [even, None, certain, even, even, even]
    known, known_S = with_known_draws(logged, draws, {"b1": Rows()})  # type: ignore[dict-item]
    assert known_S.tolist() == [True, False, False, True, True, True]
    assert known.left_out["are of bundles that are gone"] == 1
    assert known.left_out["have probabilities that do not come out again"] == 1
    # Lists begin with y and x in turn: the first, y x, agrees with y z in its first slot.
    found = slot_chances(known, [["y", "z"]] * 4, [even] * 4, {"b1": Rows()})
    assert found.marginal_SK.tolist() == [[0.5, 1.0], [1.0, 1.0], [0.5, 1.0], [1.0, 1.0]]
    assert found.possible_SK.tolist() == [[True, False]] * 4
    monkeypatch.setattr(slot_chances_module, "_exploration", lambda _: ExplorationConfig(share=1.0))
    with pytest.raises(ExperimentError, match="logged lists whose draw comes out again, is 0"):
        with_known_draws(logged, draws, {"b1": Rows()})  # type: ignore[dict-item]
