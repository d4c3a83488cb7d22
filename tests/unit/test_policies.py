"""Bandit policies: closed forms, simulations with known truth, laws that hold for any statistics."""

import json
from typing import Any

import numpy as np
import pytest
from draws import DRAWS, FOUR_DEVIATIONS, share_of_largest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tastemaker.errors import ConfigError
from tastemaker.experiments.allocation import (
    Adaptive,
    EpsilonGreedy,
    Fixed,
    LinThompson,
    LinUcb,
    NormalPrior,
    Thompson,
    Ucb1,
    arm_context,
    problem,
    reward_problem,
    shares,
    with_floor,
)
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.context import DECLARED, ContextFeature, active_places
from tastemaker.experiments.policies.linear import LinearArm, LinearPosterior
from tastemaker.experiments.policies.thompson import beta_weights, normal_inverse_gamma, normal_weights
from tastemaker.experiments.policies.ucb import ucb1_weights
from tastemaker.experiments.posterior import Posterior
from tastemaker.experiments.starting import check_definition


def test_the_normal_inverse_gamma_posterior_is_proportional_to_prior_times_likelihood() -> None:
    prior, rewards = (0.5, 2.0, 3.0, 1.5), [0.2, 1.7, 0.9]

    def log_density(mean: float, variance: float, at: tuple[float, float, float, float]) -> float:
        m, k, a, b = at
        around = stats.norm.logpdf(mean, m, (variance / k) ** 0.5)
        return float(around + stats.invgamma.logpdf(variance, a, scale=b))

    posterior = normal_inverse_gamma(Arm.of(rewards), prior)
    points = [(0.1, 0.5), (0.9, 1.2), (2.0, 0.3), (-1.0, 4.0)]
    left = [log_density(m, v, posterior) for m, v in points]
    right = [log_density(m, v, prior) + float(stats.norm.logpdf(rewards, m, v**0.5).sum()) for m, v in points]
    assert np.subtract(left, right) == pytest.approx(left[0] - right[0], abs=1e-9)


def test_thompson_of_amounts_finds_the_dearer_arm() -> None:
    generator = np.random.default_rng(0)
    arms = tuple(Arm.of(list(generator.gamma(1.0, mean, 2000))) for mean in (10.0, 13.0))
    dear = normal_weights(arms, (0.0, 0.01, 1.0, 1.0))[1]
    # means 3 apart, with standard errors 10 / sqrt(2000) and 13 / sqrt(2000): z = 8
    assert dear > 0.99


arm = st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)).map(lambda c: (float(c[0]), float(c[1])))
policies = st.sampled_from(
    [
        EpsilonGreedy(epsilon=0.2, floor=0.02),
        EpsilonGreedy(epsilon=0.0, floor=0.1),
        Thompson(floor=0.02),
        Thompson(floor=0.02, sharpness=3.0),
        Thompson(floor=0.1, reward="real", normal_prior=NormalPrior(mean=0.5, scale=0.2)),
        Ucb1(floor=0.02),
        LinUcb(floor=0.05),
        LinThompson(floor=0.02),
    ]
)


def experiment(allocation: Fixed | Adaptive, num_variants: int) -> Experiment:
    variants = tuple(Variant(name=f"v{n}", alias="champion") for n in range(num_variants))
    return Experiment(name="exp", hypothesis="h", salt="s", variants=variants, allocation=allocation)


@given(policies, st.lists(arm, min_size=2, max_size=5), st.sets(st.integers(0, 15)))
@settings(deadline=None)  # the first call warms up
def test_shares_of_every_policy_add_up_and_respect_the_floor(
    allocation: Adaptive, counts: list[tuple[float, float]], places: set[int]
) -> None:
    known = Posterior(
        {f"v{n}": won for n, (won, _) in enumerate(counts)},
        {f"v{n}": lost for n, (_, lost) in enumerate(counts)},
        sums={
            f"v{n}": {"x.0": won, "xx.0.0": won + lost, "sum": won, "squares": won}
            for n, (won, lost) in enumerate(counts)
        },
    )
    shares = known.shares(experiment(allocation, len(counts)), tuple(sorted({0} | places)))
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    assert min(shares) >= allocation.floor - 1e-9


@given(policies, st.integers(2, 6))
@settings(deadline=None)
def test_before_any_reward_all_arms_are_alike(allocation: Adaptive, num_variants: int) -> None:
    shares = Posterior().shares(experiment(allocation, num_variants), (0, 3))
    assert shares == pytest.approx([1 / num_variants] * num_variants, abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda w: sum(w) > 0.01), st.floats(0, 0.16))
def test_the_floor_is_mixed_in(weights: list[float], floor: float) -> None:
    shares = with_floor(weights, floor)
    assert min(shares) >= floor - 1e-9
    assert sum(shares) == pytest.approx(1)


rewards = st.lists(st.floats(-1e3, 1e3), max_size=20)


