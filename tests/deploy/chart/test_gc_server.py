"""Runs behind an MLflow server: `tastemaker gc` deletes them there, and the chart's `mlflow gc` removes them for good."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from chart.reality import places
from chart.rendering import ci_cases, objects_of

from tastemaker.config import RegistrySettings, Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.registry.forgetting import EndedRuns
from tastemaker.runtime import free_port


def mlflow(*words: str, uri: str, log: Path) -> subprocess.Popen[bytes]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = os.environ | quiet | {"MLFLOW_TRACKING_URI": uri}
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "mlflow", *words], stdout=out, stderr=out, env=environment
        )


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Its address, and where its tables are."""
    port, store = free_port(), f"sqlite:///{tmp_path}/mlflow.db"
    uri, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    words = [
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
        "--backend-store-uri",
        store,
    ]
    process = mlflow(*words, "--artifacts-destination", str(tmp_path / "artifacts"), uri=uri, log=log)
    try:
        give_up = time.monotonic() + 300
        while True:
            try:
                if httpx.get(f"{uri}/health", timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.5)
        yield uri, store
    finally:
        process.terminate()
        process.wait()


def chart_words() -> list[str]:
    """Of the container that runs after ours, without its addresses."""
    (minimal,) = (case for case in ci_cases() if case.name == "minimal")
    crons = [item for item in objects_of(minimal) if item["metadata"]["name"].endswith("-retention")]
    (words,) = (
        place.container["args"] for place in places(crons) if place.container.get("command") == ["mlflow"]
    )
    return list(words)


def test_deleted_runs_and_their_files_are_removed_by_the_charts_command(
    server: tuple[str, str], tmp_path: Path
) -> None:
    uri, store = server
    home = Home.make(tmp_path / "home")
    settings = Settings(home=home.root, registry=RegistrySettings(tracking_uri=uri))
    registry = Registry(settings, home)
    for name in ("goes", "stays"):
        with registry.run(name) as run:
            run.log_json("offline.json", {"of": name})
    ended = EndedRuns(settings, home)
    runs = {run.name: run.id for run in ended.ended()}
    ended.remove(runs["goes"])
    assert ended.purge() == 0
    assert [run.name for run in ended.ended()] == ["stays"]
    assert len(list((tmp_path / "artifacts").rglob("offline.json"))) == 2  # deleted, and kept for now

    words = chart_words()
    told = dict(zip(words[1::2], words[2::2], strict=True))
    assert (words[0], told.pop("--older-than")) == ("gc", "30d")
    told |= {"--backend-store-uri": store, "--tracking-uri": uri}
    log = tmp_path / "gc.log"
    flat = [word for pair in told.items() for word in pair]
    process = mlflow("gc", *flat, "--older-than", "0d", uri=uri, log=log)
    assert process.wait() == 0, log.read_text()
    (kept,) = (tmp_path / "artifacts").rglob("offline.json")
    assert runs["stays"] in kept.parts
