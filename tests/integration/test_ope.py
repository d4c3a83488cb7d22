"""`tastemaker ope` and `position-bias` on answers of a real gateway and pipeline, whose order was drawn by luck."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from gateway_world import variant
from piped_world import PipedWorld
from tagged import write_bundle

from tastemaker import cli, context
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import ExperimentError, UsageError
from tastemaker.events.archive import event_table, write_days
from tastemaker.events.log import Entry
from tastemaker.events.schema import Event
from tastemaker.experiments.decision_log import Decision, decision_table, encode_decision
from tastemaker.experiments.definition import Experiment, Fixed, Interleaving, Variant
from tastemaker.experiments.store import ExperimentStore
from tastemaker.home import Home

NUM_REQUESTS, WINDOW, LOOKS = 150, 3, (1.0, 0.5, 0.25)
PAST = ["i2", "i6", "i11"]
UNSHUFFLED = {"reranking": {"keep_top": 0}}
SHUFFLED = {"reranking": {"shuffle": {"window": WINDOW, "head": 6}, "keep_top": 0}}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Of a home with answers of shuffled lists; any item is clicked where it is looked at, with a probability of .6."""
    home = Home.make(tmp_path_factory.mktemp("ope") / "home")
    settings = Settings(home=home.root)
    store = BundleStore.of(settings, home)
    _, manifest = store.get_manifest(write_bundle(store, exploration={"share": 0.0}).uri)
    bundle = Bundle.open(store, store.put_manifest(settings.catalogue, manifest))
    world = PipedWorld(bundle)
    world.assignment = variant("champion", SHUFFLED)
    world.histories = {f"user-{n}": PAST for n in range(0, NUM_REQUESTS, 3)}
    luck = np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patch:  # each request's luck comes from its id
        patch.setattr("tastemaker_services.gateway.run.uuid4", lambda: UUID(bytes=luck.bytes(16)))
        for n in range(NUM_REQUESTS):
            world.recommend(f"user-{n}", session=[f"i{n % 24}"], k=WINDOW)
    events = [
        click(one, one.item_ids[k])
        for one in world.decisions
        for k, look in enumerate(LOOKS)
        if luck.random() < look * 0.6
    ]
    events += [earlier(user, item, n) for user in world.histories for n, item in enumerate(PAST)]
    entries = [entry(one) for one in world.decisions]
    write_days(home / "decisions" / settings.catalogue, decision_table(entries))
    write_days(home / "events" / settings.catalogue, event_table(events))
    return settings


def earlier(user: str, item: str, n: int) -> Entry:
    """What a user took before all answers, as the archive has it."""
    at_ms = 1_750_000_000_000 + n
    event = Event(
        event_id=f"{user}-{item}", user_id=user, item_id=item, kind="like", timestamp_ms=at_ms, origin="live"
    )
    return Entry(f"{at_ms}-0", event.model_dump_json())


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setattr(context, "_settings", settings)
    return Home.make(settings.home)


def click(one: Decision, item: str) -> Entry:
    event = Event(
        event_id=f"{one.request_id}-{item}", user_id=one.user_id, item_id=item, kind="click", origin="live",
        timestamp_ms=one.timestamp_ms, request_id=one.request_id,
    )  # fmt: skip
    return Entry(f"{one.timestamp_ms}-0", event.model_dump_json())


def run(*arguments: str) -> Any:
    window = [] if "--experiment" in arguments else ["--window-minutes", "0"]
    return cli.invoke(["ope", *window, *arguments])


def policy(tmp_path: Path, stages: dict[str, Any]) -> str:
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps({"stages": stages}))
    return str(file)


