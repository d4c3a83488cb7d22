"""Whether a transfer pays: what is held out, who is asked, and what is found of models whose worth is known."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pytest

from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender
from tastemaker.models.transfer.domains import ByRows, Domains
from tastemaker.models.transfer.monitor import (
    GROUPS,
    Asked,
    Held,
    MonitorConfig,
    Verdict,
    group_of,
    hold_out,
    judge,
    ndcg_of,
)
from tastemaker.resampling import bootstrap
from tastemaker.strict import Strict
from tastemaker.testing.domain_worlds import TwoDomains
from tastemaker.types import Float32


class Told(Recommender):
    """Scores that it was told, of users by their newest item of the source."""

    kind = "told"

    def __init__(self, score_BI: Float32) -> None:
        self._score_BI, self.num_items = score_BI, score_BI.shape[1]

    @classmethod
    def fit(cls, log: Log, config: Any) -> Self:
        raise NotImplementedError

    def scores(self, askers: Askers) -> Float32:
        return self._score_BI[: len(askers)].copy()

    def tensors(self) -> Mapping[str, np.ndarray]:
        return {}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        raise NotImplementedError


def rows(*items: int) -> np.ndarray:
    return np.array(items, np.int32)


@pytest.fixture(scope="module")
def domains() -> Domains:
    world = TwoDomains.of(1, related=True, num_users=120, num_cold=20)
    return Domains.of(world.log, world.domains)


@pytest.fixture(scope="module")
def config() -> MonitorConfig:
    return MonitorConfig(k=10, few=3, share=0.5, least_users=10)


def test_what_is_asked_for_is_nowhere_left(domains, config):
    held = hold_out(domains, config, seed=0)
    before, left = domains.log.histories(), held.domains.log.histories()
    asked = {int(user) for one in held.asked.values() for user in one.askers.row_B}
    assert [len(held.asked[group].targets) for group in GROUPS] == [16, 16, 16]  # thirds of half of 100
    assert len(asked) == 48
    for group, one in held.asked.items():
        for user, history_L, items in zip(one.askers.row_B, one.askers.histories, one.targets, strict=True):
            own = [row for row in before[user] if domains.is_target[row]]
            kept = [row for row in history_L if domains.is_target[row]]
            assert kept + items.tolist() == own, "the oldest are kept"
            assert np.array_equal(history_L, left[user])
            assert len(before[user]) - len(left[user]) == len(items) > 0
            sizes = {"cold": range(1), "few": range(1, 4), "many": range(4, 99)}
            assert len(kept) in sizes[group]
    others = np.setdiff1d(np.arange(120), [*asked])
    assert all(np.array_equal(left[user], before[user]) for user in others)


def test_at_least_so_many_are_asked_where_half_of_all_are_enough(domains):
    def each(**settings: float) -> int:
        return len(hold_out(domains, MonitorConfig.parse(settings, "monitor"), 0).asked["cold"].targets)

    assert each(share=0.01, least_users=12) == 12
    assert each(share=0.5, least_users=2, most_users=30) == 10
    assert each(least_users=1000) == 16


def test_an_item_that_was_taken_again_is_not_left_behind():
    item_N = rows(0, 2, 1, 2, 3)
    log = Log.of(np.repeat(np.arange(6), 5), np.tile(item_N, 6), num_users=6, num_items=4)
    held = hold_out(Domains.of(log, ByRows(sizes={"source": 1, "target": 3})), MonitorConfig(few=1), 0)
    (cold,) = held.asked["cold"].askers.histories
    assert cold.tolist() == [0]
    assert held.asked["cold"].targets[0].tolist() == [2, 1, 3]
    (few,) = held.asked["few"].askers.histories
    assert few.tolist() == [0, 2, 2]
    assert held.asked["few"].targets[0].tolist() == [1, 3]
    (many,) = held.asked["many"].askers.histories
    assert many.tolist() == [0, 2, 1, 2]
    assert held.asked["many"].targets[0].tolist() == [3]


def test_ndcg_is_as_worked_out_by_hand():
    model = Told(np.array([[3, 2, 1], [3, 2, 1], [3, 2, 1]], np.float32))
    asked = Asked(Askers.strangers([rows(), rows(), rows()]), [rows(0), rows(1, 2), rows(2, 0, 1)])
    second = 1 / np.log2(3)
    assert ndcg_of(model, asked, k=2).tolist() == pytest.approx([1, second / (1 + second), 1])


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_intervals_hold_the_truth_as_often_as_they_say(level):
    draws = np.random.default_rng(0)
    # NDCG of one item is 0 for most; the difference of two such has the mean .2 here.
    samples = draws.choice([0.0, 0.0, 1.0, -0.5, 0.5], size=(300, 80))
    low_M, high_M = bootstrap(samples.T, rounds=500, level=level)
    held = (low_M <= 0.2) & (high_M >= 0.2)
    spread = np.sqrt(level * (1 - level) / len(held))
    assert np.mean(held) == pytest.approx(level, abs=4 * spread)


def oracle(held: Held, right_B: np.ndarray) -> Told:
    """Right about some of the cold users, whose hidden items are the first of its lists; else these are the last."""
    asked = held.asked["cold"]
    score_BI = np.zeros((len(asked.targets), held.domains.log.num_items), np.float32)
    for score_I, items, right in zip(score_BI, asked.targets, right_B, strict=True):
        score_I[items] = 1 if right else -1
    return Told(score_BI)


@pytest.mark.parametrize(
    ("alone", "moved", "finding"), [(0.0, 1.0, "helps"), (1.0, 0.0, "hurts"), (0.5, 0.5, "unclear")]
)
def test_models_of_known_worth_are_told_apart(domains, config, alone, moved, finding):
    held = hold_out(domains, config, seed=0)
    order_B = (np.arange(16) + 0.5) / 16
    # Those of equal worth are right about other users.
    models = oracle(held, order_B < alone), oracle(held, 1 - order_B < moved)
    verdict = judge(*models, held, config)
    cold = verdict.groups[0]
    assert (cold.group, cold.num_users, cold.finding) == ("cold", 16, finding)
    assert ("cold" in verdict.kept) == (finding == "helps")
    assert cold.difference == pytest.approx(moved - alone)


def test_of_few_users_nothing_is_said(domains, config):
    held = hold_out(domains, config, seed=0)
    models = oracle(held, np.zeros(16)), oracle(held, np.ones(16))
    verdict = judge(*models, held, config.model_copy(update={"least_users": 17}))
    assert verdict.groups[0].finding == "too few"
    assert verdict.groups[0].low == 1.0
    assert "cold" not in verdict.kept


def test_a_verdict_is_json_and_words():
    verdict = Verdict.parse({"kept": ["cold"]}, "decided")
    assert verdict.lines() == ["transfer kept for: cold"]
    assert Verdict.parse(verdict.model_dump(mode="json"), "decided") == verdict
    assert isinstance(verdict, Strict)


def test_groups_are_by_how_much_is_known():
    assert [GROUPS[at] for at in group_of(np.array([0, 1, 3, 4]), few=3)] == ["cold", "few", "few", "many"]
