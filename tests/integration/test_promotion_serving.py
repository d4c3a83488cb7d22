"""Gates that look at what is served: recorded requests, the shadow, the canary; on a real Valkey and a real MLflow store."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from promotable import ITEM_IDS, write_bundle

from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config_experiments import CanaryGuardrail, CanarySettings, PromotionSettings
from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import SHADOW_FAILED, Decision, decision_table, encode_decision
from tastemaker.experiments.store import ExperimentStore
from tastemaker.promotion import canary_gate, latency_gate
from tastemaker.promotion import promoter as promoter_module
from tastemaker.promotion.canary_gate import Canary
from tastemaker.promotion.gate import Case
from tastemaker.promotion.latency_gate import latency
from tastemaker.promotion.off_policy_gate import off_policy
from tastemaker.promotion.promoter import Promoter, PromotionOrder
from tastemaker.promotion.record import read_gates
from tastemaker.promotion.shadow_gate import shadow
from tastemaker.registry.client import Registry
from tastemaker.registry.live import Watcher, read_live
from tastemaker.registry.reports import Report
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.recorded import Recorded

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

HOUR_MS = 3_600_000
STEPS = (0.05, 0.2)
CLICKS = CanaryGuardrail(metric="rewarded_requests", margin=0.1)


class World:
    """Version 1, the champion, and version 2, which wants its place, in a catalogue of the session's Valkey."""

    def __init__(self, state, folder):
        self.state, self.home, self.settings = state, state.home, state.settings
        self.registry, self.store = Registry(self.settings, self.home), BundleStore(folder)
        self.catalogue = self.settings.catalogue
        for marker in "12":
            ref = write_bundle(self.store, catalogue=self.catalogue, marker=marker)
            self.registry.publish(self.catalogue, ref, {})
        self.registry.set_alias(self.catalogue, "champion", 1, "ann", "first")
        Watcher(self.registry, state.client, state.keys).poll()

    def case(self, now_ms=None, again=False, may_begin=True, **promotion):
        versions = [self.registry.version(self.catalogue, number) for number in (2, 1)]
        candidate, champion = (Bundle.open(self.store, version.ref) for version in versions)
        return Case(
            settings=self.with_limits(**promotion), home=self.home, number=2, alias="champion",
            candidate=candidate, champion=champion, champion_number=1, again=again, may_begin=may_begin,
            now_ms=now_ms or time.time_ns() // 1_000_000,
        )  # fmt: skip

    def with_limits(self, **promotion):
        return self.settings.model_copy(update={"promotion": PromotionSettings(**promotion)})

    def log(self, decisions, events=()):
        entries = [Entry(f"{one.timestamp_ms}-{n}", encode_decision(one)) for n, one in enumerate(decisions)]
        write_days(self.home / "decisions" / self.catalogue, decision_table(entries))
        if events:
            rows = [Entry(f"{one.timestamp_ms}-{n}", one.model_dump_json()) for n, one in enumerate(events)]
            write_days(self.home / "events" / self.catalogue, event_table(rows))

    def decision(self, request_id, at_ms, **fields):
        return Decision(
            decision_id=request_id, request_id=request_id, timestamp_ms=at_ms, catalogue=self.catalogue,
            origin="live", item_ids=fields.pop("items", ["i1", "i2", "i3", "i4"]),
            user_id=fields.get("unit", "u"), **{"unit": "u", "bundle": "b"} | fields,
        )  # fmt: skip

    def gateway(self, **answers):
        """A gateway that answers aliases from versions."""
        report = Report(1, (), time.time_ns() // 1_000_000, answers=answers)
        self.state.client.hset(self.state.keys.ready, "gateway/a", report.encode())

    @property
    def experiments(self):
        return ExperimentStore(self.state.client, self.state.keys)


@pytest.fixture
def world(state, tmp_path):
    return World(state, tmp_path / "bundles")


class Clock:
    """A pipeline whose answers take so many milliseconds of a clock that nothing else moves."""

    def __init__(self, monkeypatch, **took_ms):
        self.now, self.took_ms = 0.0, took_ms
        monkeypatch.setattr(latency_gate, "perf_counter", lambda: self.now)
        monkeypatch.setattr(Pipeline, "from_bundle", staticmethod(self.pipeline))

    def pipeline(self, bundle):
        clock, took_ms = self, self.took_ms[bundle.manifest.recipe]

        class Answers:
            def recommend(self, queries):
                clock.now += took_ms / 1000

        return Answers()


def record(world, number=8):
    requests = [Recorded(history=ITEM_IDS[:n]).encode() for n in range(number)]
    world.state.client.lpush(world.state.keys.recorded, *requests)


def test_a_version_that_is_too_slow_for_recorded_requests_is_refused(world, monkeypatch):
    record(world)
    Clock(monkeypatch, demo2=120.0, demo1=80.0)
    result = latency(world.case())
    assert (result.outcome, result.limit) == ("refused", 100.0)
    assert result.value == pytest.approx(120.0)
    assert result.reason == "95 of 100 of 8 recorded requests within 120.0 ms; the champion takes 80.0 ms"
    assert latency(world.case(latency_ms=150.0)).outcome == "passed"


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome", "limit"),
    [(45.0, 20.0, "refused", 40.0), (39.0, 20.0, "passed", 40.0), (9.0, 1.0, "passed", 10.0), (11.0, 1.0, "refused", 10.0)],
)  # fmt: skip
def test_a_version_that_takes_many_times_what_the_champion_does_is_refused(
    world, monkeypatch, ours, theirs, outcome, limit
):
    record(world)
    Clock(monkeypatch, demo2=ours, demo1=theirs)
    result = latency(world.case())
    assert (result.outcome, result.limit) == (outcome, pytest.approx(limit))


