"""The end of `tastemaker serve`: a process of its own under an open-loop load, sent SIGTERM."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
from tagged import write_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker_services.graph.draining import MARK, drain, forget, is_draining

pytestmark = [  # MLflow uses what later releases rename
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
REQUESTS_PER_SECOND = 20
START_SECONDS = 150.0
NOT_SENT = (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
"""Refused, or closed before there was an answer: the client knows that it may ask elsewhere."""


@dataclass
class Load:
    """Requests at fixed times, whatever becomes of those before."""

    url: str
    outcomes: list[tuple[float, str]] = field(default_factory=list)
    over: bool = False

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=20.0) as http:
            tasks = []
            while not self.over:
                tasks.append(asyncio.create_task(self._one(http, len(tasks))))
                await asyncio.sleep(1 / REQUESTS_PER_SECOND)
            await asyncio.gather(*tasks)

    async def _one(self, http: httpx.AsyncClient, number: int) -> None:
        at = time.monotonic()
        body = {"user_id": f"u{number}", "deadline_ms": 2000.0}
        try:
            response = await http.post("/v1/recommendations", json=body)
            self.outcomes.append((at, str(response.status_code)))
        except NOT_SENT as error:
            self.outcomes.append((at, type(error).__name__))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.make(tmp_path / "home")
    settings = Settings(home=home.root)
    registry = Registry(settings, home)
    version = registry.publish(settings.catalogue, write_bundle(BundleStore.of(settings, home)), {})
    registry.set_alias(settings.catalogue, "champion", version.number, "test", "first release")
    return home


@pytest.fixture
def serve(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PROMETHEUS_"))}
    told = {
        "TASTEMAKER_HOME": str(home.root), "TASTEMAKER_GATEWAY__PORT": "0", "TASTEMAKER_GATEWAY__ADMIN_PORT": "0",
        "TASTEMAKER_GATEWAY__DRAIN_SECONDS": "2.0",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tastemaker.cli", "serve"], env=ours | told, stdout=subprocess.DEVNULL
    )
    yield process
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    if process.poll() is None:
        process.kill()
        process.wait()
    for child in children:
        if child.is_running():
            child.kill()


def address(home: Home, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START_SECONDS
    announced = home / "run" / "serving.json"
    while not announced.exists():
        assert process.poll() is None, "serve ended before it was ready"
        assert time.monotonic() < deadline, "serve does not become ready"
        time.sleep(0.1)
    return str(json.loads(announced.read_text())["url"])


async def ready(url: str) -> str:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as http:
        try:
            answer = await http.get(f"{url}/readyz")
            return answer.json().get("detail", "ready") if answer.status_code == 503 else "ready"
        except httpx.HTTPError as error:
            return type(error).__name__


@pytest.mark.slow
def test_no_request_gets_a_5xx_while_serving_ends(home: Home, serve: "subprocess.Popen[bytes]") -> None:
    url = address(home, serve)
    children = psutil.Process(serve.pid).children(recursive=True)
    load = Load(url)

    async def scene() -> tuple[float, list[str]]:
        running = asyncio.create_task(load.run())
        await asyncio.sleep(3.0)
        serve.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        said: list[str] = []
        while (text := await ready(url)) != "ConnectError":
            said.append(text)
            await asyncio.sleep(0.1)
        await asyncio.to_thread(serve.wait, 60)
        load.over = True
        await running
        return signalled, said

    signalled, said = asyncio.run(scene())
    outcomes = Counter(outcome for _, outcome in load.outcomes)
    assert {outcome for outcome in outcomes if outcome.isdigit()} == {"200"}, outcomes
    assert outcomes["200"] >= 60
    assert outcomes["ConnectError"] > 0
    # First /readyz said no, and requests were answered as before meanwhile: for the two seconds that were asked for.
    assert any("it takes no more requests" in text for text in said), said
    late = [at for at, outcome in load.outcomes if outcome == "200" and at > signalled + 0.5]
    assert late
    assert serve.returncode == 130  # as after Ctrl-C
    _, alive = psutil.wait_procs(children, timeout=15)
    assert [process.cmdline() for process in alive] == []
    assert not is_draining(home)


def proxy(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> "subprocess.Popen[bytes]":
    """A stand-in for HAProxy that runs until it says what it does on SIGUSR1."""
    monkeypatch.setenv("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", str(folder / "haproxy.cfg"))
    words: Sequence[str] = [sys.executable, "-c", script, "-f", str(folder / "node" / "haproxy.cfg")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_the_end_waits_until_the_proxy_has_answered_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path / "home")
    script = (
        "import signal, sys, time\n"
        "def stop(*_):\n    time.sleep(0.3)\n    open(sys.argv[2] + '.done', 'w').close()\n    sys.exit()\n"
        "signal.signal(signal.SIGUSR1, stop)\nprint('up', flush=True)\ntime.sleep(60)\n"
    )
    (tmp_path / "node").mkdir()
    process = proxy(tmp_path, script, monkeypatch)
    try:
        drain(home, 0.0, lambda: 1.0)
        assert (tmp_path / "node" / "haproxy.cfg.done").exists()
        assert is_draining(home)  # until the graph is gone
        forget(home)
        assert not (home / "run" / MARK).exists()
    finally:
        process.kill()
        process.communicate()


def test_a_connection_that_is_kept_idle_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path / "home")
    script = "import signal, time\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
    process = proxy(tmp_path, script, monkeypatch)
    under_way = iter([2.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    try:
        drain(home, 0.0, lambda: next(under_way))
        assert list(under_way) == []  # three looks in a row that found nothing
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
        process.communicate()


def test_another_signal_ends_the_waiting_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home.make(tmp_path / "home")
    script = "import signal, time\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(60)\n"
    process = proxy(tmp_path, script, monkeypatch)

    class Impatient:
        """The clock's sleeps are interrupted, as by a second SIGTERM."""

        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(seconds: float) -> None:
            if seconds:
                raise KeyboardInterrupt

    monkeypatch.setattr("tastemaker_services.graph.draining.time", Impatient)
    try:
        drain(home, 0.0, lambda: 1.0)
        assert process.poll() is None  # what does not end is left to the stop that follows
    finally:
        process.kill()
        process.communicate()
