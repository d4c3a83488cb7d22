"""A demo home that serves under simulated traffic, with a Prometheus that watches: what the pictures show.

Two experiments run (one loses for certain, one is a bandit), a version is a shadow, one is promoted and rolled back, a rung is
forced for a while, a training runs, and a client sends what it should not.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from helm.dashboards.shots.visitors import Visitors

from tastemaker.runtime import free_port

RULES: Final = Path(__file__).resolve().parents[2] / "tastemaker" / "rules"
_READY_SECONDS: Final = 300
_EXPERIMENTS: Final = {
    "ranker-off": """
hypothesis: without the ranker people click less
variants:
- {name: control, alias: champion}
- {name: no-ranker, alias: champion, policy: {until: retrieve}}
allocation: {kind: fixed, weights: [0.5, 0.5]}
layer: order
guardrails: [{metric: latency_ms, margin: 1.0}, {metric: degraded_requests, margin: 0.5}]
""",
    "which-bundle": """
hypothesis: the better bundle earns the traffic
variants:
- {name: champion, alias: champion}
- {name: planted, alias: planted}
allocation: {kind: thompson, floor: 0.1}
layer: bundle
""",
}
SHOWN: Final = {"experiment": "which-bundle"}
"""Values of variables that its pictures show."""
_LIKING: Final = {"no-ranker": 0.1, "planted": 0.05}
"""Variants of these whose lists are clicked less than their scores say: those are no probabilities, or of a ranker that promises all."""
_EACH_SECOND: Final = 4.0
"""Requests: what two cores answer in time with everything else that a scene has on them."""
_ODD_SECONDS: Final = 10.0
_PROMETHEUS: Final = """
global: {{scrape_interval: 5s, evaluation_interval: 15s}}
rule_files: ["{rules}/*.yaml"]
scrape_configs:
- job_name: tastemaker
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


@dataclass(frozen=True)
class Scene:
    """One home, as its processes are told of it."""

    environment: dict[str, str]
    gateway: str
    folder: Path

    def run(self, *words: str, quiet: bool = False) -> bool:
        """A command of the CLI, behind what serves, to its end, and whether it did what it should; what it says of a failure is shown."""
        done = subprocess.run(
            ["nice", "-n", "19", *_command(*words)],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0 and not quiet:
            print(
                f"tastemaker {' '.join(words)}: exit {done.returncode}\n{done.stderr[-500:]}", file=sys.stderr
            )
        return done.returncode == 0

    @contextmanager
    def running(self, command: list[str], log: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process beside, stopped at the end."""
        with (self.folder / log).open("wb") as out:
            process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
            try:
                yield process
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=60)
                process.kill()


@contextmanager
def played(home: Path, minutes: float) -> Iterator[str]:
    """The address of a Prometheus that watched a home for some minutes; all is stopped at the end.

    Args:
        home: Made by the quick demo where it is not there yet (three minutes).
        minutes: How long there is traffic.

    Raises:
        CalledProcessError: The demo failed.
        RuntimeError: The gateway or Prometheus does not come up; the end of its log is shown.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port, admin_port = free_port(), free_port()
        scene = Scene(_environment(home, port, admin_port), f"http://127.0.0.1:{port}", folder)
        if not (home / "demo" / "report.json").exists():
            subprocess.run(_command("demo", "--quick"), env=scene.environment, check=True)
        stack.enter_context(scene.running(_command("serve"), "serve.log"))
        _wait_for(f"{scene.gateway}/readyz", folder / "serve.log")
        watched = free_port()
        stack.enter_context(scene.running(_prometheus(folder, admin_port, watched), "prometheus.log"))
        address = f"http://127.0.0.1:{watched}"
        _wait_for(f"{address}/-/ready", folder / "prometheus.log")
        _play(scene, minutes * 60)
        yield address


def _command(*words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("tastemaker")), *words]


def _environment(home: Path, port: int, admin_port: int) -> dict[str, str]:
    return os.environ | {
        "TASTEMAKER_HOME": str(home),
        "TASTEMAKER_GATEWAY__PORT": str(port),
        "TASTEMAKER_GATEWAY__ADMIN_PORT": str(admin_port),
        "TASTEMAKER_EXPERIMENTS__GUARDRAIL_SECONDS": "30",
        "OMP_NUM_THREADS": "1",
    }


def _prometheus(folder: Path, scraped: int, port: int) -> list[str]:
    config = folder / "prometheus.yml"
    config.write_text(_PROMETHEUS.format(rules=RULES, port=scraped), encoding="utf-8")
    listening = f"--web.listen-address=127.0.0.1:{port}"
    return ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}", listening]