def test_without_recorded_requests_latency_does_not_apply(world):
    assert latency(world.case()).reason == "fewer than 5 requests were recorded in the last hour"


def test_a_version_that_cannot_answer_is_refused(world):
    record(world)  # these bundles have no pipeline
    result = latency(world.case())
    assert result.outcome == "refused"
    assert result.reason.startswith("it cannot answer: ")


def shadowed(world, number, items, **fields):
    """Pairs of answers of which the shadow's has these items."""
    now_ms = time.time_ns() // 1_000_000 - 1000
    bundle = world.case().candidate.bundle_id
    pairs = []
    for n in range(number):
        pairs.append(world.decision(f"r{n}", now_ms + n, unit=f"u{n}", timings_ms={"total": 20.0}))
        mine = {"items": items, "timings_ms": {"total": 30.0}, "bundle": bundle} | fields
        pairs.append(world.decision(f"s{n}", now_ms + n, unit=f"u{n}", shadow_of=f"r{n}", **mine))
    world.log(pairs)


def test_a_shadow_that_answers_like_the_champion_passes(world):
    shadowed(world, 120, ["i1", "i2", "i9", "i8"])
    result = shadow(world.case())
    assert (result.outcome, result.value, result.limit) == ("passed", 0.5, 0.05)
    assert result.reason == "120 answers, overlap 50.0%, 0.0% failed"
    few = shadow(world.case(shadow_pairs=121))
    assert (few.outcome, few.reason) == (
        "not applicable",
        "it was asked 120 times as the shadow, fewer than 121",
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"items": ["x", "y"]}, "it shares 0.0% of the shown items"),
        ({"items": [], "rungs": [SHADOW_FAILED]}, "100.0% of its answers failed"),
        ({"timings_ms": {"total": 900.0}}, "99 of 100 take 900 ms, beside 20 ms of what was shown"),
    ],
)
def test_a_shadow_that_is_outlandish_fails_or_is_late_is_refused(world, fields, reason):
    shadowed(world, 120, **{"items": ["i1"]} | fields)
    result = shadow(world.case())
    assert (result.outcome, result.reason) == ("refused", reason)


def test_a_version_that_was_never_the_shadow_is_not_judged_by_another_that_was(world):
    shadowed(world, 120, ["x"], bundle="another")
    result = shadow(world.case())
    assert result.outcome == "not applicable"
    assert "was mirrored to bundle" in result.reason


def test_without_a_log_of_drawn_lists_the_off_policy_gate_does_not_apply(world):
    result = off_policy(world.case())
    assert (result.outcome, bool(result.reason)) == ("not applicable", True)


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


def test_a_move_in_mlflow_is_seen_by_what_serves_and_kept_once_whoever_watches(world):
    watchers = [Watcher(world.registry, world.state.client, world.state.keys) for _ in range(2)]
    world.registry._client.set_registered_model_alias(world.catalogue, "champion", "2")
    lives = [watcher.poll() for watcher in [*watchers, *watchers]]
    assert [live.aliases["champion"].version for live in lives] == [2, 2, 2, 2]
    assert lives[0].previous.version == 1  # kept by replicas, so that a rollback need load nothing
    moves = world.registry.history(world.catalogue)
    assert [(move.version, move.kind, move.actor) for move in moves] == [
        (1, "set", "ann"), (2, "outside", "mlflow"),
    ]  # fmt: skip
    assert world.registry.rollback(world.catalogue, "champion").number == 1
    assert watchers[0].poll().aliases["champion"].version == 1
    assert [move.kind for move in world.registry.history(world.catalogue)] == ["set", "outside", "rollback"]


def test_a_version_that_mlflow_alone_knows_is_never_served(world):
    foreign = world.registry._client.create_model_version(world.catalogue, "file:///elsewhere")
    world.registry._client.set_registered_model_alias(world.catalogue, "champion", foreign.version)
    live = Watcher(world.registry, world.state.client, world.state.keys).poll()
    assert live.aliases["champion"].version == 1
    assert world.registry.rollback(world.catalogue, "champion").number == 1
