"""What bandits know: sums of partitions are those of the whole, discounted ones those recomputed from every decision."""

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tastemaker.events.attribution import Outcome
from tastemaker.experiments.allocation import Adaptive, Fixed, LinUcb, Thompson
from tastemaker.experiments.forgetting import ERA_HALF_LIVES, HalfLife, Window
from tastemaker.experiments.kept import decode_experiment
from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.linear import LinearArm, LinearPosterior
from tastemaker.experiments.policies.thompson import beta_weights
from tastemaker.experiments.posterior import (
    NEWEST,
    Posterior,
    increments,
    parted,
    posterior_name,
    total_of,
)

HOUR_MS = 3_600_000
START_MS = 1_790_000_000_000
outcomes = st.lists(
    st.builds(
        Outcome,
        st.just("exp"),
        st.sampled_from(["a", "b"]),
        st.sampled_from([0, 0, 1, 2.5, 400.0]),
        st.integers(START_MS, START_MS + 1000 * HOUR_MS),
        st.sets(st.integers(1, 3)).map(lambda places: (0, *sorted(places))),
    ),
    min_size=1,
    max_size=30,
)


def fields_of(seen: Sequence[Outcome], allocation: Fixed | Adaptive, is_real: bool = True) -> dict[str, str]:
    totals: dict[str, float] = {}
    for outcome in seen:
        for name, value in increments(outcome, allocation, is_real):
            totals[name] = totals.get(name, 0.0) + value
    if seen:
        totals[NEWEST] = max(outcome.at_ms for outcome in seen)
    return {name: repr(value) for name, value in totals.items()}


def posterior_of(seen: Sequence[Outcome], allocation: Fixed | Adaptive, is_real: bool = True) -> Posterior:
    fields = fields_of(seen, allocation, is_real)
    return Posterior.decode(fields)


def test_counts_of_the_previous_release_are_read() -> None:
    known = Posterior.decode({"version": "3", "a:successes": "1", "a:failures": "2"})
    assert known == Posterior({"a": 1}, {"a": 2}, 3)
    assert known.arms(["a", "b"], None) == (Arm(3, 1, 1), Arm())


@given(outcomes)
def test_sums_are_those_of_the_rewards(seen: list[Outcome]) -> None:
    known = posterior_of(seen, Thompson(reward="real"))
    for name, arm in zip("ab", known.arms("ab", None), strict=True):
        whole = Arm.of([float(o.reward) for o in seen if o.variant == name])
        assert (arm.count, arm.total, arm.squares) == pytest.approx((whole.count, whole.total, whole.squares))


@given(outcomes, st.integers(1, 5), st.sampled_from([600.0, 36_000.0, 86_400.0 * 30]))
def test_partitions_add_up_to_the_whole(seen: list[Outcome], num_partitions: int, half_life: float) -> None:
    policy = LinUcb(half_life_seconds=half_life)
    parts = [fields_of(seen[p::num_partitions], policy) for p in range(num_partitions)]
    total = Posterior.decode({name: repr(value) for name, value in total_of(parts).items()})
    whole = posterior_of(seen, policy)
    assert (total.newest_ms, total.successes) == (whole.newest_ms, whole.successes)
    for one, two in zip(
        total.arms("ab", HalfLife(half_life)), whole.arms("ab", HalfLife(half_life)), strict=True
    ):
        assert (one.count, one.total, one.squares) == pytest.approx(
            (two.count, two.total, two.squares), rel=1e-9
        )


@given(outcomes, st.sampled_from([60.0, 3600.0, 86_400.0, 123_456.5]))
def test_discounted_sums_equal_those_recomputed(seen: list[Outcome], half_life: float) -> None:
    known = posterior_of(seen, Thompson(half_life_seconds=half_life), is_real=False)
    newest = max(outcome.at_ms for outcome in seen)
    for name, arm in zip("ab", known.arms("ab", HalfLife(half_life)), strict=True):
        of_name = [o for o in seen if o.variant == name]
        weights = [0.5 ** ((newest - o.at_ms) / 1000 / half_life) for o in of_name]
        assert arm.count == pytest.approx(sum(weights), rel=1e-9, abs=1e-12)
        total = sum(w * o.reward for w, o in zip(weights, of_name, strict=True))
        assert arm.total == pytest.approx(total, rel=1e-9, abs=1e-12)


