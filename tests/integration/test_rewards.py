"""Rewards of every kind from the streams to the policies that learn from them, on a real Valkey."""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from streams import DAY_MS, event, make_consumer, send

from tastemaker import telemetry
from tastemaker.events.attribution import Outcome
from tastemaker.events.log import FIELD
from tastemaker.experiments.allocation import Adaptive, LinThompson, LinUcb, Thompson
from tastemaker.experiments.assignment import Assignment
from tastemaker.experiments.decision_log import Decision, append_decision
from tastemaker.experiments.definition import Experiment, Variant
from tastemaker.experiments.eligibility import Subject
from tastemaker.experiments.forgetting import ERA_HALF_LIVES, HalfLife, Window
from tastemaker.experiments.policies.arms import Arm
from tastemaker.experiments.policies.linear import LinearArm, LinearPosterior
from tastemaker.experiments.posterior import Posterior, posterior_name, read_posterior
from tastemaker.experiments.reward_joiner import RewardJoiner
from tastemaker.experiments.router import Router
from tastemaker.experiments.store import ExperimentStore
from tastemaker.state.connection import connect_async

_ids = itertools.count()
HALF_LIFE_SECONDS = 3600.0


def start(state: Any, allocation: Adaptive, **fields: Any) -> Experiment:
    variants = (Variant(name="a", alias="champion"), Variant(name="b", alias="champion"))
    content = {"name": "exp", "hypothesis": "h", "salt": "s", "attribution_window_seconds": 0.1}
    experiment = Experiment(variants=variants, allocation=allocation, **content | fields)
    ExperimentStore(state.client, state.keys).create(experiment)
    return experiment


def decide(
    state: Any, request_id: str, *assignments: dict[str, Any], user: str = "u", item_ids: Sequence[str] = ()
) -> None:
    record = {
        "decision_id": f"d{next(_ids)}", "request_id": request_id, "timestamp_ms": 1, "origin": "live", "bundle": "b",
        "catalogue": state.keys.catalogue, "unit": user, "user_id": user, "assignments": list(map(json.dumps, assignments)),
        "experiment": assignments[0]["experiment"], "variant": assignments[0]["variant"], "item_ids": item_ids,
    }  # fmt: skip
    state.client.xadd(state.keys.decisions(state.keys.partition(user)), {FIELD: json.dumps(record)})


def watched(request_id: str, seconds: float, user: str = "u", **fields: Any) -> Any:
    return event(user, "i", kind="watch", value=seconds, request_id=request_id, **fields)


def known(state: Any, name: str = "exp") -> Posterior:
    experiment = ExperimentStore(state.client, state.keys).get(name)
    return read_posterior(state.client, state.keys, posterior_name(experiment))


def test_amounts_of_all_partitions_add_up(state: Any) -> None:
    experiment = start(state, Thompson(reward="real"), reward="watch_time")
    worker = make_consumer(state)
    amounts = {"a": [5.0, 0.0, 7.5], "b": [100.0, 0.25]}
    for variant, values in amounts.items():
        for n, value in enumerate(values):
            request_id, user = f"{variant}{n}", f"user-{variant}{n}"
            decide(state, request_id, {"experiment": "exp", "variant": variant}, user=user)
            if value:
                send(state, watched(request_id, value, user))
    assert worker.drain(10)
    found = known(state)
    assert found.arms("ab", None) == tuple(Arm.of(values) for values in amounts.values())
    assert found.version == 5
    shares = found.shares(experiment)
    gauges = [telemetry.PROPENSITY.labels(state.keys.catalogue, "exp", v)._value.get() for v in "ab"]
    assert gauges == pytest.approx(shares, abs=1e-12)


def test_a_context_and_a_half_life_come_through(state: Any) -> None:
    start(state, LinUcb(half_life_seconds=HALF_LIFE_SECONDS, dimension=4))
    worker = make_consumer(state)
    decide(state, "r1", {"experiment": "exp", "variant": "a", "arm_context": [0, 2]})
    decide(state, "r2", {"experiment": "exp", "variant": "a", "arm_context": [0, 3]})
    decide(state, "r3", {"experiment": "exp", "variant": "b", "arm_context": [0, 2]})
    send(state, event("u", "i", request_id="r1"))
    assert worker.drain(10)
    a = LinearArm.empty(4).with_reward([0, 2], 1.0).with_reward([0, 3], 0.0)
    expected = LinearPosterior.of([a, LinearArm.empty(4).with_reward([0, 2], 0.0)], 1.0)
    found = known(state).regression("ab", HalfLife(HALF_LIFE_SECONDS), 4, 1.0)
    # all closed within seconds of one another: discounted by less than 1 / 1000
    assert found.weight_ND == pytest.approx(expected.weight_ND, abs=1e-2)
    assert found.weight_ND[0, 2] > 0 > found.weight_ND[0, 3]
    assert known(state).successes == {"a": 1}


