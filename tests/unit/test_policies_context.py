"""Policies that know the context: the regression behind them, and how values become its places."""

from typing import Any

import numpy as np
import pytest
from draws import DRAWS, FOUR_DEVIATIONS, share_of_largest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.experiments.allocation import (
    LinUcb,
    Thompson,
    arm_context,
)
from tastemaker.experiments.policies.context import DECLARED, ContextFeature, active_places
from tastemaker.experiments.policies.linear import LinearArm, LinearPosterior


@given(st.lists(st.tuples(st.sets(st.integers(1, 5)), st.floats(-5, 5)), max_size=10), st.integers(0, 10))
def test_regressions_of_parts_add_up_to_that_of_the_whole(
    seen: list[tuple[set[int], float]], cut: int
) -> None:
    def summed(rows: list[tuple[set[int], float]]) -> LinearArm:
        total = LinearArm.empty(6)
        for places, reward in rows:
            total = total.with_reward(sorted({0} | places), reward)
        return total

    parts, whole = summed(seen[:cut]) + summed(seen[cut:]), summed(seen)
    assert parts.gram_DD == pytest.approx(whole.gram_DD)
    assert parts.moment_D == pytest.approx(whole.moment_D, abs=1e-9)


def test_a_regression_equals_least_squares_with_a_ridge() -> None:
    generator = np.random.default_rng(0)
    contexts = [tuple(sorted({0, *generator.integers(1, 8, 3)})) for _ in range(200)]
    x = np.zeros((200, 8))
    for row, places in enumerate(contexts):
        x[row, list(places)] = 1
    reward = x @ generator.normal(size=8) + generator.normal(0, 0.1, 200)
    total = LinearArm.empty(8)
    for places, value in zip(contexts, reward, strict=True):
        total = total.with_reward(places, float(value))
    ridge = np.vstack([x, np.sqrt(0.5) * np.eye(8)])  # as rows of their own
    expected = np.linalg.lstsq(ridge, np.concatenate([reward, np.zeros(8)]), rcond=None)[0]
    assert LinearPosterior.of([total], 0.5).weight_ND[0] == pytest.approx(expected, abs=1e-9)


def test_linear_thompson_equals_a_simulation_of_its_draws() -> None:
    one = LinearArm.empty(3).with_reward([0, 1], 1.0).with_reward([0, 2], 0.0)
    two = LinearArm.empty(3).with_reward([0, 1], 0.5)
    posterior = LinearPosterior.of([one, two, LinearArm.empty(3)], 1.0)
    generator = np.random.default_rng(0)
    drawn = [
        generator.multivariate_normal(weight_D, 0.25 * covariance_DD, DRAWS)
        for weight_D, covariance_DD in zip(posterior.weight_ND, posterior.covariance_NDD, strict=True)
    ]
    scores = np.stack([weight_RD @ [1, 1, 0] for weight_RD in drawn], axis=1)
    weights = posterior.thompson_weights([0, 1], 0.5)
    assert weights == pytest.approx(share_of_largest(scores), abs=FOUR_DEVIATIONS)


def test_a_policy_on_context_gives_each_context_its_own_best() -> None:
    phone, desk = (0, 1), (0, 2)
    arms = [LinearArm.empty(3), LinearArm.empty(3)]
    for _ in range(200):
        arms = [arms[0].with_reward(phone, 1.0), arms[1].with_reward(phone, 0.0)]
        arms = [arms[0].with_reward(desk, 0.0), arms[1].with_reward(desk, 1.0)]
    posterior = LinearPosterior.of(arms, 1.0)
    assert posterior.ucb_weights(phone, 1.0) == (1.0, 0.0)
    assert posterior.ucb_weights(desk, 1.0) == (0.0, 1.0)
    assert posterior.thompson_weights(phone, 0.5)[0] > 0.99


def test_the_places_of_a_context_are_few_and_stay() -> None:
    features = ("device", "country", "hour", "user")
    values = {"device": "phone", "country": "de", "hour": "23", "user": "new", "colour": "red"}
    places = active_places(values, features, 16)
    assert places == active_places(dict(reversed(values.items())), features, 16)
    assert len(places) <= 5
    assert places[0] == 0
    assert max(places) < 16
    assert arm_context(LinUcb(), values) == places
    assert arm_context(Thompson(), values) == ()


@pytest.mark.parametrize(("dimension", "alone"), [(16, ("device", "user")), (64, ("device", "user", "hour"))])
def test_declared_values_meet_nobody(dimension: int, alone: tuple[ContextFeature, ...]) -> None:
    every = ("device", "country", "hour", "user")
    words = [(name, value) for name in alone for value in DECLARED[name]]
    places = [active_places({name: value}, every, dimension)[1] for name, value in words]
    assert len(set(places)) == len(words)
    others = [("country", code) for code in ("de", "fr", "us", "jp")] + [("device", "toaster")]
    hashed = {active_places({name: value}, every, dimension)[1] for name, value in others}
    assert hashed.isdisjoint(places)
    assert max(places) < min(hashed) <= max(hashed) < dimension


@given(
    st.integers(2, 64), st.sets(st.sampled_from(["device", "country", "hour", "user"]), min_size=1), st.sampled_from([1, 2]),
    st.text(min_size=1, max_size=8),
)  # fmt: skip
def test_places_are_within_the_dimension(
    dimension: int, features: set[Any], encoding: Any, word: str
) -> None:
    values = dict.fromkeys(features, word) | {"device": "mobile"}
    places = active_places(values, tuple(features), dimension, encoding)
    assert places[0] == 0
    assert list(places) == sorted(set(places))
    assert len(places) <= 1 + len(features)
    assert places[-1] < dimension


def test_the_first_encoding_stays_as_it_was() -> None:
    values = {"device": "phone", "hour": "9"}
    assert active_places(values, ("device", "country", "hour"), 16, 1) == (0, 10, 13)
    old = LinUcb(encoding=1)
    both = [active_places({"device": name}, old.features, 16, old.encoding) for name in ("mobile", "tablet")]
    assert both[0] == both[1]  # which is why there is another
    now = [arm_context(LinUcb(), {"device": name}) for name in ("mobile", "tablet", "Mobile")]
    assert now[0] == now[2] != now[1]
