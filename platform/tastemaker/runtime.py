"""How a Ray session of ours is started and stopped: its environment and arguments, not Ray itself (nothing here imports it).

The embedded graph and the cluster run the same Serve mode. Ray reads all of it at import or at start, so
`prepare_ray` must run before `import ray`.
"""

import atexit
import functools
import gc
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from tastemaker.config import Settings
from tastemaker.home import Home, write_bytes

SERVE_MODE = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    # A log line per request costs the proxy as much as the request itself; the gateway counts requests.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    "RAY_SERVE_HAPROXY_NBTHREAD": "2",
    # A client that is silent, or never ends its headers, holds a connection so long, not Serve's own hour.
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    # A gateway that stands still is left out after 0.7 to 0.9 s, not twelve: three checks of 0.2 s each that it leaves unanswered.
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "200ms",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER": "50ms",
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "3",
    # A busy machine starts a proxy late: Serve's own 5 s kill it before it answers.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "60",
}
OF_IMAGE = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "tastemaker_services.web.steering:middlewares"}
"""What the serving image says of itself, as it names code of its own version: a chart may run an image of before."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_DEDUP_LOGS": "1",
}
SERVE_PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
"""Listeners of Serve's proxies beside the gateway's own; two sessions would share their fixed defaults."""
HAPROXY_FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}
log = logging.getLogger(__name__)
SPARE_CPUS = 3
"""Logical CPUs beyond the machine's: the graph, the consumer and a trainer's coordinator mostly wait."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare_ray(settings: Settings, home: Home) -> dict[str, Any]:
    """Sets the environment of a Ray session and gives the arguments for `ray.init`.

    Values that the environment has already are kept. Token authentication stays on: Ray's own listeners bind
    all interfaces whatever they are told.
    """
    for key, value in (SERVE_MODE | OF_IMAGE | QUIET).items():
        os.environ.setdefault(key, value)
    for key, value in OF_IMAGE.items():
        if os.environ[key] != value:
            log.warning("%s is %s, not %s: callers' headers can steer Ray Serve", key, os.environ[key], value)
    for key in SERVE_PORTS:
        _set_once(key, lambda: str(free_port()))
    for key, name in HAPROXY_FILES.items():
        _set_once(key, lambda name=name: str(_haproxy_folder() / name))  # type: ignore[misc]
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(home / "run" / "metrics"))
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "RAY_AUTH_TOKEN" not in os.environ:  # which KubeRay sets
        _set_once("RAY_AUTH_TOKEN_PATH", lambda: _token_file(settings, home))
    if settings.ray.address:
        return {"address": settings.ray.address, "log_to_driver": False}
    # Nobody scrapes Ray's own metrics of an embedded session, and each request would pay for them.
    os.environ.setdefault("RAY_enable_metrics_collection", "0")
    return {
        "address": "local",
        "num_cpus": settings.ray.num_cpus or (os.cpu_count() or 1) + SPARE_CPUS,
        "include_dashboard": False,
        "object_store_memory": settings.ray.object_store_mb * 2**20,
        "_node_ip_address": "127.0.0.1",
        "log_to_driver": False,
        "configure_logging": True,
        "logging_level": "ERROR",
    }


def open_ray(ray: ModuleType, arguments: Mapping[str, Any], stack: ExitStack) -> None:
    """Joins this process's Ray session, or starts one that ends with `stack`.

    Args:
        ray: The module, which the caller imported after `prepare_ray`.
        arguments: What `prepare_ray` gave.
        stack: Of what the caller started.
    """
    if ray.is_initialized():
        return
    ray.init(**arguments)
    stack.callback(_stop_ray, ray.shutdown)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray's own would end us amid its threads


def _stop_ray(shutdown: Callable[[], None]) -> None:
    """Calls `ray.shutdown` so that this process survives it.

    Ray ends the process, with code 1 and without a word, when an object reference is released after its core worker
    is gone: by a thread whose garbage collection has taken long enough. So there is no garbage left and no collection
    under way meanwhile.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        shutdown()
    finally:
        if collects:
            gc.enable()


def _set_once(key: str, make: Callable[[], str]) -> None:
    if key not in os.environ:
        os.environ[key] = make()


@functools.cache
def _haproxy_folder() -> Path:
    """A folder that only we may enter: HAProxy's admin socket in it obeys whoever can open it.

    Its name is short, since a socket's path may have 107 characters and Ray adds 80.
    """
    folder = tempfile.mkdtemp(prefix="tm-", dir="/tmp")
    atexit.register(_remove, folder, os.getpid())
    return Path(folder)


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked child runs the exit handlers as well
        shutil.rmtree(folder, ignore_errors=True)


def _token_file(settings: Settings, home: Home) -> str:
    if settings.ray.token_file is not None:
        return str(settings.ray.token_file)
    path = home / "secrets" / "ray_token"
    if not path.exists():
        write_bytes(path, secrets.token_hex(32).encode())
        path.chmod(0o600)
    return str(path)
