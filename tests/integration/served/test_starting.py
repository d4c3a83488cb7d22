"""How the graph starts, where it listens, and when it refuses to start."""

import json
import socket

import psutil
import pytest
from ray_noise import RAY_NOISE
from served_graph import (
    Running,
    assert_gone,
)

from tastemaker.config import Settings
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import PortInUseError, ServingError, UsageError
from tastemaker.home import Home
from tastemaker_services.app import start

pytestmark = RAY_NOISE


def test_our_own_listeners_are_on_loopback(running: Running) -> None:
    ours = {int(url.rsplit(":", 1)[1]) for url in (running.serving.url, running.serving.admin_url)}
    ours.add(json.loads((running.home / "run" / "valkey.json").read_text())["port"])
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert ours <= {address.port for address in listening}
    assert {address.ip for address in listening if address.port in ours} == {"127.0.0.1"}


def test_a_second_start_on_the_same_home_is_refused(running: Running) -> None:
    with pytest.raises(UsageError, match=r"serving of home .* is in use by another process"):
        start(running.settings, running.home)


def test_a_taken_port_is_named(running: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gateway = GatewaySettings(port=port, admin_port=0)
        with pytest.raises(PortInUseError, match=rf"gateway\.port, is {port}, must be a free port"):
            start(running.settings.model_copy(update={"gateway": gateway}), running.home)


def test_without_a_champion_nothing_starts_and_nothing_stays(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    before = set(psutil.Process().children(recursive=True))
    home = Home.make(tmp_path_factory.mktemp("empty") / "home")
    settings = Settings(home=home.root, gateway=GatewaySettings(port=0, admin_port=0))
    with pytest.raises(ServingError, match="catalogue default has no champion: publish a version"):
        start(settings, home)
    assert_gone([child for child in psutil.Process().children(recursive=True) if child not in before])
