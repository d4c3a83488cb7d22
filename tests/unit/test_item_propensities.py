"""Recommenders under propensities of items: a world in which the items that are liked most are seldom seen."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tastemaker.errors import ConfigError, DataError
from tastemaker.evaluation.measuring import measure
from tastemaker.evaluation.systems import ModelSystem
from tastemaker.evaluation.windows import LastOut, folds
from tastemaker.models import zoo
from tastemaker.models.item_propensities import ItemPropensity
from tastemaker.models.log import Askers, Log
from tastemaker.testing.saved import written_and_read

NUM_USERS, NUM_ITEMS = 400, 16
GROUP_I = np.arange(NUM_ITEMS) % 2
"""Users of a group take items of their group alone; half of these are seen by nine of ten, the others by two of ten."""
SEEN_I = np.where(np.arange(NUM_ITEMS) < 8, 0.9, 0.2)
LIKED_I = np.where(np.arange(NUM_ITEMS) < 8, 0.4, 0.8)
SETTINGS = {
    "ease": {"l2": 20.0},
    "ials": {"dim": 2, "iterations": 12, "unobserved_weight": 0.3},
    "bpr": {"dim": 2, "epochs": 80, "batch_size": 512, "learning_rate": 0.05, "regularization": 0.05},
}


def log() -> Log:
    draws = np.random.default_rng(0)
    likes_UI = (np.arange(NUM_USERS)[:, None] % 2 == GROUP_I) & (
        draws.random((NUM_USERS, NUM_ITEMS)) < LIKED_I
    )
    user_N, item_N = np.nonzero(likes_UI & (draws.random((NUM_USERS, NUM_ITEMS)) < SEEN_I))
    items = pa.table({"seen": SEEN_I})
    return Log.of(user_N, item_N, num_users=NUM_USERS, num_items=NUM_ITEMS, items=items)


def gain(kind: str, **changes: object) -> float:
    """How much higher items that are seldom seen stand than the others, in users' lists of their group's items they have not."""
    model = zoo.fit(kind, log(), SETTINGS[kind] | changes)
    score_UI = model.scores(Askers.known(log()))
    taken_UI = log().matrix().toarray() > 0
    found = []
    for user in range(0, NUM_USERS, 7):
        mine = (user % 2 == GROUP_I) & ~taken_UI[user]
        place_I = np.argsort(np.argsort(-score_UI[user]))
        rare, common = mine & (SEEN_I < 0.5), mine & (SEEN_I > 0.5)
        if rare.any() and common.any():
            found.append(place_I[common].mean() - place_I[rare].mean())
    return float(np.mean(found))


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_is_liked_most_comes_first_though_it_is_seldom_seen(kind: str) -> None:
    assert gain(kind) < -1  # .4 * .9 are taken more often than .8 * .2
    assert gain(kind, propensity={"column": "seen"}) > 0.5


@pytest.mark.parametrize("kind", SETTINGS)
def test_what_was_saved_answers_the_same(kind: str) -> None:
    settings_of = SETTINGS[kind] | {"propensity": {"power": 0.5}} | ({"epochs": 2} if kind == "bpr" else {})
    model = zoo.fit(kind, log(), settings_of)
    again = zoo.Packed.from_state(*written_and_read(zoo.Packed(model)))
    strangers = Askers.strangers([np.array([0, 9], np.int32), np.array([], np.int32)])
    assert np.array_equal(again.scores(strangers), model.scores(strangers))


def test_ease_divides_each_items_score_by_its_propensity() -> None:
    """By hand from the normal equations: targets are X / p, inputs X, and the diagonal is held at 0."""
    X_UI, l2 = log().matrix().toarray().astype(np.float64), 20.0
    target_UI = X_UI / SEEN_I
    weights_II = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        others = np.arange(NUM_ITEMS) != item
        Y_UJ = X_UI[:, others]
        gram_JJ = Y_UJ.T @ Y_UJ + l2 * np.eye(NUM_ITEMS - 1)
        weights_II[others, item] = np.linalg.solve(gram_JJ, Y_UJ.T @ target_UI[:, item])
    model = zoo.fit("ease", log(), {"l2": l2, "propensity": {"column": "seen"}})
    askers = Askers.known(log(), np.arange(5))
    mean = (log().matrix().toarray() / SEEN_I).sum() / log().matrix().nnz  # weights are over their mean
    np.testing.assert_allclose(model.scores(askers) * mean, X_UI[:5] @ weights_II, atol=1e-3)


def test_ials_finds_the_minimum_of_what_it_weighs() -> None:
    """At the minimum a small step of any user's factors, as they are folded in, changes nothing."""
    config = SETTINGS["ials"] | {"propensity": {"column": "seen"}, "regularization": 0.01}
    model = zoo.fit("ials", log(), config)
    weight_I = ItemPropensity(column="seen").weights(log())
    askers = Askers.known(log(), np.arange(3))
    vectors_BD, item_ID = (
        model.user_vectors(askers).astype(np.float64),
        model.item_vectors().astype(np.float64),
    )
    for vector_D, history_L in zip(vectors_BD, askers.histories, strict=True):
        penalty = 0.01 * (len(history_L) + 0.3 * NUM_ITEMS)
        error_L = item_ID[history_L] @ vector_D - 1
        slope_D = (weight_I[history_L] * error_L) @ item_ID[history_L]
        slope_D += 0.3 * (item_ID.T @ (item_ID @ vector_D)) + penalty * vector_D
        np.testing.assert_allclose(slope_D, 0, atol=1e-3)  # float32, and a ridge of 1e-6


