"""What a cluster runs, as processes on a real Valkey."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml


@contextmanager
def part(home: Path, *arguments: str, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A part of a cluster, and where it listens."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TASTEMAKER_", "PROMETHEUS_"))
    }
    process = subprocess.Popen(
        [sys.executable, "-c", "from tastemaker.cli import main; main()", "cluster", *arguments],
        env=kept | {"TASTEMAKER_HOME": str(home), "TASTEMAKER_EXPORTER__PORT": "0"} | environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("listening at "), line
        yield line.split()[-1], process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False, timeout=10)


def test_a_consumer_applies_events_and_tells_of_itself(state: Any, tmp_path: Path) -> None:
    environment = {
        "TASTEMAKER_STATE__URL": state.url,
        "TASTEMAKER_CATALOGUE": state.keys.catalogue,
        "TASTEMAKER_STATE__PARTITIONS": "4",
    }
    with part(tmp_path / "home", "consumer", **environment) as (url, process):
        assert get(f"{url}/healthz").json() == {"status": "ok"}
        assert get(f"{url}/readyz").json() == {"status": "ready"}
        state.client.xadd(state.keys.events(0), {"event": "no JSON at all"})
        deadline = time.monotonic() + 20
        while not state.client.xlen(state.keys.dead_letters(0)):
            assert time.monotonic() < deadline, "the consumer does not step"
            time.sleep(0.05)
        metrics = get(f"{url}/metrics").text
        assert re.search(r"^tastemaker_events_dead_letters_total\{.*\} 1\.0$", metrics, re.MULTILINE)
    assert process.returncode == 130
    assert not state.client.exists(*(state.keys.partition_lease(p) for p in range(4)))  # it gave them up


def test_an_exporter_sums_the_metrics_of_its_pods_processes(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    answer = (
        "from tastemaker import telemetry; telemetry.REQUESTS.labels('shop', 'recommendations', 'ok').inc(2)"
    )
    for _ in range(2):
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        subprocess.run([sys.executable, "-c", answer], env=environment, check=True)
    with part(tmp_path / "home", "exporter", PROMETHEUS_MULTIPROC_DIR=str(folder)) as (url, _):
        assert get(f"{url}/healthz").status_code == 200
        assert 'outcome="ok",route="recommendations"} 4.0' in get(f"{url}/metrics").text


@pytest.mark.slow
def test_the_admin_part_copies_aliases_and_asks_for_keys(state: Any, tmp_path: Path) -> None:
    import hashlib

    keys = yaml.safe_dump([{"sha256": hashlib.sha256(b"of the admin").hexdigest(), "scopes": ["admin"]}])
    (tmp_path / "keys").write_text(keys)
    environment = {
        "TASTEMAKER_STATE__URL": state.url,
        "TASTEMAKER_CATALOGUE": state.keys.catalogue,
        "TASTEMAKER_STATE__PARTITIONS": "4",
        "TASTEMAKER_GATEWAY__ADMIN_PORT": "0",
        "TASTEMAKER_GATEWAY__KEYS_FILE": str(tmp_path / "keys"),
    }
    with part(tmp_path / "home", "admin", **environment) as (url, _):
        assert get(f"{url}/healthz").status_code == 200
        assert get(f"{url}/admin/v1/experiments").status_code == 401
        found = httpx.get(
            f"{url}/admin/v1/experiments", headers={"authorization": "Bearer of the admin"}, trust_env=False
        )
        assert found.status_code == 200
        deadline = time.monotonic() + 30
        while not state.client.exists(state.keys.live):
            assert time.monotonic() < deadline, "the watcher does not write"
            time.sleep(0.1)