def test_epochs_that_are_over_leave_the_window_and_the_state(state: Any) -> None:
    experiment = start(state, Thompson(epoch_seconds=60, window_seconds=120))
    assert isinstance(experiment.allocation, Thompson)
    window = experiment.allocation.forgetting
    assert isinstance(window, Window)
    joiner = RewardJoiner(state.client, state.keys)
    joiner.rules()

    def join(partition: int, *outcomes: Outcome) -> Posterior:
        for command in joiner.commands(partition, outcomes):
            state.client.execute_command(*command)
        joiner.roll_up(None)
        return known(state)

    def fields() -> set[str]:
        keys = [state.keys.posterior_part(p, "exp") for p in range(state.keys.partitions)]
        return {
            name
            for key in (*keys, state.keys.posterior("exp"))
            for name in state.client.hkeys(key)
            if "@" in name
        }

    first = join(0, Outcome("exp", "a", 1, 30_000), Outcome("exp", "b", 0, 59_999))
    assert first.arms("ab", window) == (Arm(1, 1, 1), Arm(1, 0, 0))
    both = join(1, Outcome("exp", "a", 0, 60_000))
    assert both.arms("ab", window) == (Arm(2, 1, 1), Arm(1, 0, 0))
    later = join(1, Outcome("exp", "b", 1, 120_000))  # the first minute is over
    assert later.arms("ab", window) == (Arm(1, 0, 0), Arm(1, 1, 1))
    assert {name[name.index("@") :] for name in fields()} == {"@60.1", "@60.2"}
    behind = join(0, Outcome("exp", "a", 1, 59_000))  # a partition that is behind
    assert behind.arms("ab", window) == later.arms("ab", window)
    assert {name[name.index("@") :] for name in fields()} == {"@60.1", "@60.2"}
    assert (behind.successes, behind.failures, behind.version) == ({"a": 2, "b": 1}, {"a": 1, "b": 1}, 5)


def test_eras_that_are_over_leave_the_state(state: Any) -> None:
    experiment = start(state, Thompson(half_life_seconds=60.0))
    joiner = RewardJoiner(state.client, state.keys)
    joiner.rules()
    era_ms = ERA_HALF_LIVES * 60_000

    def eras(*outcomes: Outcome) -> set[str]:
        for command in joiner.commands(0, outcomes):
            state.client.execute_command(*command)
        joiner.roll_up(None)
        hashes = (state.keys.posterior_part(0, "exp"), state.keys.posterior("exp"))
        return {name[name.index("~") :] for key in hashes for name in state.client.hkeys(key) if "~" in name}

    assert eras(Outcome("exp", "a", 1, 5)) == {"~60.0.0"}
    assert eras(Outcome("exp", "b", 1, 2 * era_ms - 1)) == {"~60.0.0", "~60.0.1"}
    assert eras(Outcome("exp", "b", 0, 2 * era_ms)) == {"~60.0.1", "~60.0.2"}
    assert isinstance(experiment.allocation, Thompson)
    forgetting = experiment.allocation.forgetting
    first, second = known(state).arms("ab", forgetting)
    assert (first.count, second.count) == (0, pytest.approx(2, rel=1e-4))
    assert known(state).successes == {"a": 1, "b": 1}  # these are never forgotten


def test_a_request_in_two_layers_teaches_both_bandits(state: Any) -> None:
    start(state, Thompson())
    start(state, Thompson(reward="real"), name="shop", layer="prices", reward="watch_time")
    worker = make_consumer(state)
    decide(state, "r1", {"experiment": "exp", "variant": "a"}, {"experiment": "shop", "variant": "b"})
    send(state, event("u", "i", request_id="r1"), watched("r1", 9.0), watched("r1", 2.0))
    assert worker.drain(10)
    assert known(state).arms("ab", None) == (Arm(1, 1, 1), Arm())
    assert known(state, "shop").arms("ab", None) == (Arm(), Arm.of([11.0]))


def test_rewards_of_requests_that_nobody_knows_are_counted_and_leave_nothing(state: Any) -> None:
    start(state, Thompson())
    ignored = telemetry.REWARDS_IGNORED.labels(state.keys.catalogue, "unjoined")._value
    before = ignored.get()
    send(state, event("u", "i", request_id="nowhere"), event("u", "j", request_id="elsewhere"))
    assert make_consumer(state).drain(10)
    assert known(state) == Posterior()
    assert ignored.get() == before + 2


def test_decisions_of_a_broken_assignment_become_dead_letters(state: Any) -> None:
    start(state, Thompson())
    decide(state, "r1", {"experiment": "exp", "variant": "a", "arm_context": ["x"]})
    worker = make_consumer(state)
    assert worker.drain(10)
    (letter,) = state.client.xrange(state.keys.dead_letters(state.keys.partition("u")))
    assert letter[1]["reason"].startswith("assignments must name experiment and variant")
    assert known(state) == Posterior()


