"""The guard on a real Valkey: it stops what breaks a guardrail, says why, and leaves the rest alone."""

import json
import time
from typing import Any

import pytest
from experiment_log import START_MS, decision, event, experiment

from tastemaker import telemetry
from tastemaker.config_experiments import ExperimentSettings
from tastemaker.events.archive import event_table, write_days
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.definition import Guardrail, Interleaving, Variant
from tastemaker.experiments.store import ExperimentStore
from tastemaker_services.stream.guarding import ACTOR, Guard

AGO_MS = time.time_ns() // 1_000_000 - START_MS - 20_000  # its store tells the time of now
NOW_MS = START_MS + AGO_MS + 60_000
GUARDRAIL = Guardrail(metric="clicks_per_request", margin=0.05)


def traffic(state: Any, every: dict[str, int]) -> None:
    """400 units of each variant, of which one in so many clicks."""
    decisions, events = [], []
    for v, one_in in every.items():
        for n in range(400):
            decisions.append(decision(f"{v}{n}", f"{v}{n}", v, AGO_MS + n))
            if n % one_in == 0:
                events.append(event(f"{v}{n}", "x", AGO_MS + n + 5))
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(decisions))
    write_days(state.home / "events" / state.settings.catalogue, event_table(events))


def test_a_breach_stops_the_experiment_and_its_history_says_why(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(guardrails=(GUARDRAIL,)))
    guard = Guard(state.settings, state.home)
    assert guard.look(NOW_MS) == []  # nothing has happened yet
    traffic(state, {"a": 3, "b": 12})
    assert guard.look(NOW_MS) == ["exp"]
    assert store.get("exp").state == "stopped"
    change = store.history("exp")[-1]
    assert change.actor == ACTOR
    assert "clicks_per_request of b is 0.085, must be at least 0.3182" in change.reason
    labels = (state.settings.catalogue, "exp")
    assert telemetry.GUARDRAIL_STOPS.labels(*labels)._value.get() == 1
    assert telemetry.GUARDRAILS.labels(*labels, "breached")._value.get() == 1
    assert telemetry.SRM.labels(*labels)._value.get() == 1.0
    assert guard.look(NOW_MS) == []  # it does not run any more
    assert len([one for one in store.history("exp") if one.actor == ACTOR]) == 1


def test_what_keeps_its_guardrails_runs_on(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(guardrails=(GUARDRAIL,)))
    traffic(state, {"a": 3, "b": 3})
    assert Guard(state.settings, state.home).look(NOW_MS) == []
    assert store.get("exp").state == "running"


def test_an_experiment_that_cannot_be_judged_keeps_no_other_from_it_and_is_told(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(guardrails=(GUARDRAIL,)))
    alike = tuple(Variant(name=name, alias="champion") for name in "ab")
    store.create(experiment(name="apart", layer="other", variants=alike))
    traffic(state, {"a": 3, "b": 12})
    stray = [decision("s1", "s1", "zebra", AGO_MS + 7, experiment="apart")]
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(stray))
    assert Guard(state.settings, state.home).look(NOW_MS) == ["exp"]
    assert store.get("apart").state == "running"
    assert "cannot look at experiment apart: " in caplog.text


def test_a_metric_that_is_gone_keeps_no_other_experiment_from_being_judged(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that a later release left."""
    store = ExperimentStore(state.client, state.keys)
    alike = tuple(Variant(name=name, alias="champion") for name in "ab")
    store.create(experiment(name="another", layer="other", variants=alike, guardrails=(GUARDRAIL,)))
    store.create(experiment(guardrails=(GUARDRAIL,)))
    kept = json.loads(state.client.hget(state.keys.experiments, "another"))
    state.client.hset(state.keys.experiments, "another", json.dumps(kept | {"metric": "smiles"}))
    assert [one.name for one in store.list() if one.metric == "smiles"] == ["another"]
    traffic(state, {"a": 3, "b": 12})
    strays = [
        decision(f"o{v}{n}", f"o{v}{n}", v, AGO_MS + n, experiment="another") for v in "ab" for n in range(40)
    ]
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(strays))
    assert Guard(state.settings, state.home).look(NOW_MS) == ["exp"]
    assert store.get("another").state == "running"
    assert "cannot tell the metrics of experiment another: metric, is 'smiles', must be one of" in caplog.text


def test_one_process_looks_at_a_time(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(guardrails=(GUARDRAIL,)))
    traffic(state, {"a": 3, "b": 12})
    guard = Guard(state.settings, state.home)
    with state.home.lock("guardrails"):
        assert guard.look(NOW_MS) == []
        assert store.get("exp").state == "running"
    assert guard.look(NOW_MS) == ["exp"]


def test_it_looks_by_itself(state: Any) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(guardrails=(GUARDRAIL,)))
    settings = state.settings.model_copy(update={"experiments": ExperimentSettings(guardrail_seconds=1.0)})
    guard = Guard(settings, state.home)
    guard.start()
    try:
        traffic(state, {"a": 3, "b": 12})
        give_up = time.monotonic() + 60
        while store.get("exp").state == "running" and time.monotonic() < give_up:
            time.sleep(0.05)
        assert store.get("exp").state == "stopped"
    finally:
        guard.stop()


def test_of_an_interleaving_the_preference_and_the_advice_are_told(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    store = ExperimentStore(state.client, state.keys)
    store.create(experiment(allocation=Interleaving()))
    guard = Guard(state.settings, state.home)
    assert guard.look(NOW_MS) == []  # nothing has happened yet
    assert caplog.text == ""
    fields = {"propensities": (1.0,), "slot_team": [0, 1]}
    decisions = [decision(f"r{n}", f"u{n}", "interleaved", AGO_MS + n, **fields) for n in range(300)]
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(decisions))
    events = [event(f"r{n}", "y", AGO_MS + n + 5) for n in range(0, 300, 2)]
    write_days(state.home / "events" / state.settings.catalogue, event_table(events))
    assert guard.look(NOW_MS) == []
    labels = (state.settings.catalogue, "exp")
    assert telemetry.EXPERIMENT_PREFERENCE.labels(*labels, "b", "value")._value.get() == 0.5
    assert telemetry.EXPERIMENT_PREFERENCE.labels(*labels, "b", "low")._value.get() > 0
    assert telemetry.EXPERIMENT_ADVICE.labels(*labels, "ship")._value.get() == 1


def test_an_interleaving_whose_records_are_broken_is_told(
    state: Any, caplog: pytest.LogCaptureFixture
) -> None:
    ExperimentStore(state.client, state.keys).create(experiment(allocation=Interleaving()))
    fields = {"propensities": (1.0,), "slot_team": [0]}  # of two items
    decisions = [decision(f"r{n}", f"u{n}", "interleaved", AGO_MS + n, **fields) for n in range(3)]
    write_days(state.home / "decisions" / state.settings.catalogue, decision_table(decisions))
    assert Guard(state.settings, state.home).look(NOW_MS) == []
    assert "cannot look at experiment exp: " in caplog.text
