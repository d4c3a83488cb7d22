"""The commands that promote, tell what was live and go back, on a real MLflow store."""

import json
from datetime import UTC, datetime

import pytest
from promotable import BASE
from promoted_world import World

from tastemaker import context
from tastemaker.cli import invoke
from tastemaker.errors import GateRefusedError, TastemakerError, UsageError

# SQLAlchemy 2.1 warns about a loading strategy that MLflow 3.17 uses.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def home(tmp_path, make_home):
    return make_home(tmp_path / "home")


def run(world, capsys, *arguments):
    """What a command printed as JSON, and the error that it ended with."""
    capsys.readouterr()
    error = None
    try:
        invoke(
            ["--home", str(world.home.root), "--catalogue", world.settings.catalogue, *arguments, "--json"]
        )
    except TastemakerError as found:
        error = found
    return json.loads(capsys.readouterr().out), error


def test_the_commands_promote_tell_what_gates_said_show_what_was_live_and_go_back(home, capsys, monkeypatch):
    monkeypatch.setattr(context, "_settings", None)  # and back to what it was, after the test
    world = World(home, home / "bundles", "commands")
    good, bad = world.publish(), world.publish(ndcg=BASE / 2)
    before = datetime.now(UTC).isoformat()
    promoted, error = run(world, capsys, "promote", str(good), "--reason", "first")
    assert (promoted["state"], error) == ("promoted", None)
    refused, error = run(world, capsys, "promote", str(bad))
    assert (refused["state"], type(error)) == ("refused", GateRefusedError)
    forced, error = run(world, capsys, "promote", str(bad), "--force", "--reason", "it is meant so")
    assert (forced["forced"], error) == (True, None)
    [kept], _ = run(world, capsys, "bundles", "gates", str(bad))
    assert kept == forced
    moves, _ = run(world, capsys, "history", "--alias", "champion")
    assert [(move["version"], move["forced"]) for move in moves] == [(good, False), (bad, True)]
    then = datetime.fromtimestamp(moves[0]["timestamp_ms"] / 1000, UTC).isoformat()
    assert run(world, capsys, "history", "--at", then)[0] == moves[:1]
    assert run(world, capsys, "history", "--at", before)[0] == []
    back, _ = run(world, capsys, "rollback", "--reason", "clicks fell")
    assert (back["version"], back["answered"], world.history[-1].reason) == (good, None, "clicks fell")
    with pytest.raises(UsageError, match="--at, is 'yesterday', must be a time such as"):
        invoke(["--home", str(home.root), "history", "--at", "yesterday"])
    capsys.readouterr()
    invoke(["--home", str(home.root), "--catalogue", "commands", "promote", str(good), "--dry-run"])
    shown = capsys.readouterr().out
    assert "integrity    passed" in shown
    assert f"version {good} would become champion: nothing was moved" in shown
