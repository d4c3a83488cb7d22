"""Planning like an experiment that ran: its control's numbers, from a real store and Parquet days."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from experiment_log import decision, event, experiment

from tastemaker import cli, context
from tastemaker.errors import ConfigError, ExperimentError
from tastemaker.events.archive import event_table, write_days
from tastemaker.experiments.decision_log import decision_table
from tastemaker.experiments.store import ExperimentStore


@pytest.fixture
def settings(state: Any) -> Iterator[None]:
    before = context._settings
    context.use(state.settings)
    yield
    context._settings = before


@pytest.mark.usefixtures("settings")
def test_a_plan_like_an_experiment_takes_its_controls_variation(state: Any) -> None:
    catalogue = state.settings.catalogue
    # A draft has no start: all days are its own.
    ExperimentStore(state.client, state.keys).create(experiment(name="past", state="draft"))
    decisions = [decision(f"r{i}", f"u{i // 2}", "ab"[i // 8], i, experiment="past") for i in range(16)]
    clicks = [event(f"r{i}", "x", 20) for i in (0, 1, 2, 4, 8)]  # of u0 2, u1 1, u2 1, u3 none; u4 1
    write_days(state.home / "decisions" / catalogue, decision_table(decisions))
    write_days(state.home / "events" / catalogue, event_table(clicks))

    tree = cli.invoke(["experiment", "plan", "--effect", "0.05", "--like", "past", "--json"])
    # a: 4 clicks of 8 requests; by unit 2, 1, 1, 0 less half of 2: 1, 0, 0, -1. Var = 4/3 * 2 / 8^2 and times 4 units / .5^2.
    assert tree["variation"] == pytest.approx(np.sqrt(4 / 3 * 2 / 64 * 4) / 0.5)

    with pytest.raises(ConfigError, match="metric, is 'coverage', must be a metric that each unit has"):
        cli.invoke(["experiment", "plan", "--effect", "0.05", "--like", "past", "--metric", "coverage"])
    with pytest.raises(ConfigError, match="metric"):
        cli.invoke(["experiment", "plan", "--effect", "0.05", "--like", "past", "--metric", "joy"])
    with pytest.raises(ExperimentError, match="nowhere"):
        cli.invoke(["experiment", "plan", "--effect", "0.05", "--like", "nowhere"])
