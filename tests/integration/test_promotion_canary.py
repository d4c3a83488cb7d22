"""The canary's gate: users step by step, on a real Valkey and a real MLflow store."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from canary_world import World

from tastemaker.config_experiments import CanaryGuardrail, CanarySettings
from tastemaker.events.schema import Event
from tastemaker.promotion import canary_gate
from tastemaker.promotion import promoter as promoter_module
from tastemaker.promotion.canary_gate import Canary
from tastemaker.promotion.gate import Case
from tastemaker.promotion.promoter import Promoter, PromotionOrder
from tastemaker.promotion.record import read_gates
from tastemaker.registry.live import Watcher, read_live

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

HOUR_MS = 3_600_000
STEPS = (0.05, 0.2)
CLICKS = CanaryGuardrail(metric="rewarded_requests", margin=0.1)


@pytest.fixture
def world(state, tmp_path):
    return World(state, tmp_path / "bundles")


def canary(world, now_ms=None, **fields):
    limits = {
        "steps": STEPS,
        "hours": 1.0,
        "requests": 100,
        "guardrails": (CLICKS,),
    } | fields.pop("limits", {})
    case = world.case(now_ms, canary=CanarySettings(**limits), **fields)
    return Canary(world.registry).ask(case)


def traffic(world, name, since_ms, ours, theirs, users=400):
    """Users of both variants who ask once and click at these rates."""
    luck = np.random.default_rng(0)
    decisions, events = [], []
    for n in range(users):
        for variant, rate in (("champion", theirs), ("canary", ours)):
            request_id, at_ms = f"{variant}-{since_ms}-{n}", since_ms + n % 5
            decisions.append(
                world.decision(
                    request_id, at_ms, unit=request_id, experiment=name, variant=variant, propensity=0.5,
                    propensities=(0.5, 0.5), epoch=0,
                )
            )  # fmt: skip
            if luck.random() < rate:
                events.append(
                    Event(
                        event_id=request_id, user_id=request_id, item_id="i1", kind="click", timestamp_ms=at_ms + 1,
                        request_id=request_id, origin="live",
                    )
                )  # fmt: skip
    world.log(decisions, events)


def begun(world):
    """The experiment of a canary that begins now, and when it began."""
    world.gateway(champion=1, canary=2)
    result = canary(world)
    assert result.outcome == "waiting"
    [experiment] = world.experiments.list()
    assert result.reason == f"{experiment.name} begins with 5.0% of users"
    return experiment, world.experiments.history(experiment.name)[-1].at_ms


def test_a_canary_begins_with_few_users_and_goes_on_step_by_step(world):
    experiment, since_ms = begun(world)
    assert experiment.name.startswith("canary-v2-against-v1-")
    assert [(v.name, v.alias) for v in experiment.variants] == [
        ("champion", "champion"),
        ("canary", "canary"),
    ]
    assert (experiment.traffic, experiment.state) == (0.1, "running")  # as many have the champion, to compare
    assert read_live(world.state.client, world.state.keys).aliases["canary"].version == 2
    assert canary(world).reason.endswith("step 1 of 2, 5.0% of users: no answer can be judged yet")

    traffic(world, experiment.name, since_ms, 0.5, 0.5)
    early = canary(world, since_ms + HOUR_MS // 2)
    assert (early.outcome, early.numbers["requests"], early.numbers["step"]) == ("waiting", 400.0, 1.0)
    assert "400 requests in 0.5 h, of 100 requests and 1 h" in early.reason

    dry = canary(world, since_ms + 2 * HOUR_MS, may_begin=False)
    assert dry.reason.endswith("the step is over, the next is not begun")
    over = canary(world, since_ms + 2 * HOUR_MS)
    assert (over.outcome, over.reason) == (
        "waiting",
        f"{experiment.name} goes on with step 2 of 2, 20.0% of users",
    )
    [grown] = world.experiments.list()
    assert (grown.traffic, grown.state) == (0.4, "running")
    again = canary(world, since_ms + 2 * HOUR_MS)
    assert (again.outcome, again.numbers["requests"], again.numbers["step"]) == ("waiting", 0.0, 2.0)

    since_ms = world.experiments.history(experiment.name)[-1].at_ms
    traffic(world, experiment.name, since_ms, 0.5, 0.5)
    done = canary(world, since_ms + 2 * HOUR_MS)
    assert (done.outcome, done.numbers["step"]) == ("passed", 2.0)


def test_a_canary_that_could_not_be_judged_moves_nothing(world):
    """Its settings name a metric that nobody knows: said before the alias `canary` is given away."""
    world.gateway(champion=1, canary=2)
    result = canary(world, limits={"guardrails": (CLICKS, CanaryGuardrail(metric="joy", margin=0.1))})
    assert result.outcome == "refused"
    assert result.reason.startswith("it cannot be judged: guardrail, is 'joy', must be one of: clicks_per")

    wrong = world.with_limits(
        canary=CanarySettings(steps=STEPS, guardrails=(CanaryGuardrail(metric="joy", margin=0.1),))
    )
    ended = Promoter(wrong, world.home, world.registry, world.store).promote(PromotionOrder(2, actor="ann"))
    assert (ended.state, ended.gates[-1].outcome) == ("refused", "refused")
    assert ended.gates[-1].reason.startswith("it cannot be judged: metric, is 'joy'")
    assert read_gates(world.registry, world.catalogue, 2)["canary"] == ended.gates[-1]
    assert {name: v.number for name, v in world.registry.aliases(world.catalogue).items()} == {"champion": 1}
    assert "canary" not in world.registry.aliases(world.case().settings.catalogue)
    assert world.experiments.list() == ()


def test_a_canary_whose_users_click_less_is_refused_at_once(world):
    experiment, since_ms = begun(world)
    traffic(world, experiment.name, since_ms, 0.2, 0.5)
    result = canary(world, since_ms + HOUR_MS // 2)
    assert result.outcome == "refused"
    assert "rewarded_requests of canary is 0.2" in result.reason


def test_a_canary_that_somebody_stopped_is_refused_until_another_is_asked_for(world):
    experiment, _ = begun(world)
    world.experiments.stop(experiment.name, actor="guard", reason="clicks fell")
    result = canary(world)
    assert (result.outcome, result.reason) == (
        "refused", f"{experiment.name} was stopped by guard: clicks fell; --again begins another",
    )  # fmt: skip
    later = time.time_ns() // 1_000_000 + 2000  # names tell seconds
    assert canary(world, later, again=True).outcome == "waiting"
    assert [one.state for one in world.experiments.list()] == ["stopped", "running"]


def test_a_canary_is_not_begun_where_it_cannot_be(world):
    assert canary(world, limits={"steps": ()}).reason == "promotion.canary.steps is empty"
    assert canary(world).reason == "no gateway serves"
    world.gateway(champion=1, canary=2)
    assert canary(world, may_begin=False).outcome == "not applicable"
    lone = replace(world.case(canary=CanarySettings(steps=STEPS)), champion=None, champion_number=None)
    assert Canary(world.registry).ask(lone).reason == "there is no other champion to compare with"
    assert world.experiments.list() == ()


def test_a_canary_that_gateways_do_not_answer_from_yet_waits_without_users(world, monkeypatch):
    monkeypatch.setattr(canary_gate, "_ANSWER_SECONDS", 0.0)
    world.gateway(champion=1)
    result = canary(world)
    assert result.outcome == "waiting"
    assert result.reason.startswith("not every gateway answers from version 2 yet")
    assert world.experiments.list() == ()
    world.gateway(champion=1, canary=2)
    assert canary(world).outcome == "waiting"
    moves = [move for move in world.registry.history(world.catalogue) if move.alias == "canary"]
    assert len(moves) == 1


def test_a_promotion_waits_for_its_canary_and_ends_it(world, monkeypatch):
    world.gateway(champion=1, canary=2)
    limits = CanarySettings(steps=(0.1,), hours=0.0, requests=100, guardrails=(CLICKS,))
    settings = world.with_limits(canary=limits)
    promoter = Promoter(settings, world.home, world.registry, world.store)
    order = PromotionOrder(2, actor="ann", reason="better")
    waiting = promoter.promote(order)
    assert (waiting.state, world.registry.aliases(world.catalogue)["champion"].number) == ("waiting", 1)
    assert promoter.promote(replace(order, alias="shadow")).state == "promoted"
    [experiment] = world.experiments.list()
    assert experiment.state == "running"
    since_ms = world.experiments.history(experiment.name)[-1].at_ms
    traffic(world, experiment.name, since_ms, 0.5, 0.5)
    assert promoter.promote(order).state == "waiting"  # no request's window of 5 minutes has closed
    monkeypatch.setattr(promoter_module, "Case", partial(Case, now_ms=since_ms + HOUR_MS))
    promoted = promoter.promote(order)
    assert (promoted.state, promoted.forced, promoted.gates[-1].outcome) == ("promoted", False, "passed")
    named = {name: v.number for name, v in world.registry.aliases(world.catalogue).items()}
    assert named == {"champion": 2, "shadow": 2}
    assert [one.state for one in world.experiments.list()] == ["stopped"]
    assert (
        read_live(world.state.client, world.state.keys).aliases["champion"].version == 1
    )  # until who serves looks
    live = Watcher(world.registry, world.state.client, world.state.keys).poll()
    assert live.aliases["champion"].version == 2
