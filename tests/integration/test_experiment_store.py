"""Experiments as they are kept, on a real Valkey: layers, starts and stops, ramps, edits, history, the holdout."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from drafts import VARIANTS, experiment

from tastemaker.errors import ConfigError, ExperimentError, UnknownExperimentError
from tastemaker.experiments.definition import Experiment, Fixed, RampStep, Thompson, Variant
from tastemaker.experiments.holdout import Holdout, HoldoutStore
from tastemaker.experiments.layers import overlap, size
from tastemaker.experiments.posterior import posterior_name
from tastemaker.experiments.store import ExperimentStore
from tastemaker.registry.live import LiveAliases, LiveVersion

RERANKED = (
    Variant(name="a", alias="champion"),
    Variant(name="b", alias="champion", policy={"reranking": {"keep_top": 1}}),
)
WEIGHTED = (
    Variant(name="a", alias="champion"),
    Variant(name="b", alias="champion", policy={"source_weights": {"popular": 2.0}}),
)


@pytest.fixture
def store(state: Any) -> ExperimentStore:
    return ExperimentStore(state.client, state.keys)


def make_live(state: Any, **versions: int) -> None:
    aliases = {
        alias: LiveVersion(version=n, uri=f"{n}.json", sha256=str(n) * 64) for alias, n in versions.items()
    }
    state.client.set(state.keys.live, LiveAliases(generation=1, aliases=aliases).model_dump_json())


def test_a_draft_starts_stops_and_starts_again_with_the_units_that_it_had(store: ExperimentStore) -> None:
    assert store.create(experiment(traffic=0.2)).state == "draft"
    with pytest.raises(ExperimentError, match="experiment exp is a draft: delete it"):
        store.stop("exp")
    first = store.start("exp", actor="anna", reason="go")
    assert (first.state, first.version, size(first.ranges)) == ("running", 2, 2000)
    with pytest.raises(ExperimentError, match="experiment exp runs already"):
        store.start("exp")
    stopped = store.stop("exp", actor="guardrail", reason="latency_ms is 12% worse")
    assert store.stop("exp") == stopped  # again changes nothing
    again = store.start("exp")
    assert (again.ranges, again.course.generation) == (first.ranges, 0)
    pause = again.course.started_ms - first.course.started_ms
    assert 0 <= pause <= again.course.started_ms
    history = store.history("exp")
    assert [(c.version, c.action, c.actor, c.reason) for c in history] == [
        (1, "create", "local", ""), (2, "start", "anna", "go"),
        (3, "stop", "guardrail", "latency_ms is 12% worse"), (4, "start", "local", ""),
    ]  # fmt: skip
    assert history[2].changes["state"] == ["running", "stopped"]
    assert sorted(c.at_ms for c in history) == [c.at_ms for c in history]


def test_experiments_of_a_layer_share_no_unit_and_no_more_than_all_of_them(store: ExperimentStore) -> None:
    one = store.create(experiment("one", traffic=0.3, state="running"))
    two = store.create(experiment("two", traffic=0.5, state="running"))
    assert overlap(one.ranges, two.ranges) == 0
    store.create(experiment("three", traffic=0.2001))
    full = r"experiment one and two run in layer default for origin live; traffic of three, is '0.2001', must be at most 0.2"
    with pytest.raises(ExperimentError, match=full):
        store.start("three")
    grown = store.ramp("two", traffic=0.7)
    assert grown.ranges[: len(two.ranges)][0][0] == two.ranges[0][0]
    assert overlap(grown.ranges, one.ranges) == 0
    with pytest.raises(ExperimentError, match=r"must be at most 0.7"):
        store.ramp("two", traffic=0.8)
    assert store.get("two") == grown
    store.create(experiment("elsewhere", origin="simulator", state="running"))
    with pytest.raises(ExperimentError, match="unit of visits, is 'session', must be user, as in one"):
        store.create(experiment("visits", unit="session", traffic=0.1, state="running"))


def test_units_that_another_took_meanwhile_are_not_taken_back_silently(store: ExperimentStore) -> None:
    store.create(experiment("one", traffic=0.6, state="running"))
    store.stop("one")
    two = store.create(experiment("two", traffic=0.4, state="running"))
    with pytest.raises(ExperimentError, match=r"units of experiment one take part in two by now: stop two"):
        store.start("one")
    again = store.start("one", reassign=True)
    assert (size(again.ranges), overlap(again.ranges, two.ranges)) == (6000, 0)
    assert (again.course.generation, again.course.reassigned_ms > 0) == (1, True)


def test_an_experiment_that_is_moved_to_another_layer_takes_nobodys_units_there(
    store: ExperimentStore,
) -> None:
    store.create(experiment("one", traffic=0.6, state="running"))
    store.create(experiment("two", traffic=0.4, layer="other", variants=RERANKED, state="running"))
    with pytest.raises(ExperimentError, match="layer decides who takes part"):
        store.edit(experiment("two", traffic=0.4, variants=RERANKED))
    moved = store.edit(experiment("two", traffic=0.4, variants=RERANKED), reassign=True)
    assert (moved.layer, size(moved.ranges), overlap(moved.ranges, store.get("one").ranges)) == (
        "default",
        4000,
        0,
    )


def test_a_ramp_reserves_its_peak(store: ExperimentStore) -> None:
    ramped = experiment(
        "ramped", traffic=0.1, ramp=(RampStep(traffic=0.9, after_seconds=3600),), state="running"
    )
    kept = store.create(ramped)
    assert size(kept.ranges) == 9000
    assert kept.traffic_at(kept.course.started_ms) == 0.1
    with pytest.raises(ExperimentError, match=r"at most 0.1"):
        store.create(experiment("two", traffic=0.2, state="running"))
    flat = store.ramp("ramped", traffic=0.5)
    assert (flat.ramp, size(flat.ranges)) == ((), 5000)
    assert flat.ranges[0][0] == kept.ranges[0][0]


def test_an_edit_that_flips_units_is_refused_unless_asked_for(store: ExperimentStore) -> None:
    store.create(experiment(traffic=0.4, state="running"))
    uneven = experiment(traffic=0.4, allocation=Fixed(weights=(0.9, 0.1)))
    with pytest.raises(
        ExperimentError, match=r"would change what units get.*weights become 0.9 0.1.*reassign"
    ):
        store.edit(uneven)
    with pytest.raises(ExperimentError, match=r"traffic falls from 0.4 to 0.1"):
        store.ramp("exp", traffic=0.1)
    assert store.get("exp").version == 1
    harmless = store.edit(experiment(traffic=0.4, hypothesis="better", metric="revenue"), actor="bob")
    assert (harmless.state, harmless.version, harmless.course.generation) == ("running", 2, 0)
    asked = store.edit(uneven.model_copy(update={"version": 2}), reassign=True)
    assert (asked.version, asked.course.generation) == (3, 1)
    with pytest.raises(ExperimentError, match="version of experiment exp, is 2, must be 3, as kept"):
        store.edit(uneven.model_copy(update={"version": 2}))
    assert store.history("exp")[1].changes == {
        "hypothesis": ["h", "better"],
        "metric": ["clicks_per_request", "revenue"],
    }
    stopped = store.stop("exp")
    with pytest.raises(ExperimentError, match="salt decides who takes part"):
        store.edit(stopped.model_copy(update={"salt": "t"}))


def test_weights_are_a_fixed_splits_alone_and_checked(store: ExperimentStore) -> None:
    store.create(experiment("bandit", allocation=Thompson()))
    with pytest.raises(ExperimentError, match="allocation of bandit, is 'thompson', must be fixed"):
        store.ramp("bandit", weights=[0.5, 0.5])
    store.create(experiment())
    with pytest.raises(ConfigError, match=r"add up to 0.9"):
        store.ramp("exp", weights=[0.5, 0.4])
    assert store.ramp("exp", weights=[0.8, 0.2]).allocation == Fixed(
        weights=(0.8, 0.2)
    )  # a draft has no units


def test_two_layers_must_not_change_the_same_stage(store: ExperimentStore) -> None:
    store.create(experiment("bundles", state="running"))
    store.create(experiment("order", layer="order", variants=RERANKED, state="running"))
    store.create(experiment("sources", layer="sources", variants=WEIGHTED, state="running"))
    with pytest.raises(
        ExperimentError,
        match="variant b of experiment more changes reranking, as does experiment order of layer order",
    ):
        store.create(experiment("more", layer="other", variants=RERANKED, state="running"))
    with pytest.raises(
        ExperimentError, match="changes the bundle, as does experiment bundles of layer default"
    ):
        store.create(experiment("more", layer="other", state="running"))
    store.create(experiment("aside", layer="other", origin="simulator", state="running"))


def test_a_variant_needs_a_bundle_that_serves(state: Any, store: ExperimentStore) -> None:
    make_live(state, champion=3, night=7)
    with pytest.raises(
        ExperimentError, match="bundle of variant b, is 'challenger', must be one of: champion, night"
    ):
        store.create(experiment(state="running"))
    assert store.list() == ()
    by_number = (VARIANTS[0], Variant(name="b", alias="version:7"))
    store.create(experiment(variants=by_number, state="running"))
    store.create(experiment("later", variants=(VARIANTS[0], Variant(name="b", alias="version:8")), layer="l"))
    with pytest.raises(ExperimentError, match="bundle of variant b, is 'version:8'"):
        store.start("later")


def test_what_is_over_does_not_start_and_only_drafts_are_deleted(store: ExperimentStore) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    store.create(experiment("past", ends=past))
    with pytest.raises(ExperimentError, match="end of experiment past"):
        store.start("past")
    store.delete("past", actor="anna")
    assert [c.action for c in store.history("past")] == ["create", "delete"]
    store.create(experiment(state="running"))
    with pytest.raises(ExperimentError, match="experiment exp has assigned units: stop it"):
        store.delete("exp")
    for call in (store.start, store.stop, store.delete, store.get):
        with pytest.raises(UnknownExperimentError, match="no experiment nobody, must be one of: exp"):
            call("nobody")


def test_many_who_start_at_once_get_no_more_than_the_layer_has(state: Any, store: ExperimentStore) -> None:
    names = [f"e{n}" for n in range(8)]
    for name in names:
        store.create(experiment(name, traffic=0.3))

    def start(name: str) -> bool:
        try:
            ExperimentStore(state.client, state.keys).start(name)
        except ExperimentError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(start, names)) == 3
    running = [e for e in store.list() if e.state == "running"]
    assert sum(overlap(a.ranges, b.ranges) for a in running for b in running if a is not b) == 0


def test_an_experiment_of_an_earlier_release_is_read_and_stopped(state: Any, store: ExperimentStore) -> None:
    old = {
        "name": "old", "hypothesis": "h", "layer": "default", "salt": "s", "unit": "user", "origin": "live",
        "variants": [{"name": "a", "alias": "champion", "policy": None}, {"name": "b", "alias": "x", "policy": None}],
        "allocation": {"kind": "thompson", "floor": 0.05, "epoch_seconds": 86400, "prior": [1.0, 1.0]},
        "attribution_window_seconds": 1800.0, "state": "running",
    }  # fmt: skip
    state.client.hset(state.keys.experiments, "old", json.dumps(old))
    assert (size(store.get("old").ranges), store.history("old")) == (10_000, ())
    with pytest.raises(ExperimentError, match="experiment old runs in layer default"):
        store.create(experiment("new", traffic=0.1, state="running"))
    assert store.stop("old").state == "stopped"
    assert store.start("old").state == "running"


def test_a_bandit_of_an_earlier_release_goes_on_with_what_it_learned_whatever_is_done_to_it(
    state: Any, store: ExperimentStore
) -> None:
    """Its own file does not say how context is encoded, nor does what that release wrote."""
    make_live(state, champion=1, challenger=2)
    file: dict[str, Any] = {
        "name": "old", "hypothesis": "h", "salt": "s", "variants": [one.model_dump(mode="json") for one in VARIANTS],
        "allocation": {"kind": "lin-ucb"}, "state": "draft",
    }  # fmt: skip
    state.client.hset(state.keys.experiments, "old", json.dumps(file))
    learned = posterior_name(store.start("old"))
    for change in ({}, {"hypothesis": "another"}, {"allocation": {"kind": "lin-ucb", "ridge": 2.0}}):
        assert posterior_name(store.edit(Experiment.parse(file | change, "file"))) == learned
        kept = json.loads(state.client.hget(state.keys.experiments, "old"))
        assert "encoding" not in kept["allocation"]  # the release before does not know it
    assert posterior_name(store.ramp("old", traffic=1.0)) == learned
    other = Experiment.parse(file | {"allocation": {"kind": "lin-ucb", "encoding": 2}}, "file")
    with pytest.raises(ExperimentError, match="encoding becomes 2, was 1"):
        store.edit(other)
    assert posterior_name(store.edit(other, reassign=True)) != learned
    assert json.loads(state.client.hget(state.keys.experiments, "old"))["allocation"]["encoding"] == 2
    store.stop("old")  # and brought to what that release reads, as before a rollback
    back = file | {"allocation": {"kind": "lin-ucb", "encoding": 1}}
    assert posterior_name(store.edit(Experiment.parse(back, "file"), reassign=True)) != learned
    assert "encoding" not in json.loads(state.client.hget(state.keys.experiments, "old"))["allocation"]


def test_the_holdout_is_not_changed_under_what_runs(state: Any, store: ExperimentStore) -> None:
    kept = HoldoutStore(state.client, state.keys)
    assert kept.get() == Holdout()
    kept.put(Holdout(share=0.05), actor="anna", reason="from now on")
    store.create(experiment(state="running"))
    with pytest.raises(ExperimentError, match="would take users out of exp"):
        kept.put(Holdout(share=0.1))
    assert kept.put(Holdout(share=0.1), reassign=True) == kept.get() == Holdout(share=0.1)
    first, second = kept.history()
    assert (first.actor, first.changes) == ("anna", {"share": [0.0, 0.05], "salt": ["holdout", "holdout"]})
    assert second.changes["share"] == [0.05, 0.1]
