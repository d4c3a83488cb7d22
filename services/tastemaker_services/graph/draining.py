"""How serving ends without a failed request: say so, stop listening, let what is under way be answered; then all may go.

For the graph that `tastemaker serve` runs on its own machine. On a cluster the pods' own end does the same: /readyz, then time for
the load balancer (`gateway.drain_seconds`), then Serve's grace period.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tastemaker.home import Home
from tastemaker.terminal import errors

MARK: Final = "draining"
SOFT_STOP: Final = signal.SIGUSR1
"""HAProxy takes no new connection then, and ends with its last one: a client may keep an idle one for long."""
LOOKS: Final = 3
"""In a row that must find nothing under way: a request may be between HAProxy and the gateway."""
LOOK_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 15.0
"""For requests under way; the longest deadline that a client may ask for is longer, and is cut short."""


def is_draining(home: Home) -> bool:
    """Whether the graph of this home is to take no more requests."""
    return (home / "run" / MARK).exists()


def forget(home: Home) -> None:
    """Takes back what an end, this one's or one that was cut short, has said."""
    (home / "run" / MARK).unlink(missing_ok=True)


def drain(home: Home, wait_seconds: float, num_under_way: Callable[[], float]) -> None:
    """Returns once no client waits for an answer and none can ask; at once on another signal.

    Args:
        home: Of the graph.
        wait_seconds: From /readyz saying no to the end of the listener.
        num_under_way: HTTP requests that the gateways are answering.
    """
    (home / "run" / MARK).touch()
    try:
        time.sleep(wait_seconds)
        proxies = _proxies()
        _send(proxies, SOFT_STOP)
        _wait_until_idle(proxies, num_under_way)
        # What is idle and still open is closed before the graph goes: its next request would be answered with 503.
        _send(proxies, signal.SIGTERM)
    except KeyboardInterrupt:
        errors.print("stopping at once", markup=False)


def _wait_until_idle(proxies: list[psutil.Process], num_under_way: Callable[[], float]) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    idle = 0
    while idle < LOOKS and any(map(_is_up, proxies)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        idle = 0 if num_under_way() else idle + 1


def _send(proxies: list[psutil.Process], signal_number: int) -> None:
    for proxy in filter(_is_up, proxies):
        with suppress(psutil.NoSuchProcess):
            proxy.send_signal(signal_number)


def _proxies() -> list[psutil.Process]:
    """The HAProxy processes of this process's Ray session, by the folder of their configuration."""
    folder = str(Path(os.environ["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent)
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "-f" in words[:-1] and words[words.index("-f") + 1].startswith(f"{folder}/"):
            found.append(process)
    return found


def _is_up(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