@given(rewards, rewards)
def test_arms_of_parts_add_up_to_the_arm_of_the_whole(one: list[float], two: list[float]) -> None:
    whole, parts = Arm.of(one + two), Arm.of(one) + Arm.of(two)
    assert parts.count == whole.count
    assert parts.total == pytest.approx(whole.total, abs=1e-6)
    assert parts.squares == pytest.approx(whole.squares, abs=1e-3)


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


def test_ucb1_tries_every_arm_first() -> None:
    assert ucb1_weights([Arm.of([1.0] * 50), Arm(), Arm()]) == (0.0, 0.5, 0.5)


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


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        (Fixed(weights=(0.5, 0.6)), "weights must add up to 1, add up to 1.1"),
        (Fixed(weights=(1.0,)), "weights must be 2 positive numbers"),
        (Fixed(weights=(1.0, 0.0)), "weights must be 2 positive numbers"),
        (Thompson(floor=0.5), None),
        (Ucb1(floor=0.05), None),
        (Ucb1(epoch_seconds=60, window_seconds=6000), None),
        (LinUcb(epoch_seconds=60, window_seconds=29 * 60), None),  # 4500 / 155 sums an epoch
        (LinUcb(epoch_seconds=60, window_seconds=6000, dimension=2), None),
        (LinUcb(epoch_seconds=60, window_seconds=120, dimension=64), None),
        (Ucb1(window_seconds=3600), "window_seconds must be 1 to 100 times epoch_seconds (86400), is 3600"),
        (
            Ucb1(epoch_seconds=60, window_seconds=6060),
            "window_seconds must be 1 to 100 times epoch_seconds (60), is 6060",
        ),
        (
            LinUcb(epoch_seconds=60, window_seconds=30 * 60),
            "window_seconds must be 1 to 29 times epoch_seconds (60), is 1800",
        ),
        (
            LinUcb(epoch_seconds=60, window_seconds=180, dimension=64),
            "window_seconds must be 1 to 2 times epoch_seconds (60), is 180",
        ),
        (
            Ucb1(window_seconds=86_400, half_life_seconds=60.0),
            "window_seconds and half_life_seconds are two ways to forget: leave one out",
        ),
    ],
)
def test_an_allocation_that_cannot_be_is_told(allocation: Fixed | Adaptive, message: str | None) -> None:
    assert problem(allocation, 2) == message


def test_sharper_thompson_sampling_is_surer_of_the_same_means() -> None:
    arms = {"v0": Arm(100.0, 12.0, 12.0), "v1": Arm(100.0, 8.0, 8.0)}
    known = Posterior({n: a.total for n, a in arms.items()}, {n: a.count - a.total for n, a in arms.items()})
    found = [shares(Thompson(floor=0.001, sharpness=k), known, ("v0", "v1"))[0] for k in (0.5, 1.0, 2.0, 3.0)]
    assert found == sorted(found)
    assert found[1] == pytest.approx(with_floor(beta_weights(tuple(arms.values()), (1.0, 1.0)), 0.001)[0])
    tripled = tuple(Arm(3 * a.count, 3 * a.total, 3 * a.squares) for a in arms.values())
    assert found[3] == pytest.approx(with_floor(beta_weights(tripled, (1.0, 1.0)), 0.001)[0])


def test_a_floor_that_leaves_nothing_is_told() -> None:
    assert problem(LinThompson(floor=0.5), 3) == "floor must be at most 1/3, is 0.5"


def test_a_policy_of_successes_refuses_amounts() -> None:
    assert reward_problem(Thompson(), "binary") is None
    assert reward_problem(Ucb1(), "real") is None
    message = "allocation.reward is binary, but the metric to learn from is real"
    assert reward_problem(Thompson(), "real") == message
    with pytest.raises(ConfigError, match=f"{message}: set allocation.reward to real"):
        check_definition(experiment(Thompson(), 2).model_copy(update={"reward": "revenue"}))
    check_definition(experiment(Thompson(reward="real"), 2).model_copy(update={"reward": "revenue"}))


@pytest.mark.parametrize(
    "text",
    [
        {"kind": "fixed", "weights": [0.25, 0.75]},
        {"kind": "thompson", "floor": 0.1, "epoch_seconds": 60, "prior": [1.0, 2.0]},
    ],
)
def test_what_the_previous_release_kept_is_an_allocation_still(text: dict[str, Any]) -> None:
    kept = experiment(Thompson(), 2).model_dump(mode="json") | {"allocation": text}
    read = Experiment.model_validate_json(json.dumps(kept)).allocation
    assert read.model_dump(mode="json").items() >= text.items()


def test_an_unknown_setting_of_a_policy_is_told_with_those_that_it_has() -> None:
    tree = experiment(Thompson(), 2).model_dump(mode="json") | {
        "allocation": {"kind": "thompson", "flor": 0.1}
    }
    message = "unknown key allocation.thompson.flor, is 0.1, must be one of: epoch_seconds, floor, half_life_seconds"
    with pytest.raises(ConfigError, match=message):
        Experiment.parse(tree, "exp.yaml")
