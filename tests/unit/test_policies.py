"""Bandit policies: closed forms, simulations with known truth, laws that hold for any statistics; what is refused."""

import json
from typing import Any

import numpy as np
import pytest
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
    problem,
    reward_problem,
    shares,
    with_floor,
)
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.policies.arms import Arm
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


def test_ucb1_tries_every_arm_first() -> None:
    assert ucb1_weights([Arm.of([1.0] * 50), Arm(), Arm()]) == (0.0, 0.5, 0.5)


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