@given(outcomes, st.sampled_from([None, 36_000.0]))
def test_a_regression_is_that_of_its_decisions(seen: list[Outcome], half_life: float | None) -> None:
    known = posterior_of(seen, LinUcb(half_life_seconds=half_life))
    newest = max(outcome.at_ms for outcome in seen)
    arms = {name: LinearArm.empty(4) for name in "ab"}
    for o in seen:
        weight = 1.0 if half_life is None else 0.5 ** ((newest - o.at_ms) / 1000 / half_life)
        arms[o.variant] = arms[o.variant].with_reward(o.context, float(o.reward), weight)
    expected = LinearPosterior.of(list(arms.values()), 1.0)
    found = known.regression("ab", None if half_life is None else HalfLife(half_life), 4, 1.0)
    assert found.weight_ND == pytest.approx(expected.weight_ND, rel=1e-6, abs=1e-9)
    assert found.covariance_NDD == pytest.approx(expected.covariance_NDD, rel=1e-6, abs=1e-9)


def test_an_era_ago_counts_nothing_and_breaks_nothing() -> None:
    half_life = 60.0
    era_ms = int(ERA_HALF_LIVES * half_life * 1000)
    old = [Outcome("exp", "a", 1, START_MS)] * 1000
    new = Outcome("exp", "a", 0, START_MS + 40 * era_ms)
    (arm,) = posterior_of([*old, new], Thompson(half_life_seconds=half_life), is_real=False).arms(
        ["a"], HalfLife(half_life)
    )
    assert (arm.count, arm.total) == pytest.approx((1, 0), abs=1e-9)


def test_a_changed_half_life_starts_anew() -> None:
    known = posterior_of([Outcome("exp", "a", 1, START_MS)], Thompson(half_life_seconds=60.0), is_real=False)
    assert known.arms(["a"], HalfLife(60.0)) == (Arm(1, 1, 1),)
    assert known.arms(["a"], HalfLife(3600.0)) == (Arm(),)
    assert known.arms(["a"], None) == (Arm(1, 1, 1),)


def test_a_discounted_bandit_follows_a_change() -> None:
    """Arm a is better for 30 days, then b: with a half life of a day the bandit turns, without one it does not yet."""
    generator = random.Random(0)
    rates = {"a": (0.3, 0.1), "b": (0.1, 0.3)}
    seen = [
        Outcome("exp", name, int(generator.random() < rates[name][day >= 30]), START_MS + day * 24 * HOUR_MS)
        for day in range(34)
        for name in "ab"
        for _ in range(100)
    ]

    def weight_of_b(half_life: float | None) -> float:
        known = posterior_of(seen, Thompson(half_life_seconds=half_life), is_real=False)
        forgetting = None if half_life is None else HalfLife(half_life)
        return beta_weights(known.arms("ab", forgetting), (1.0, 1.0))[1]

    assert weight_of_b(86_400.0) > 0.99
    assert weight_of_b(None) < 0.01


epochs = st.sampled_from([(60, 1), (3600, 5), (86_400, 2), (86_400, 30)])


