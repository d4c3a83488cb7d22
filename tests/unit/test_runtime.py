"""The environment and arguments of a Ray session, each in a process of its own, whose environment it is."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tastemaker.runtime import HAPROXY_FILES, OF_IMAGE, SERVE_PORTS, free_port

SCRIPT = """
import json, os, sys
from pathlib import Path
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.runtime import prepare_ray
home = Home.make(Path(sys.argv[1]))
arguments = [prepare_ray(Settings.parse(json.loads(sys.argv[2]), "test"), home) for _ in range(2)]
folder = Path(os.environ["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"])
print(json.dumps({"arguments": arguments, "environment": dict(os.environ), "mode": folder.stat().st_mode}))
"""


def prepared(home: Path, settings: dict[str, Any] | None = None, **environment: str) -> Any:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TASTEMAKER_", "PROMETHEUS_"))}
    command = [sys.executable, "-c", SCRIPT, str(home), json.dumps(settings or {})]
    run = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout) | {"told": run.stderr}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return prepared(tmp_path_factory.mktemp("runtime") / "home")


def test_a_free_port_can_be_bound() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))


def test_a_session_of_ours_is_new_local_and_quiet(session: Any) -> None:
    first, second = session["arguments"]
    assert first == second
    assert first["address"] == "local"  # never one that happens to run on this machine
    assert first["_node_ip_address"] == "127.0.0.1"
    assert first["include_dashboard"] is False
    assert first["num_cpus"] == (os.cpu_count() or 1) + 3


def test_serve_finds_what_takes_steering_headers_off_a_request(session: Any) -> None:
    assert session["environment"].items() >= OF_IMAGE.items()
    assert session["told"] == ""


def test_another_callback_is_kept_and_told(tmp_path: Path) -> None:
    [name] = OF_IMAGE
    session = prepared(tmp_path / "home", **{name: "shop.proxy:middlewares"})
    assert session["environment"][name] == "shop.proxy:middlewares"
    assert f"{name} is shop.proxy:middlewares, not {OF_IMAGE[name]}: callers' headers" in session["told"]


def test_token_authentication_is_on_and_its_token_private(session: Any) -> None:
    environment = session["environment"]
    token = Path(environment["RAY_AUTH_TOKEN_PATH"])
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(token.read_text()) == 64
    assert stat.S_IMODE(token.stat().st_mode) == 0o600


def test_the_proxies_ports_differ(session: Any) -> None:
    ports = [session["environment"][key] for key in SERVE_PORTS]
    assert len(set(ports)) == 4


def test_haproxys_admin_socket_lies_in_a_private_folder_with_a_short_path(session: Any) -> None:
    socket_path = session["environment"]["RAY_SERVE_HAPROXY_SOCKET_PATH"]
    assert stat.S_IMODE(session["mode"]) == 0o700
    assert len(socket_path) + 57 + 20 <= 107  # Ray's node id and HAProxy's temporary suffix


def test_the_private_folder_goes_with_its_process(session: Any) -> None:
    assert not Path(session["environment"]["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"]).exists()


def test_what_the_environment_says_is_kept(tmp_path: Path) -> None:
    own = {key: f"/x/{name}" for key, name in HAPROXY_FILES.items()} | {
        "RAY_SERVE_HAPROXY_STATS_PORT": "1234"
    }
    own["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"] = str(tmp_path)
    environment = prepared(tmp_path / "home", **own)["environment"]
    assert {key: environment[key] for key in own} == own


def test_an_existing_cluster_is_only_connected_to(tmp_path: Path) -> None:
    settings = {"ray": {"address": "ray-head:6379", "token_file": "/secrets/token"}}
    session = prepared(tmp_path / "home", settings)
    assert session["arguments"][0] == {"address": "ray-head:6379", "log_to_driver": False}
    assert session["environment"]["RAY_AUTH_TOKEN_PATH"] == "/secrets/token"