def _wait_for(url: str, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    raise RuntimeError(
        f"{url} is not ready after {_READY_SECONDS} s:\n{log.read_text(errors='replace')[-2000:]}"
    )


def _play(scene: Scene, seconds: float) -> None:
    """Visitors of both experiments, now and then an odd client, and at shares of the time what else happens."""
    _start_experiments(scene)
    acts = (
        (0.1, ["promote", "2", "--to", "shadow", "--force", "--reason", "to be compared"]),
        (0.3, ["promote", "2", "--force", "--reason", "a trial"]),
        (0.5, ["rollback", "--reason", "the trial is over"]),
        (0.65, ["ladder", "force", "retrieval-order", "--for", "40s"]),
        (0.75, ["train", "movielens", "--quick"]),
    )
    began = time.monotonic()
    beside = threading.Thread(target=_act, args=(scene, acts, began, seconds))
    beside.start()
    visitors = Visitors(scene.gateway, _EACH_SECOND, _LIKING)
    for turn in itertools.count():
        visitors.come(_ODD_SECONDS)
        _odd_client(scene.gateway, turn)
        if time.monotonic() - began >= seconds and not beside.is_alive():
            return


def _act(scene: Scene, acts: Sequence[tuple[float, list[str]]], began: float, seconds: float) -> None:
    """Commands at shares of the time, one after the other."""
    for share, words in acts:
        time.sleep(max(0.0, began + share * seconds - time.monotonic()))
        scene.run(*words)


def _start_experiments(scene: Scene) -> None:
    for name, text in _EXPERIMENTS.items():
        path = scene.folder / f"{name}.yaml"
        head = f"name: {name}\nsalt: shots\norigin: simulator\nattribution_window_seconds: 5.0"
        path.write_text(head + text, encoding="utf-8")
        if not scene.run("experiment", "show", name, quiet=True):  # else it still runs from the last time
            scene.run("experiment", "start", str(path))


def _odd_client(gateway: str, turn: int) -> None:
    """Items that nobody knows, filters that leave nothing, a bad event, another user's feedback, rows of the catalogue."""
    user = str(1 + turn % 600)
    with httpx.Client(base_url=gateway, timeout=10) as client:
        plain: dict[str, Any] = {"user_id": user, "k": 10}
        listed = client.post(
            "/v1/recommendations", json=plain | {"session": ["318", "no-such"], "context": {"odd": "x"}}
        )
        nothing_fits = {"filters": {"tags": ["None such"]}}
        for odd in (*([nothing_fits] if turn % 5 == 0 else []), {"deadline_ms": 5}, {"k": -1}):
            client.post("/v1/recommendations", json=plain | odd)
        items = listed.json().get("items", [])
        kinds = ("impression", "impression", "impression", "click", "purchase", "like", "skip", "dislike")
        events = [
            {
                "event_id": str(uuid.uuid4()), "user_id": user, "item_id": item["item_id"], "kind": kind, "position": place + 1,
                "timestamp_ms": int(time.time() * 1000), "request_id": listed.json()["request_id"],
            } | ({"value": 9.9} if kind == "purchase" else {})
            for place, (item, kind) in enumerate(zip(items, kinds, strict=False))
        ]  # fmt: skip
        client.post("/v1/events", json={"events": [*events, {"event_id": "x"}]})
        client.put(
            "/v1/items", json={"items": [{"item_id": f"new-{turn}", "title": "New", "tags": ["Drama"]}]}
        )
        client.put("/v1/users", json={"users": [{"user_id": user, "country": "DE"}]})
