"""Examination of slots by luck and by EM: by hand, by exact expectation, and in worlds whose examination is known."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.errors import DataError, ExperimentError
from tastemaker.offpolicy.examination import Examination, popularity_weights
from tastemaker.offpolicy.position_bias import (
    examination_by_em,
    examination_by_luck,
    order_probability,
    without_usual,
)
from tastemaker.stages.rerankers.luck import (
    SamplingConfig,
    ShuffleConfig,
    drawn,
    mixed,
    plackett_luce,
    shuffle_propensity,
)
from tastemaker.types import Float64, Query

TRUE_K = np.array([1.0, 0.6, 0.4, 0.25])


def all_orders(logit_N: Float64) -> tuple[list[tuple[int, ...]], Float64, Float64]:
    """Every order, its probability under Plackett-Luce, and the conditional ones."""
    orders = list(permutations(range(len(logit_N))))
    conditional = np.array([plackett_luce(logit_N[list(order)]) for order in orders])
    return orders, conditional.prod(axis=1), conditional


@given(st.lists(st.floats(-2, 2), min_size=3, max_size=5))
def test_orders_of_neighbours_by_counting(logits: list[float]) -> None:
    orders, probability, conditional = all_orders(np.array(logits))
    order_SP = order_probability(conditional)
    of = dict(zip(orders, probability, strict=True))
    for s, order in enumerate(orders):
        for k in range(len(order) - 1):
            swapped = [*order]
            swapped[k : k + 2] = [order[k + 1], order[k]]
            # All that follows is as likely after either order.
            together = [
                sum(of[o] for o in orders if o[: k + 2] == tuple(o2[: k + 2])) for o2 in (order, swapped)
            ]
            assert order_SP[s, k] == pytest.approx(together[0] / sum(together), rel=1e-6)


def test_shuffled_windows_are_even_and_their_borders_certain() -> None:
    config = ShuffleConfig(window=3, head=6)
    order = np.array([2, 0, 1, 3, 5, 4])
    chance = shuffle_propensity(order, 0, config)
    assert order_probability(chance[None])[0] == pytest.approx([0.5, 0.5, 1.0, 0.5, 0.5])


@given(st.integers(0, 500), st.floats(0.02, 0.45))
def test_what_was_mixed_is_told_apart(seed: int, share: float) -> None:
    luck = np.random.default_rng(seed)
    logit_N = luck.normal(size=5)
    order = luck.permutation(5) if seed % 3 else np.arange(5)
    sampled = plackett_luce(logit_N[order])
    usual = shuffle_propensity(order, 0, None)
    found = without_usual(mixed(usual, sampled, share)[None], share)[0]
    assert found == pytest.approx(sampled, rel=1e-4)


def test_the_weighted_clicks_of_neighbours_have_the_ratio_of_examination_exactly() -> None:
    logit_N, interest_N = np.array([1.0, 0.0, -0.5, 0.3]), np.array([0.9, 0.2, 0.5, 0.7])
    orders, probability, conditional = all_orders(logit_N)
    order_SP = order_probability(conditional)
    for k in range(3):
        upper = sum(
            p * TRUE_K[k] * interest_N[o[k]] / w
            for o, p, w in zip(orders, probability, order_SP[:, k], strict=True)
        )
        lower = sum(
            p * TRUE_K[k + 1] * interest_N[o[k + 1]] / w for o, p, w in zip(orders, probability, order_SP[:, k], strict=True)
        )  # fmt: skip
        assert lower / upper == pytest.approx(TRUE_K[k + 1] / TRUE_K[k], rel=1e-9)


def world(num: int, seed: int) -> tuple[Float64, Float64, Float64]:
    """Lists of 4 of 6 candidates, sampled by scores that know the interest: propensities, clicks, plain click rates."""
    luck = np.random.default_rng(seed)
    interest_N = np.array([0.8, 0.6, 0.45, 0.3, 0.2, 0.1])
    sampling = SamplingConfig(share=1.0, temperature=1.0)
    propensity_SK, click_SK = np.empty((num, 4)), np.empty((num, 4))
    for s in range(num):
        query = Query(np.empty(0, np.int32), seed=int(luck.integers(2**31)))
        order, chance = drawn(query, interest_N.astype(np.float32), 0, None, sampling)
        propensity_SK[s] = chance[:4]
        click_SK[s] = luck.random(4) < TRUE_K * interest_N[order[:4]]
    return propensity_SK, click_SK, click_SK.mean(axis=0) / click_SK[:, 0].mean()


def test_luck_finds_what_click_rates_hide() -> None:
    propensity_SK, click_SK, rate_K = world(6000, 0)
    found = examination_by_luck(propensity_SK, click_SK, np.ones_like(click_SK, bool), np.arange(6000))
    assert (found.low_K <= TRUE_K + 1e-12).all()
    assert (found.high_K >= TRUE_K - 1e-12).all()
    assert found.probability_K == pytest.approx(TRUE_K, abs=0.06)
    assert np.abs(rate_K - TRUE_K).max() > 2 * np.abs(found.probability_K - TRUE_K).max()


def test_a_share_that_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(
        ExperimentError, match=r"share of sampled requests, is 0\.7, must be below 0\.5, or 1"
    ):
        without_usual(np.ones((1, 2)), 0.7)
    assert without_usual(np.full((1, 2), 0.3), 1.0).tolist() == [[0.3, 0.3]]


def test_no_luck_is_refused() -> None:
    certain = np.ones((500, 3))
    with pytest.raises(
        ExperimentError, match="where luck decided their order, is 0, must be at least 20 in each"
    ):
        examination_by_luck(certain, np.ones((500, 3)), np.ones((500, 3), bool), np.arange(500))


def test_em_finds_examination_where_features_tell_interest_and_not_the_slot() -> None:
    luck = np.random.default_rng(1)
    feature_NF = luck.normal(size=(20_000, 2))
    interest_N = 1 / (1 + np.exp(-(feature_NF @ [1.5, -1.0])))
    slot_N = luck.integers(1, 5, 20_000)
    # Better items tend to stand higher, so that plain click rates mislead.
    slot_N = np.clip(slot_N - (interest_N > 0.6) * luck.integers(0, 3, 20_000), 1, 4)
    click_N = (luck.random(20_000) < TRUE_K[slot_N - 1] * interest_N).astype(float)
    found = examination_by_em(slot_N, click_N, feature_NF)
    assert found.probability_K == pytest.approx(TRUE_K, abs=0.05)
    rate_K = np.array([click_N[slot_N == k].mean() for k in range(1, 5)])
    assert np.abs(rate_K / rate_K[0] - TRUE_K).max() > 0.08


def test_em_without_slots_is_refused() -> None:
    with pytest.raises(ExperimentError, match="shown items with slots and clicks"):
        examination_by_em(np.zeros(10, np.int64), np.ones(10), np.ones((10, 1)))


@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=8), st.lists(st.integers(0, 20), min_size=1, max_size=9)
)
def test_weighted_clicks_are_interest_again(examined: list[float], slots: list[int]) -> None:
    told = Examination(np.array([1.0, *examined]), np.ones(1), np.ones(1), "em")
    slot_N = np.array(slots)
    weight_N = told.weights(slot_N, least=0.01)
    for slot, weight in zip(slots, weight_N, strict=True):
        true = 1.0 if slot == 0 else [1.0, *examined][min(slot, len(examined) + 1) - 1]
        assert weight * true == pytest.approx(1.0, rel=1e-5)
    assert (told.weights(slot_N, least=0.5) <= 2).all()


def test_examination_is_read_as_it_was_written(tmp_path: Path) -> None:
    told = Examination(np.array([1.0, 0.5]), np.array([1.0, 0.4]), np.array([1.0, np.nan]), "randomised")
    told.save(tmp_path / "examination.json")
    again = Examination.load(tmp_path / "examination.json")
    assert again.probability_K.tolist() == [1.0, 0.5]
    assert again.low_K.tolist() == [1.0, 0.4]
    assert np.isnan(again.high_K[1])
    (tmp_path / "own.json").write_text('{"examination": [2.0, 1.0]}')
    assert Examination.load(tmp_path / "own.json").probability_K.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"examination": []}', '{"examination": [1, 0]}', '{"examination": "x"}']
)
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "examination.json"
    file.write_text(text)
    with pytest.raises(DataError, match="examination"):
        Examination.load(file)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=30), st.floats(0, 1))
def test_popular_items_weigh_less(counts: list[int], exponent: float) -> None:
    count_N = np.array(counts, np.float64)
    weight_N = popularity_weights(count_N, exponent)
    assert weight_N.mean() == pytest.approx(1, rel=1e-4)
    order = np.argsort(count_N, kind="stable")
    assert (np.diff(weight_N[order]) <= 1e-6).all()