@given(st.floats(0.05, 1.0))
@settings(max_examples=20)
def test_items_that_are_all_seen_alike_weigh_one(chance: float) -> None:
    even = Log.of(
        np.array([0, 0, 1]), np.array([0, 1, 1]), num_users=2, num_items=3, items=pa.table({"p": [chance] * 3})
    )  # fmt: skip
    assert ItemPropensity(column="p").weights(even) == pytest.approx([1, 1, 1])


def test_a_guess_by_popularity_is_clipped_and_normalised() -> None:
    """Item 0 was taken by four, item 1 by one: (1 / 4) ** ((1 + 1) / 2) is a quarter, clipped to a half."""
    taken = Log.of(np.array([0, 1, 2, 3, 0]), np.array([0, 0, 0, 0, 1]), num_users=4, num_items=2)
    # 1 and 2, over their mean over five rows: (4 * 1 + 1 * 2) / 5
    assert ItemPropensity(power=1.0, least=0.5).weights(taken) == pytest.approx([1 / 1.2, 2 / 1.2])


def test_what_is_no_propensity_is_refused() -> None:
    for wrong in ({}, {"power": 0.5, "column": "p"}):
        with pytest.raises(ConfigError, match="power or column"):
            ItemPropensity.parse(wrong, "test")
    log_without = Log.of(np.array([0]), np.array([0]), num_users=1, num_items=1)
    with pytest.raises(DataError, match="a log's column of propensities"):
        ItemPropensity(column="p").weights(log_without)
    for value in (0.0, 1.5, float("nan")):
        one = Log.of(np.array([0]), np.array([0]), num_users=1, num_items=1, items=pa.table({"p": [value]}))
        with pytest.raises(DataError, match="propensities in column p that are none"):
            ItemPropensity(column="p").weights(one)


def test_lists_are_judged_by_given_propensities():
    """With targets of both kinds, what is found counts by 1 / its chance over the targets' sum of that."""
    (fold,) = folds(log(), LastOut(kind="last-out", num=2))
    found = measure(ModelSystem(zoo.fit("popular", fold.train)), fold, (3,), propensity="seen")
    weighed = [
        (1 / SEEN_I[targets][np.isin(targets, ranked_K)]).sum() / (1 / SEEN_I[targets]).sum()
        for ranked_K, targets in zip(found.ranked_UK, fold.targets, strict=True)
    ]
    unbiased_U = found.evaluation.per_user["unbiased_recall@3"]
    np.testing.assert_allclose(unbiased_U, weighed)
    assert (unbiased_U != found.evaluation.per_user["recall@3"]).any()
    with pytest.raises(DataError, match="column of propensities"):
        measure(ModelSystem(zoo.fit("popular", fold.train)), fold, (3,), propensity="told")
