"""Gates that look at what is served: recorded requests, the shadow, the log; and who sees a move. On a real Valkey and a real MLflow store."""

import time

import pytest
from canary_world import World
from promotable import ITEM_IDS

from tastemaker.experiments.decision_log import SHADOW_FAILED
from tastemaker.promotion import latency_gate
from tastemaker.promotion.latency_gate import latency
from tastemaker.promotion.off_policy_gate import off_policy
from tastemaker.promotion.shadow_gate import shadow
from tastemaker.registry.live import Watcher
from tastemaker.stages.pipeline import Pipeline
from tastemaker.stages.recorded import Recorded

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


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
