"""What is measured, in processes of its own: a home served by `tastemaker serve`, spread or fused, and the bare process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import psutil

from tastemaker.home import Home
from tastemaker.runtime import free_port

Kind = Literal["spread", "fused", "fused x 2", "bare"]
"""`fused x 2` are two fused gateways."""
READY_SECONDS: Final = 240.0
ROLES: Final = {
    "ServeReplica:tastemaker:Gateway": "gateway",
    "ServeReplica:tastemaker:Retriever": "retriever",
    "ServeReplica:tastemaker:Ranker": "ranker",
    "ServeReplica:tastemaker:Reranker": "reranker",
    "haproxy": "proxy",
    "valkey-server": "valkey",
    "serving_bare": "bare",
}
"""Words in a process's command line, and what it does."""


@dataclass(frozen=True)
class Running:
    """One contender, ready."""

    kind: Kind
    url: str
    process: psutil.Process
    started_seconds: float

    def cpu_seconds(self) -> dict[str, float]:
        """Time on a core so far, by role."""
        return self._by_role(lambda process: sum(process.cpu_times()[:2]))

    def memory_mb(self) -> dict[str, dict[str, float]]:
        """Resident and proportional set size, by role."""

        def of(process: psutil.Process) -> Any:
            found = process.memory_full_info()
            return found.rss / 1e6, found.pss / 1e6

        sizes = {role: of(process) for process in self._processes() if (role := _role(process)) != "other"}
        return {role: {"rss": rss, "pss": pss} for role, (rss, pss) in sizes.items()}

    def _by_role(self, value: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                role = _role(process)
                found[role] = found.get(role, 0.0) + value(process)
        return found

    def _processes(self) -> Sequence[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def _role(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    return next((role for word, role in ROLES.items() if word in command), "other")


def made_world(folder: Path, num_items: int, num_users: int) -> Home:
    """The home of a world that a process of its own makes in `folder`, so that this one stays small."""
    script = Path(__file__).with_name("serving_world.py")
    command = [sys.executable, str(script), str(folder), "--items", str(num_items), "--users", str(num_users)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return Home.open(folder / "home")


@contextlib.contextmanager
def running(
    kind: Kind, home: Home, environment: Mapping[str, str] | None = None, logs: Path | None = None
) -> Iterator[Running]:
    """A contender that serves the home's champion.

    Args:
        kind: Which.
        home: Whose champion.
        environment: Further settings, as the environment names them.
        logs: Folder of its output; unset, it lies beside the home.
    """
    began, port = time.monotonic(), free_port()
    name = kind.replace(" ", "-")
    file = home.root.parent / f"{name}.yaml"
    serving = {"fused": "graph: fused", "fused x 2": "graph: fused, gateway: {replicas: 2}"}
    file.write_text(
        f"gateway: {{port: {port}, admin_port: 0}}\ncache: {{seconds: 0}}\n"
        f"serving: {{{serving.get(kind, 'graph: spread')}}}\n"
    )
    command = [sys.executable, "-W", "ignore", "-m", "tastemaker.cli", "--config", str(file), "serve"]
    if kind == "bare":
        script = Path(__file__).with_name("serving_bare.py")
        command = [sys.executable, "-W", "ignore", str(script), str(home.root), "--port", str(port)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("TASTEMAKER_", "RAY_"))}
    log = (logs or home.root.parent) / f"{name}.log"
    with log.open("w") as out, subprocess.Popen(
        command, stdout=out, stderr=subprocess.STDOUT, cwd=home.root.parent,
        env=clean | {"TASTEMAKER_HOME": str(home.root), "OMP_NUM_THREADS": "1"} | dict(environment or {}),
    ) as process:  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, home, log, announced=kind != "bare")
            yield Running(kind, url, psutil.Process(process.pid), time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGINT if kind == "bare" else signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=90)
            if process.poll() is None:
                process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], home: Home, log: Path, *, announced: bool) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"it does not serve: {log.read_text()[-2000:]}")
        with contextlib.suppress(httpx.HTTPError, OSError, ValueError):
            answered = httpx.get(f"{url}/readyz", trust_env=False, timeout=10.0).status_code == 200
            if answered and (not announced or json.loads((home / "run" / "serving.json").read_text())["url"]):
                return
        time.sleep(0.2)
    raise RuntimeError(f"not ready within {READY_SECONDS:.0f} s: {log.read_text()[-2000:]}")