def test_another_reward_starts_anew(state: Any) -> None:
    experiment = start(state, Thompson())
    worker = make_consumer(state)
    decide(state, "r1", {"experiment": "exp", "variant": "a"})
    assert worker.drain(10)
    assert known(state).arms("a", None) == (Arm(1, 0, 0),)
    amounts = experiment.model_copy(update={"reward": "watch_time", "allocation": Thompson(reward="real")})
    ExperimentStore(state.client, state.keys).edit(amounts, actor="test", reason="amounts matter")
    assert known(state) == Posterior()
    decide(state, "r2", {"experiment": "exp", "variant": "a"})
    send(state, watched("r2", 3.0))
    assert worker.drain(10)
    assert known(state).arms("a", None) == (Arm.of([3.0]),)


def test_units_assigned_anew_start_anew(state: Any) -> None:
    experiment = start(state, Thompson())
    worker = make_consumer(state)
    decide(state, "r1", {"experiment": "exp", "variant": "a"})
    worker.step()
    other = experiment.model_copy(update={"salt": "another"})
    ExperimentStore(state.client, state.keys).edit(other, actor="test", reason="a new draw", reassign=True)
    decide(state, "r2", {"experiment": "exp", "variant": "b"})
    assert worker.drain(10)
    assert known(state).arms("ab", None) == (Arm(), Arm(1, 0, 0))


def test_what_the_previous_release_summed_up_goes_on(state: Any) -> None:
    experiment = start(state, Thompson())
    part = state.keys.posterior_part(state.keys.partition("u"), "exp")
    state.client.hset(part, mapping={"a:successes": "3", "b:failures": "2"})
    decide(state, "r1", {"experiment": "exp", "variant": "a"})
    assert make_consumer(state).drain(10)
    assert known(state).arms(experiment.variant_names, None) == (Arm(4, 3, 3), Arm(2, 0, 0))


def test_a_router_follows_what_the_joiner_learned_in_each_context(state: Any) -> None:
    """Round and round: phones like variant a, desktops variant b; the next day's draws know."""
    start(state, LinThompson(deviation=0.2, floor=0.05), attribution_window_seconds=1.0)
    worker = make_consumer(state)

    def draws(day: int, num: int) -> list[tuple[str, Assignment]]:
        async def run() -> list[tuple[str, Assignment]]:
            client = connect_async(state.url)
            router = Router(client, state.keys)
            now_ms = int(time.time() * 1000) + day * DAY_MS
            found = []
            for n in range(num):
                device = ("phone", "desktop")[n % 2]
                assigned = await router.assign(Subject(f"u{n}", context={"device": device}), now_ms, "live")
                assert assigned.first is not None
                found.append((device, assigned.first))
            await client.aclose()
            return found

        return asyncio.run(run())

    for n, (device, drawn) in enumerate(draws(0, 200)):
        assert drawn.propensities == pytest.approx((0.5, 0.5))
        decision = Decision(
            decision_id=f"d{n}", request_id=f"r{n}", timestamp_ms=1, catalogue=state.keys.catalogue, origin="live",
            unit=drawn.unit, user_id=drawn.unit, bundle="b", experiment="exp", variant=drawn.variant,
            assignments=[drawn.logged()],
        )  # fmt: skip
        append_decision(state.client, state.keys, decision, state.settings.state)
        if (device, drawn.variant) in (("phone", "a"), ("desktop", "b")):
            send(state, event(drawn.unit, "i", request_id=f"r{n}"))
    assert worker.drain(20)
    assert known(state).version == 200
    for device, drawn in draws(1, 20):
        better = ("phone", "desktop").index(device)
        assert drawn.propensities[better] > 0.9
        assert drawn.policy_version == "lin-thompson-200"


def test_a_purchase_without_a_request_counts_for_the_last_list_that_showed_its_item(state: Any) -> None:
    start(state, Thompson(reward="real"), reward="watch_time", attribution_window_seconds=0.4)
    worker = make_consumer(state)
    decide(state, "r1", {"experiment": "exp", "variant": "a"}, item_ids=["i", "j"])
    worker.step()
    decide(state, "r2", {"experiment": "exp", "variant": "b"}, item_ids=["j"])
    worker.step()
    send(state, event("u", "i", kind="watch", value=5.0), event("u", "j", kind="watch", value=2.0))
    send(state, event("u", "k", kind="watch", value=99.0))
    worker.step()
    assert 0 < state.client.pttl(state.keys.shown("u")) <= 400
    assert worker.drain(10)
    assert known(state).arms("ab", None) == (Arm.of([5.0]), Arm.of([2.0]))
