"""The router on a real Valkey: several layers at once, holdout, testers, units of three kinds, clocks that disagree."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tastemaker.errors import ExperimentError
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.definition import Experiment, Fixed, Interleaving, Thompson, Variant
from tastemaker.experiments.eligibility import Eligibility, Subject
from tastemaker.experiments.hashing import bucket
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.experiments.layers import held_out, slot_of
from tastemaker.experiments.router import Router, Snapshot
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import connect_async

NOW_MS = 1_750_000_000_000
VARIANTS = (Variant(name="a", alias="champion"), Variant(name="b", alias="challenger"))
RERANKED = (
    Variant(name="a", alias="champion"),
    Variant(name="b", alias="champion", policy={"until": "rank"}),
)


def experiment(name: str = "exp", **fields: Any) -> Experiment:
    defaults = {"hypothesis": "h", "salt": "s", "variants": VARIANTS, "allocation": Fixed(weights=(0.5, 0.5))}
    return Experiment(name=name, **defaults | fields)


def assign(state: Any, *subjects: Subject, now_ms: int = NOW_MS) -> list[Assigned]:
    async def run() -> list[Assigned]:
        client = connect_async(state.url)
        try:
            router = Router(client, state.keys)
            return [await router.assign(subject, now_ms, "live") for subject in subjects]
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_a_request_is_in_one_experiment_of_each_layer_at_most(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment("order", layer="order", variants=RERANKED, traffic=0.5))
    left = store.create(experiment("left", traffic=0.5))
    store.create(experiment("right", traffic=0.5))
    users = [f"u{n}" for n in range(200)]
    for user, found in zip(users, assign(state, *map(Subject, users)), strict=True):
        mine = "left" if slot_of("default", user) < left.ranges[0][1] else "right"
        other = ["order"] if slot_of("order", user) < 5000 else []
        assert [one.experiment for one in found.assignments] == [mine, *other]
        assert found.first is not None
        assert found.first.variant == ("a" if bucket("s", mine, user) < 0.5 else "b")
        assert {one.unit for one in found.assignments} == {user}


def test_units_are_users_visitors_or_sessions_and_without_one_nobody_takes_part(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    policies = {
        "user": {"until": "rank"}, "visitor": {"source_weights": {"popular": 1.5}}, "session": {"reranking": {"keep_top": 1}},
    }  # fmt: skip
    for kind, policy in policies.items():
        arms = (VARIANTS[0], Variant(name="b", alias="champion", policy=policy))
        store.create(experiment(kind, layer=kind, unit=kind, variants=arms))
    whole, anonymous = assign(state, Subject("u", "v", "s"), Subject("u"))
    assert {one.experiment: one.unit for one in whole.assignments} == {
        "user": "u",
        "visitor": "v",
        "session": "s",
    }
    assert [one.experiment for one in anonymous.assignments] == ["user"]
    before, after = assign(
        state, Subject("anonymous", "v"), Subject("anna", "v")
    )  # who logs in stays one visitor
    variant = {one.experiment: one.variant for one in before.assignments}["visitor"]
    assert {one.experiment: one.variant for one in after.assignments}["visitor"] == variant


def test_only_the_eligible_take_part(state: Any) -> None:
    ExperimentStore(state.client, state.keys).create(experiment(eligibility=Eligibility(devices=("tv",))))
    inside, outside = assign(
        state, Subject("u", context={"device": "tv"}), Subject("u", context={"device": "pc"})
    )
    assert (inside.first is not None, outside.assignments) == (True, ())


def test_users_of_the_holdout_are_in_no_experiment_whatever_runs(state: Any) -> None:
    HoldoutStore(state.client, state.keys).put(Holdout(share=0.3))
    ExperimentStore(state.client, state.keys).create(experiment())
    users = [f"u{n}" for n in range(60)]
    found = assign(state, *map(Subject, users))
    assert [one.held_out for one in found] == [held_out("holdout", 0.3, user) for user in users]
    assert [bool(one.assignments) for one in found] == [not one.held_out for one in found]


def test_testers_get_what_they_ask_for_drafts_included_and_count_nowhere(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(testers={"anna": "b"}))
    store.create(experiment("draft", state="draft", variants=RERANKED))
    named, asked, plain = assign(
        state, Subject("anna"), Subject("u", forced={"draft": "b", "exp": "a"}), Subject("u")
    )
    assert [(one.experiment, one.variant, one.propensity) for one in named.forced] == [("exp", "b", 1.0)]
    assert [(one.experiment, one.variant) for one in asked.forced] == [("draft", "b"), ("exp", "a")]
    assert (named.assignments, asked.assignments, plain.forced) == ((), (), ())
    assert asked.in_effect[0].policy == {"until": "rank"}
    with pytest.raises(ExperimentError, match="forced experiment, is 'none', must be one of: draft, exp"):
        assign(state, Subject("u", forced={"none": "a"}))
    with pytest.raises(ExperimentError, match="variant of experiment exp, is 'c', must be one of: a, b"):
        assign(state, Subject("u", forced={"exp": "c"}))


def test_a_stopped_and_restarted_experiment_gives_every_unit_what_it_had(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(traffic=0.5))
    store.create(experiment("bandit", layer="bandits", variants=RERANKED, allocation=Thompson(floor=0.2)))
    users = [Subject(f"u{n}") for n in range(50)]
    before = assign(state, *users)
    for name in ("exp", "bandit"):
        store.stop(name)
    assert all(not one.assignments for one in assign(state, *users))
    state.client.hset(
        state.keys.posterior("bandit"), mapping={"a:successes": 900, "b:failures": 900, "version": 1800}
    )
    for name in ("exp", "bandit"):
        store.start(name)
    assert assign(state, *users) == before


def test_draws_from_before_a_reassignment_are_void(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(allocation=Thompson(floor=0.1)))
    assign(state, Subject("u"))
    renamed = (VARIANTS[0], Variant(name="c", alias="challenger"), Variant(name="d", alias="night"))
    store.edit(experiment(allocation=Thompson(floor=0.1), variants=renamed), reassign=True)
    first, again = assign(state, Subject("u"), Subject("u"))
    assert first == again
    assert first.first is not None
    assert (first.first.generation, len(first.first.propensities)) == (1, 3)


def test_the_places_of_a_contextual_draw_stay_with_it(state: Any) -> None:
    bandit = experiment(allocation={"kind": "lin-ucb", "features": ("device",)})
    ExperimentStore(state.client, state.keys).create(bandit)
    on_tv, later = assign(
        state, Subject("u", context={"device": "tv"}), Subject("u", context={"device": "mobile"})
    )
    assert on_tv == later
    assert on_tv.first is not None
    assert len(on_tv.first.arm_context) == 2
    assert on_tv.first.policy_version.startswith("lin-ucb-")


def test_a_clock_that_is_a_second_off_flips_no_variant_and_one_that_is_far_off_is_corrected(
    state: Any,
) -> None:
    store = ExperimentStore(state.client, state.keys)
    users = [Subject(f"u{n}") for n in range(30)]
    begins = datetime.now(UTC) - timedelta(hours=1)
    store.create(experiment(starts=begins, ends=begins + timedelta(hours=2)))
    now_ms = time.time_ns() // 1_000_000
    right, slow = assign(state, *users, now_ms=now_ms), assign(state, *users, now_ms=now_ms - 1000)
    assert right == slow
    assert all(one.assignments for one in right)

    async def with_a_clock_off_by(ms: int) -> Assigned:
        client = connect_async(state.url)
        try:
            router = Router(client, state.keys)
            snapshot = await router.snapshot()
            assert snapshot.skew_ms == 0
            off = Snapshot(snapshot.experiments, snapshot.posteriors, snapshot.holdout, skew_ms=-ms)
            router._snapshot = off
            return await router.assign(users[0], now_ms + ms, "live")
        finally:
            await client.aclose()

    day_ms = 86_400_000
    assert asyncio.run(with_a_clock_off_by(day_ms)) == right[0]


def test_a_router_measures_its_clock_against_the_servers(
    state: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    true_ns = time.time_ns

    async def skew() -> int:
        client = connect_async(state.url)
        router = Router(client, state.keys)
        try:
            return (await router.snapshot()).skew_ms
        finally:
            await client.aclose()

    monkeypatch.setattr("tastemaker.experiments.router.time.time_ns", lambda: true_ns() + 3_600_000_000_000)
    assert asyncio.run(skew()) == pytest.approx(-3_600_000, abs=300_000)
    assert "this machine's clock is 3" in caplog.text


def test_an_experiment_that_a_newer_release_wrote_takes_no_requests_and_harms_none(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = ExperimentStore(state.client, state.keys)
    kept = store.create(experiment())
    newer = kept.model_dump_json().replace('"name":"exp"', '"name":"newer","colour":"red"')
    state.client.hset(state.keys.experiments, "newer", newer)
    (found,) = assign(state, Subject("u"))
    assert [one.experiment for one in found.assignments] == ["exp"]
    assert "experiment newer cannot be read" in caplog.text
    with pytest.raises(ExperimentError, match=r"experiment newer cannot be read.*colour"):
        store.list()


def test_of_an_interleaving_every_unit_gets_both_variants(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    duel = store.create(experiment(allocation=Interleaving(), testers={"qa": "b"}))
    one, tester = assign(state, Subject("u"), Subject("qa"))
    (drawn,) = one.assignments
    assert (drawn.variant, drawn.propensities, drawn.alias) == ("interleaved", (1.0,), "champion")
    assert [(team.variant, team.alias) for team in drawn.teams] == [("a", "champion"), ("b", "challenger")]
    assert [team.policy_hash for team in drawn.teams] == [duel.policy_hash("a"), duel.policy_hash("b")]
    assert one.of_team(1).alias == "challenger"
    assert one.without_interleaving().assignments == ()
    assert [one.variant for one in tester.forced] == ["b"]
    assert tester.interleaved is None


def test_two_interleavings_of_different_layers_do_not_run_together(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment("one", allocation=Interleaving(), variants=RERANKED))
    weighed = (RERANKED[0], Variant(name="b", alias="champion", policy={"source_weights": {"popular": 2}}))
    with pytest.raises(
        ExperimentError, match="changes the list as a whole, as does experiment one of layer default"
    ):
        store.create(experiment("two", allocation=Interleaving(), layer="other", variants=weighed))
    store.create(experiment("split", layer="other", variants=weighed))