@given(outcomes, epochs)
def test_a_window_holds_the_rewards_of_its_epochs_and_no_others(
    seen: list[Outcome], epoch: tuple[int, int]
) -> None:
    seconds, number = epoch
    policy = Thompson(epoch_seconds=seconds, window_seconds=seconds * number)
    known = posterior_of(seen, policy, is_real=False)
    newest = max(outcome.at_ms for outcome in seen) // (1000 * seconds)
    for name, arm in zip("ab", known.arms("ab", policy.forgetting), strict=True):
        in_it = [o for o in seen if o.variant == name and o.at_ms // (1000 * seconds) > newest - number]
        assert arm == Arm.of([float(o.reward) for o in in_it])


@given(outcomes, epochs, st.integers(1, 5))
def test_a_regression_on_a_window_is_that_of_its_decisions_however_they_are_parted(
    seen: list[Outcome], epoch: tuple[int, int], num_partitions: int
) -> None:
    seconds, number = epoch
    policy = LinUcb(epoch_seconds=seconds, window_seconds=seconds * number)
    parts = [fields_of(seen[p::num_partitions], policy) for p in range(num_partitions)]
    known = Posterior.decode({name: repr(value) for name, value in total_of(parts).items()})
    newest = max(outcome.at_ms for outcome in seen) // (1000 * seconds)
    arms = {name: LinearArm.empty(4) for name in "ab"}
    for o in seen:
        if o.at_ms // (1000 * seconds) > newest - number:
            arms[o.variant] = arms[o.variant].with_reward(o.context, float(o.reward))
    expected = LinearPosterior.of(list(arms.values()), 1.0)
    found = known.regression("ab", policy.forgetting, 4, 1.0)
    assert found.weight_ND == pytest.approx(expected.weight_ND, rel=1e-9, abs=1e-12)


@given(st.integers(0, 10**13), st.integers(0, 10**13), epochs)
def test_what_is_over_never_counts_again(at_ms: int, later_ms: int, epoch: tuple[int, int]) -> None:
    seconds, number = epoch
    window = Window(seconds, number)
    suffix, weight = window.stored(at_ms)
    assert weight == 1
    if window.is_over(suffix, at_ms + later_ms):
        assert later_ms >= 1000 * seconds * (number - 1)
        assert window.weight(suffix, at_ms + later_ms + 5000) == 0
    else:
        assert window.weight(suffix, at_ms + later_ms) == 1
    assert Window(seconds + 1, number).weight(suffix, at_ms) == 0
    assert HalfLife(60.0).weight(suffix, at_ms) == 0
    assert window.weight(HalfLife(60.0).stored(at_ms)[0], at_ms) == 0


@given(outcomes, st.sampled_from([60.0, 3600.0, 123_456.5]))
def test_eras_that_are_over_count_less_than_a_double_tells(seen: list[Outcome], half_life: float) -> None:
    policy, newest = Thompson(half_life_seconds=half_life), max(outcome.at_ms for outcome in seen)
    fields, forgetting = fields_of(seen, policy), HalfLife(half_life)
    kept = {
        name: value
        for name, value in fields.items()
        if not forgetting.is_over(parted(name.rpartition(":")[2])[1], newest)
    }
    assert len({name.partition("~")[2] for name in kept if "~" in name}) <= 2
    for one, two in zip(
        Posterior.decode(kept).arms("ab", forgetting),
        Posterior.decode(fields).arms("ab", forgetting),
        strict=True,
    ):  # at most 30 rewards of 400, squared
        assert (one.count, one.total, one.squares) == pytest.approx(
            (two.count, two.total, two.squares), rel=0, abs=30 * 400**2 * 2.0**-64
        )


def test_another_way_to_forget_leaves_nothing_behind() -> None:
    window, half_life = Window(60, 5), HalfLife(60.0)
    for one, other in (
        (window, half_life),
        (window, Window(61, 5)),
        (half_life, window),
        (half_life, HalfLife(61.0)),
    ):
        assert not one.is_over(one.stored(START_MS)[0], START_MS)
        assert one.is_over(other.stored(START_MS)[0], START_MS)
        assert not one.is_over("", START_MS)


def test_a_window_turns_at_once_when_the_change_is_older_than_it() -> None:
    rates = {"a": (0.3, 0.1), "b": (0.1, 0.3)}
    generator = random.Random(0)
    seen = [
        Outcome("exp", name, int(generator.random() < rates[name][day >= 30]), START_MS + day * 24 * HOUR_MS)
        for day in range(34)
        for name in "ab"
        for _ in range(100)
    ]
    policy = Thompson(window_seconds=3 * 86_400)
    known = posterior_of(seen, policy, is_real=False)
    arms = known.arms("ab", policy.forgetting)
    assert [arm.count for arm in arms] == [300, 300]
    assert beta_weights(arms, (1.0, 1.0))[1] > 0.99


def test_sums_of_an_earlier_encoding_are_kept_under_the_name_that_they_had() -> None:
    def named(allocation: dict[str, Any]) -> str:
        variants = [{"name": name, "alias": "champion"} for name in "ab"]
        tree = {"name": "e", "hypothesis": "h", "salt": "s", "variants": variants, "allocation": allocation}
        return posterior_name(decode_experiment("e", json.dumps(tree)))

    meaning = [0, "rewarded_requests", "device", "country", "hour", "user", 16]
    before = hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:12]
    assert named({"kind": "lin-ucb"}) == f"e.{before}"  # written by a release that did not say how it encodes
    assert named({"kind": "lin-ucb", "encoding": 2}) not in (f"e.{before}", "e")
    assert named({"kind": "thompson"}) == "e"
