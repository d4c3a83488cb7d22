"""Experiments by the command line, on a real Valkey."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from drafts import experiment

from tastemaker import cli
from tastemaker.errors import ExperimentError, UsageError
from tastemaker.experiments.store import ExperimentStore


@pytest.fixture
def store(state: Any) -> ExperimentStore:
    return ExperimentStore(state.client, state.keys)


@pytest.mark.usefixtures("command_line")
def test_the_command_line_does_all_of_it(
    store: ExperimentStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "tastemaker.experiments.router.SNAPSHOT_SECONDS", 0.0
    )  # there is no router to wait for
    file = tmp_path / "exp.yaml"

    def write(**fields: Any) -> str:
        tree = experiment(**fields).model_dump(mode="json", exclude={"state", "version", "course"})
        file.write_text(yaml.safe_dump(tree))
        return str(file)

    created = cli.invoke(["experiment", "create", write(traffic=0.2), "--reason", "first", "--json"])
    assert (created["state"], created["version"]) == ("draft", 1)
    assert cli.invoke(["experiment", "start", "exp", "--json"])["state"] == "running"
    assert cli.invoke(["experiment", "ramp", "exp", "--traffic", "0.5", "--json"])["traffic"] == 0.5
    with pytest.raises(ExperimentError, match="would change what units get"):
        cli.invoke(["experiment", "ramp", "exp", "--weights", "0.9,0.1"])
    with pytest.raises(UsageError, match="--weights, is 'half', must be numbers"):
        cli.invoke(["experiment", "ramp", "exp", "--weights", "half"])
    with pytest.raises(UsageError, match="--traffic and --weights are missing"):
        cli.invoke(["experiment", "ramp", "exp"])
    edited = cli.invoke(["experiment", "edit", write(traffic=0.5, hypothesis="better"), "--json"])
    assert (edited["hypothesis"], edited["state"], edited["version"]) == ("better", "running", 4)
    assert cli.invoke(["experiment", "stop", "exp", "--reason", "done"])["state"] == "stopped"
    shown = cli.invoke(["experiment", "show", "exp", "--json"])
    assert [c["action"] for c in shown["changes"]] == ["create", "start", "ramp", "edit", "stop"]
    assert shown["experiment"] == store.get("exp").model_dump(mode="json")
    capsys.readouterr()
    cli.invoke(["experiment", "show", "exp"])
    told = capsys.readouterr().out
    assert (
        "experiment exp is stopped: a = champion, b = challenger; 50.00% of layer default, version 5" in told
    )
    assert "done" in told
    assert cli.invoke(["experiment", "holdout", "--share", "0.05", "--json"])["share"] == 0.05
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"name": "second"}))
    assert cli.invoke(["experiment", "start", str(file)])["state"] == "running"
    assert [row["name"] for row in cli.invoke(["experiment", "list", "--json"])] == ["exp", "second"]
