"""Faults of the parts of a served home: each begins with the block and is over at its end.

Processes are found by what they run below `tastemaker serve`; nothing else of the machine is touched.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from serving_processes import ROLES, Running

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.home import Home
from tastemaker.registry.client import Registry

SLOWER: Final = 10
SLICE_SECONDS: Final = 0.1
"""A process that is to take ten times its time runs for a tenth of each such slice."""


@dataclass(frozen=True)
class Scene:
    """What faults are made to: a served home on a small disk of its own."""

    served: Running
    home: Home

    def processes(self, role: str) -> list[psutil.Process]:
        """Those of a role, the oldest first."""
        word = next(word for word, name in ROLES.items() if name == role)
        own = self.served.process
        below = [process for process in own.children(recursive=True) if word in _command(process)]
        return sorted(below, key=lambda process: process.create_time()) or self._detached(role)

    def _detached(self, role: str) -> list[psutil.Process]:
        """The embedded Valkey is not below whoever started it any more, once that was another command."""
        if role != "valkey":
            return []
        pid = json.loads((self.home / "run" / "valkey.json").read_text())["pid"]
        return [psutil.Process(pid)] if psutil.pid_exists(pid) else []


Fault = Callable[[Scene], AbstractContextManager[None]]


def killed(role: str) -> Fault:
    """One of its processes dies at once; whoever looks after it starts another."""

    @contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        scene.processes(role)[0].kill()
        yield

    return fault


def frozen(role: str) -> Fault:
    """One of its processes stands still, its sockets open."""

    @contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        process = scene.processes(role)[0]
        process.suspend()
        try:
            yield
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):  # Serve has given it up
                process.resume()

    return fault


@contextmanager
def registry_away(scene: Scene) -> Iterator[None]:
    """MLflow's store is gone, and comes back."""
    folder, aside = scene.home / "mlflow", scene.home / "mlflow-aside"
    folder.rename(aside)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        aside.rename(folder)


@contextmanager
def corrupt_bundle(scene: Scene) -> Iterator[None]:
    """A version is promoted, of which a file has other bytes than it should; at last the one before is promoted again."""
    settings = Settings(home=scene.home.root)
    registry, store = Registry(settings, scene.home), BundleStore.of(settings, scene.home)
    before = registry.aliases(settings.catalogue)["champion"]
    corrupt = _corrupted(scene.home, settings.catalogue, store, before.ref)
    broken = registry.publish(settings.catalogue, corrupt, {})
    registry.set_alias(settings.catalogue, "champion", broken.number, "chaos", "its file is corrupt")
    try:
        yield
    finally:
        registry.set_alias(settings.catalogue, "champion", before.number, "chaos", "the one before")


def _corrupted(home: Home, catalogue: str, store: BundleStore, ref: BundleRef) -> BundleRef:
    manifest = json.loads(Bundle.open(store, ref).manifest.to_bytes())
    name = next(name for name in sorted(manifest["files"]) if name.startswith("ranker"))
    good = manifest["files"][name]
    content = store.get(good["sha256"], good["size"], name) + b" "
    sha256 = store.put(content)  # a blob of its own: others share the good one
    (home / "bundles" / "blobs" / "sha256" / sha256[:2] / sha256).write_bytes(b"\0" * len(content))
    manifest["files"][name] |= {"sha256": sha256, "size": len(content)}
    return store.put_manifest(catalogue, json.dumps(manifest).encode())


@contextmanager
def disk_full(scene: Scene) -> Iterator[None]:
    """No byte is left on the home's disk."""
    ballast = scene.home / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 65536)
    try:
        yield
    finally:
        ballast.unlink()


def slow(role: str) -> Fault:
    """All its processes take ten times their time: they stand still for nine tenths of it."""

    @contextmanager
    def fault(scene: Scene) -> Iterator[None]:
        processes, over = scene.processes(role), threading.Event()
        thread = threading.Thread(target=_halt_and_go, args=(processes, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return fault


def _halt_and_go(processes: Sequence[psutil.Process], over: threading.Event) -> None:
    while not over.is_set():
        _signal(processes, signal.SIGSTOP)
        time.sleep(SLICE_SECONDS * (1 - 1 / SLOWER))
        _signal(processes, signal.SIGCONT)
        time.sleep(SLICE_SECONDS / SLOWER)
    _signal(processes, signal.SIGCONT)


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size ("64m"), never the machine's own disk.

    Raises:
        RuntimeError: None may be mounted here.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a full disk needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