def test_lists_of_other_stages_are_judged_from_shuffled_ones(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    (found,) = run("--policy", policy(tmp_path, UNSHUFFLED), "--least-effective", "15", "--html", str(page))
    # The stages' own order is one of the six that a shuffled window can show.
    assert found["rows"] == found["read"] == NUM_REQUESTS
    assert found["support"]["mean_low"] < 1 < found["support"]["mean_high"]
    assert found["support"]["largest_weight"] == pytest.approx(6.0)
    assert found["notes"][0] == "150 of 150 logged lists come out again under the bundle that made them"
    # Whatever the order, .6 (1 + .5 + .25) items are clicked.
    value = found["estimates"][0]["value"]
    assert value["low"] < 1.05 < value["high"]
    assert "reward interaction" in page.read_text()
    assert "more than logged" in capsys.readouterr().out


def test_a_slot_alone_rests_on_more_answers(home: Home, tmp_path: Path) -> None:
    (whole,) = run("--policy", policy(tmp_path, UNSHUFFLED), "--least-effective", "15", "--json")
    (first,) = run(
        "--policy", policy(tmp_path, UNSHUFFLED), "--depth", "1", "--least-effective", "15", "--json"
    )
    assert first["support"]["effective_rows"] > 1.5 * whole["support"]["effective_rows"]
    assert first["estimates"][0]["value"]["low"] < 0.6 < first["estimates"][0]["value"]["high"]


def test_slots_by_themselves_rest_on_how_likely_they_were(home: Home, tmp_path: Path) -> None:
    (found,) = run(
        "--policy",
        policy(tmp_path, UNSHUFFLED),
        "--belief",
        "item-position",
        "--least-effective",
        "15",
        "--json",
    )
    assert found["rows"] == NUM_REQUESTS  # each list's draw comes out again
    # Each of the three items of a window is in each of its slots with 1/3, whatever is above it.
    assert found["support"]["largest_weight"] == pytest.approx(3.0)
    assert found["support"]["mean_low"] < 1 < found["support"]["mean_high"]
    for one in found["estimates"]:
        assert one["value"]["low"] < 1.05 < one["value"]["high"]
    names = [one["estimator"] for one in found["estimates"]]
    assert names == [
        "item and position, doubly robust", "item and position", "item and position, self-normalised",
    ]  # fmt: skip


def test_stages_that_show_what_was_never_shown_are_refused(home: Home, tmp_path: Path) -> None:
    # Half of the items are blocked, those that few lists do without.
    blocked = {"reranking": {"rules": [{"kind": "block", "match": {"categories": ["c0", "c1"]}}]}}
    with pytest.raises(
        ExperimentError, match=r"lacks support in the log: of its mass, \d+\.\d% is on what was never tried"
    ):
        run("--policy", policy(tmp_path, blocked))


def test_slots_that_are_looked_at_less(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "examination.json"
    found = cli.invoke(["position-bias", "--window-minutes", "0", "--to", str(file), "--json"])
    assert found["lists"] == NUM_REQUESTS
    told = len(found["examination"])  # down to where there are enough clicks
    assert told >= 2
    for true, low, high in zip(LOOKS[:told], found["low"], found["high"], strict=True):
        assert low - 0.05 <= true <= high + 0.05
    assert json.loads(file.read_text())["examination"] == found["examination"]


def begin(state: Any, monkeypatch: pytest.MonkeyPatch, name: str, allocation: Fixed | Interleaving) -> None:
    """An experiment of variants a and b."""
    monkeypatch.setattr(context, "_settings", state.settings)
    variants = (Variant(name="a", alias="champion"), Variant(name="b", alias="champion"))
    one = Experiment(
        name=name, hypothesis="b is better", salt="s", variants=variants, allocation=allocation, attribution_window_seconds=60
    )  # fmt: skip
    ExperimentStore(state.client, state.keys).create(one)


def answered(n: int, at_ms: int, catalogue: str, *, user_id: str, epoch: int) -> Decision:
    """Answer number n of experiment home, by turns of a and b: a list of x alone."""
    return Decision(
        decision_id=f"d{n}", request_id=f"r{n}", timestamp_ms=at_ms, catalogue=catalogue, origin="live", unit=user_id, user_id=user_id,
        bundle="b1", experiment="home", variant="ab"[n % 2], epoch=epoch, propensity=0.5, propensities=(0.5, 0.5), item_ids=["x"],
    )  # fmt: skip


def entry(one: Decision) -> Entry:
    return Entry(f"{one.timestamp_ms}-0", encode_decision(one))


def test_weights_of_an_experiment_are_judged_from_its_log(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(state, monkeypatch, "home", Fixed(weights=(0.5, 0.5)))
    decisions, events = [], []
    for n in range(600):  # b's lists are clicked half of the time, a's a quarter
        one = answered(n, 1_760_000_000_000 + n, state.keys.catalogue, user_id=f"u{n // 4}", epoch=n % 4)
        decisions.append(entry(one))
        if n % 4 == 1 or n % 8 == 0:
            events.append(click(one, "x"))
    write_days(state.home / "decisions" / state.keys.catalogue, decision_table(decisions))
    write_days(state.home / "events" / state.keys.catalogue, event_table(events))
    found = {one["policy"]: one for one in run("--experiment", "home", "--json")}
    values = {policy: one["estimates"][0]["value"]["value"] for policy, one in found.items()}
    assert values == {"all to a": pytest.approx(0.25), "all to b": pytest.approx(0.5)}
    weights = tmp_path / "weights.yaml"
    weights.write_text("weights: {a: 0.2, b: 0.8}")
    (both,) = run("--experiment", "home", "--policy", str(weights))
    # Hajek: (.4 * 75 + 1.6 * 150) / (.4 * 300 + 1.6 * 300) = .45
    assert both["estimates"][0]["value"]["value"] == pytest.approx(0.45)
    assert both["estimates"][0]["difference"]["low"] > 0
    bandit = tmp_path / "bandit.yaml"
    bandit.write_text("allocation: {kind: thompson}")
    (learned,) = run("--experiment", "home", "--policy", str(bandit))
    # All was shown before the first window closed: nothing is known, and shares stay even.
    assert learned["estimates"][0]["value"]["value"] == pytest.approx(0.375)


def test_a_variant_that_the_log_cannot_judge_does_not_hide_the_other(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(state, monkeypatch, "home", Fixed(weights=(0.9, 0.1)))
    decisions = []
    for n in range(500):  # 450 of a, 50 of b: a rests on 450 answers, b on 50 where 100 are asked for
        one = answered(n, 1_760_000_000_000 + n, state.keys.catalogue, user_id=f"u{n}", epoch=0)
        is_b = n % 10 == 9
        drawn = {"variant": "ab"[is_b], "propensity": (0.9, 0.1)[is_b], "propensities": (0.9, 0.1)}
        decisions.append(entry(replace(one, **drawn)))
    write_days(state.home / "decisions" / state.keys.catalogue, decision_table(decisions))
    page = tmp_path / "page.html"
    judged, refused = run("--experiment", "home", "--html", str(page), "--json")
    told = capsys.readouterr()
    assert json.loads(told.out)[1] == refused
    assert (judged["policy"], refused["policy"]) == ("all to a", "all to b")
    few = "the estimate would rest on few answers: those of equal weight among 500, is 50.0"
    assert refused["refused"].startswith(few)
    assert f"all to b is not judged: {few}" in " ".join(told.err.split())
    assert f"<h2>all to b</h2><p>Not judged: {few}" in page.read_text()
    with pytest.raises(ExperimentError, match="rest on few answers"):
        run("--experiment", "home", "--least-effective", "480")


def test_the_last_days_of_an_experiment_are_judged_alone(
    state: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(state, monkeypatch, "home", Fixed(weights=(0.5, 0.5)))
    decisions, now_ms = [], time.time_ns() // 1_000_000
    for n in range(900):  # 600 of five days ago, 300 of an hour ago
        at_ms = now_ms - (5 * 24 if n < 600 else 1) * 3_600_000 + n
        decisions.append(entry(answered(n, at_ms, state.keys.catalogue, user_id=f"u{n}", epoch=0)))
    write_days(state.home / "decisions" / state.keys.catalogue, decision_table(decisions))
    read = [run("--experiment", "home", *days)[0]["read"] for days in ([], ["--days", "2"], ["--days", "6"])]
    assert read == [900, 300, 900]
    bandit = tmp_path / "bandit.yaml"
    bandit.write_text("allocation: {kind: thompson}")
    with pytest.raises(UsageError, match="learns from an experiment's first answer on: leave out --days"):
        run("--experiment", "home", "--days", "2", "--policy", str(bandit))


def test_an_interleaving_has_no_weights_to_judge(state: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(state, monkeypatch, "both", Interleaving())
    with pytest.raises(ExperimentError, match=r"allocation of experiment both, is 'interleaving'"):
        run("--experiment", "both")


def test_what_says_nothing_to_judge_is_misuse(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to judge: give --version"):
        run()
    weights = tmp_path / "weights.yaml"
    weights.write_text("weights: {a: 1.0}")
    with pytest.raises(
        UsageError,
        match="weights and allocations are of an experiment's variants: name it with --experiment",
    ):
        run("--policy", str(weights))
    with pytest.raises(UsageError, match="--experiment judges weights"):
        run("--experiment", "exp", "--version", "1")
    for option, value in (("--belief", "whole-list"), ("--window-minutes", "30"), ("--origin", "live")):
        with pytest.raises(UsageError, match=f"{option} is of lists.*leave out {option}, or --experiment"):
            run("--experiment", "exp", option, value)
