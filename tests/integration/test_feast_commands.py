"""`tastemaker features …` on a home whose Valkey runs."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from records import NOW_MS, event, state_of, write_users

from tastemaker import context
from tastemaker.cli import invoke
from tastemaker.config import Settings, StateSettings
from tastemaker.errors import DataError, StateError
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.views import VIEW, VIEWS

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")


@pytest.fixture
def shop(state: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A catalogue of one user, whose settings the commands see."""
    monkeypatch.setattr(context, "_settings", state.settings)
    write_users(state.client, state.keys, {"ann": state_of(event("ann", "a", "click", NOW_MS))})
    return state


def output(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    invoke(["features", *arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_apply_materialize_and_freshness(shop: Any, capsys: pytest.CaptureFixture[str]):
    applied = output(capsys, "apply")
    assert applied["views"] == [view.name for view in VIEWS]
    assert (Path(applied["repo"]) / "registry.db").exists()
    waiting = output(capsys, "freshness")
    assert waiting["pending"] == {"user": 1, "item": 0}
    assert {view["rows"] for view in waiting["views"]} == {0}
    counts = output(capsys, "materialize")
    assert {name for name, count in counts.items() if count} == {
        "user_counters",
        "user_taste",
        "user_session",
    }
    rows = FeastRows(shop.client, shop.settings.catalogue)
    assert rows.read(VIEW["user_session"], ["ann"])[0]["session_length"] == 1
    fresh = {view["view"]: view for view in output(capsys, "freshness")["views"]}
    age = time.time() - NOW_MS / 1000
    assert fresh["user_counters"]["newest_seconds"] == pytest.approx(age, abs=60)
    assert fresh["item_counters"]["oldest_seconds"] is None
    invoke(["features", "freshness"])
    assert "changed and not yet written: 1 users, 0 items" in capsys.readouterr().out


def test_show_gives_the_record_as_of_now(shop: Any, capsys: pytest.CaptureFixture[str]):
    found = output(capsys, "show", "ann")
    assert found["user_id"] == "ann"
    session = found["views"]["user_session"]
    assert session["values"]["session_last_ms"] == NOW_MS
    assert session["values"]["session_length"] == 0  # long over
    assert session["age_seconds"] == pytest.approx(time.time() - NOW_MS / 1000, abs=60)
    assert found["views"]["user_counters"]["values"]["user_click_1h"] < 1e-6
    invoke(["features", "show", "ann"])
    shown = capsys.readouterr().out
    assert "user_taste of ann, newest event" in shown
    assert "comedy" in shown


def test_plain_errors(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DataError, match=r"user nobody of catalogue .* has no features: check the id"):
        invoke(["features", "show", "nobody"])
    with pytest.raises(DataError, match=r"no Feast repo at .*run `tastemaker features apply`"):
        invoke(["features", "materialize"])
    monkeypatch.setattr(context, "_settings", Settings(home=tmp_path / "home"))
    with pytest.raises(StateError, match="no Valkey runs in home"):
        invoke(["features", "apply"])
    gone = Settings(home=tmp_path / "home", state=StateSettings(url="redis://127.0.0.1:1"))
    monkeypatch.setattr(context, "_settings", gone)
    for arguments in (["show", "ann"], ["freshness"]):
        with pytest.raises(StateError, match="cannot reach Redis/Valkey"):
            invoke(["features", *arguments])
