"""Metrics and losses of a world where what is seen is missing not at random, beside the same world seen whole."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import DataError
from tastemaker.evaluation import metrics
from tastemaker.evaluation.counterfactual import (
    ideal_dcg,
    inverse_propensities,
    ips_dcg,
    ips_error,
    ips_ndcg,
    ips_precision,
    ips_recall,
    pooled,
    snips_dcg,
    snips_error,
    snips_ndcg,
    snips_recall,
    weighted_hits,
)
from tastemaker.models.item_propensities import popularity_propensity
from tastemaker.models.propensity_losses import ips_loss, relevance_loss, snips_loss
from tastemaker.types import Float64, Int32

NUM_USERS, NUM_ITEMS, K, NUM_DRAWS = 200, 30, 10, 300
SEED = 3


class World:
    """Relevance of every pair; popular items are seen with a high probability, the others seldom; lists lean to the popular."""

    def __init__(self) -> None:
        luck = np.random.default_rng(SEED)
        self.propensity_I: Float64 = np.linspace(0.9, 0.1, NUM_ITEMS)
        relevance_UI = luck.random((NUM_USERS, NUM_ITEMS)) < 0.3
        relevance_UI[:, :2] = True  # nobody is without
        self.relevant = [np.flatnonzero(row).astype(np.int32) for row in relevance_UI]
        liking_UI = 2 * self.propensity_I + relevance_UI + luck.normal(0, 0.7, relevance_UI.shape)
        self.ranked_UK: Int32 = np.argsort(-liking_UI, axis=1)[:, :K].astype(np.int32)
        self.num_U = np.array([len(items) for items in self.relevant], np.float64)

    def seen(self, seed: int) -> list[Int32]:
        luck = np.random.default_rng([SEED, seed])
        return [items[luck.random(len(items)) < self.propensity_I[items]] for items in self.relevant]

    def hits(self, targets: list[Int32], least: float = 1e-6) -> tuple[Float64, Float64]:
        return weighted_hits(self.ranked_UK, targets, [self.propensity_I[t] for t in targets], least)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def truth(world: World) -> dict[str, float]:
    whole_UK = metrics.relevance(world.ranked_UK, world.relevant)
    return {
        "precision": float((whole_UK > 0).mean()),
        "recall": float(metrics.recall(whole_UK, world.num_U.astype(int), K).mean()),
        "ndcg": float(metrics.ndcg(whole_UK, metrics.ideal_grades(world.relevant), K).mean()),
        "pooled recall": float((whole_UK > 0).sum() / world.num_U.sum()),
    }


@pytest.fixture(scope="module")
def drawn(world: World) -> dict[str, Float64]:
    """What each metric says of each of many draws of what is seen."""
    rows: dict[str, list[float]] = {}
    for seed in range(NUM_DRAWS):
        targets = world.seen(seed)
        hits_UK, weight_U = world.hits(targets)
        found = {
            "precision": ips_precision(hits_UK, K).mean(),
            "recall": ips_recall(hits_UK, world.num_U, K).mean(),
            "ndcg": ips_ndcg(hits_UK, world.num_U, K).mean(),
            "pooled recall": pooled(hits_UK.sum(axis=1), weight_U),
            "snips recall": np.nanmean(snips_recall(hits_UK, weight_U, K)),
            "naive recall": np.nanmean(
                metrics.recall((hits_UK > 0).astype(float), np.array([len(t) for t in targets]), K)
            ),
            "clipped recall": ips_recall(world.hits(targets, least=0.5)[0], world.num_U, K).mean(),
        }
        for name, value in found.items():
            rows.setdefault(name, []).append(float(value))
    return {name: np.array(values) for name, values in rows.items()}


@pytest.mark.parametrize("name", ["precision", "recall", "ndcg"])
def test_weighted_metrics_are_unbiased(drawn: dict[str, Float64], truth: dict[str, float], name: str) -> None:
    error = drawn[name].std() / np.sqrt(NUM_DRAWS)
    assert abs(drawn[name].mean() - truth[name]) < 4.5 * error


def test_what_is_not_weighted_is_far_off(drawn: dict[str, Float64], truth: dict[str, float]) -> None:
    naive = abs(drawn["naive recall"].mean() - truth["recall"])
    assert naive > 0.1 * truth["recall"]
    assert abs(drawn["pooled recall"].mean() - truth["pooled recall"]) < 0.02 * truth["recall"]
    # A user has some six seen targets: dividing user by user leaves a bias, a small part of what there was.
    assert abs(drawn["snips recall"].mean() - truth["recall"]) < naive / 3


def test_clipping_takes_away_and_steadies(drawn: dict[str, Float64], truth: dict[str, float]) -> None:
    assert drawn["clipped recall"].mean() < truth["recall"]
    assert drawn["clipped recall"].std() < drawn["recall"].std()


@given(st.integers(0, 10_000))
def test_self_normalised_metrics_stay_in_range(seed: int) -> None:
    luck = np.random.default_rng(seed)
    ranked_BK = luck.permuted(np.tile(np.arange(8, dtype=np.int32), (3, 1)), axis=1)[:, :4]
    targets = [luck.permutation(8)[: luck.integers(0, 5)].astype(np.int32) for _ in range(3)]
    hits_BK, weight_B = weighted_hits(ranked_BK, targets, [luck.uniform(0.05, 1, len(t)) for t in targets])
    has_B = weight_B > 0
    for found_B in (snips_recall(hits_BK, weight_B, 4), snips_ndcg(hits_BK, weight_B, 4)):
        assert (np.isnan(found_B) == ~has_B).all()
        assert ((found_B[has_B] >= 0) & (found_B[has_B] <= 1 + 1e-12)).all()


def test_a_rare_target_counts_for_more_than_a_popular_one() -> None:
    propensity_I = popularity_propensity(np.array([10, 5, 1]), power=1.0)  # 1, .5, .1
    targets = [np.array([1, 2], np.int32)]
    hits_BK, weight_B = weighted_hits(np.array([[1, 0]], np.int32), targets, [propensity_I[targets[0]]])
    assert snips_recall(hits_BK, weight_B, 2) == pytest.approx(2 / (2 + 10))
    hits_BK, weight_B = weighted_hits(np.array([[0, 2]], np.int32), targets, [propensity_I[targets[0]]])
    assert snips_dcg(hits_BK, weight_B, 2) == pytest.approx(10 / np.log2(3) / (2 + 10))
    with pytest.raises(DataError, match="power of popularity, is -1, must be 0 or more"):
        popularity_propensity(np.array([1]), power=-1)


def test_propensities_of_one_give_the_plain_metrics(world: World) -> None:
    ones = [np.ones(len(items)) for items in world.relevant]
    hits_UK, weight_U = weighted_hits(world.ranked_UK, world.relevant, ones)
    plain_UK = metrics.relevance(world.ranked_UK, world.relevant)
    assert snips_recall(hits_UK, weight_U, K) == pytest.approx(
        metrics.recall(plain_UK, world.num_U.astype(int), K)
    )
    assert snips_ndcg(hits_UK, weight_U, K) == pytest.approx(
        metrics.ndcg(plain_UK, metrics.ideal_grades(world.relevant), K)
    )
    assert ips_dcg(hits_UK, 1) == pytest.approx(plain_UK[:, 0])
    assert ideal_dcg(np.array([0.0, 1.0]), 5).tolist() == [0.0, 1.0]


def test_ratings_that_are_seen_where_they_are_high() -> None:
    luck = np.random.default_rng(SEED)
    error_N = luck.gamma(2.0, 1.0, 2000)
    propensity_N = 1 / (1 + error_N)  # large errors are seldom seen
    seen = [luck.random(2000) < propensity_N for _ in range(400)]
    plain = [ips_error(error_N[one], propensity_N[one], 2000, least=1e-6) for one in seen]
    assert np.mean(plain) == pytest.approx(error_N.mean(), abs=4.5 * float(np.std(plain)) / 20)
    normalised = [snips_error(error_N[one], propensity_N[one], least=1e-6) for one in seen]
    assert np.mean(normalised) == pytest.approx(error_N.mean(), rel=0.01)
    assert np.std(normalised) < np.std(plain)
    assert np.mean([error_N[one].mean() for one in seen]) < 0.8 * error_N.mean()


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.5, np.nan])
def test_what_is_no_propensity_is_refused(wrong: float) -> None:
    with pytest.raises(DataError, match=r"a propensity, is .*, must be above 0, at most 1"):
        inverse_propensities(np.array([0.5, wrong]))
    with pytest.raises(DataError, match="least propensity, is 0, must be"):
        inverse_propensities(np.array([0.5]), least=0)


def test_the_loss_of_clicks_is_that_of_relevance_on_average() -> None:
    # Every way in which three pairs may be relevant and looked at.
    logit, look = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([0.9, 0.5, 0.2])
    relevant = torch.tensor([1.0, 1.0, 0.0])
    whole = torch.nn.functional.binary_cross_entropy_with_logits(logit, relevant)
    average = 0.0
    for seen in product([0.0, 1.0], repeat=3):
        looked = torch.tensor(seen)
        chance = torch.where(looked > 0, look, 1 - look).prod()
        average += float(chance * relevance_loss(logit, looked * relevant, look))
    assert average == pytest.approx(float(whole), rel=1e-5)
    click = torch.ones(3)
    assert relevance_loss(logit, click, look) < relevance_loss(logit, click, look, non_negative=True)


def test_weighted_losses_learn_what_uneven_looks_hide() -> None:
    # Two items of the same relevance .5; one is looked at always, the other in a fifth of the cases.
    generator = torch.Generator().manual_seed(SEED)
    num = 20_000
    item = torch.arange(num) % 2
    look = torch.where(item == 0, 1.0, 0.2)
    click = (
        (torch.rand(num, generator=generator) < look) & (torch.rand(num, generator=generator) < 0.5)
    ).float()
    learned = {}
    for name, propensity in (("weighted", look), ("plain", torch.ones(num))):
        logit = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([logit], lr=0.1)
        for _ in range(150):
            optimizer.zero_grad()
            relevance_loss(logit[item], click, propensity).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        learned[name] = torch.sigmoid(logit).tolist()
    assert learned["weighted"] == pytest.approx([0.5, 0.5], abs=0.03)
    assert learned["plain"] == pytest.approx([0.5, 0.1], abs=0.03)


def test_losses_of_seen_pairs_stand_for_all() -> None:
    loss, propensity = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.1])
    assert ips_loss(loss, propensity, 8, least=0.25).item() == pytest.approx((2 + 12) / 8)  # clipped at .25
    assert snips_loss(loss, propensity, least=0.25).item() == pytest.approx(14 / 6)
    assert snips_loss(loss[:0], propensity[:0]).item() == 0
