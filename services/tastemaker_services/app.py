"""The composition root: starts everything that serves, in order, and stops it in the reverse order.

State -> live aliases -> Ray -> graph -> watchers of registry and state -> consumer -> admin listener. Whatever was there before (a Valkey, a Ray
session) stays when serving stops. After a kill -9 of this process Ray's processes end themselves within a
minute; the embedded Valkey stays up with its data, and the next start takes it over.
"""

import os
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

from tastemaker.config import Settings
from tastemaker.errors import PortInUseError, ServingError
from tastemaker.home import Home, write_json
from tastemaker.runtime import free_port, open_ray, prepare_ray
from tastemaker.terminal import progress
from tastemaker_services.every import Every
from tastemaker_services.graph.draining import drain, forget
from tastemaker_services.web.access import check_exposure

READY_SECONDS = 120.0
WATCH_SECONDS = 2.0
REVIVE_SECONDS = 0.5
RUN_FILE = "serving.json"


class Serving:
    """Everything that serves one catalogue from one home."""

    def __init__(self, settings: Settings, home: Home) -> None:
        self._home = home
        self._stack = ExitStack()
        port = _port(settings.gateway.host, settings.gateway.port, "gateway.port")
        admin_host = settings.gateway.admin_host
        admin_port = _port(admin_host, settings.gateway.admin_port, "gateway.admin_port")
        gateway = settings.gateway.model_copy(update={"port": port, "admin_port": admin_port})
        self.settings = settings.model_copy(update={"home": home.root, "gateway": gateway})
        self.url = f"http://{_client_host(gateway.host)}:{port}"
        self.admin_url = f"http://{_client_host(admin_host)}:{admin_port}"

    def start(self) -> None:
        """Starts all of it and returns once `/readyz` says so; on any failure stops what it started.

        Raises:
            TastemakerError: A part does not start.
        """
        steps = (
            self._start_state,
            self._start_ray,
            self._start_graph,
            self._start_watchers,
            self._start_consumer,
            self._start_admin,
            self._wait_until_ready,
        )
        try:
            self._stack.enter_context(self._home.lock("serving"))
            with progress("starting to serve", len(steps)) as advance:
                for step in steps:
                    step()
                    advance(1)
            self._announce()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops all that `start` started. Calling it again does nothing."""
        self._stack.close()

    def __enter__(self) -> "Serving":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_state(self) -> None:
        from tastemaker.registry.client import Registry
        from tastemaker.registry.live import Watcher
        from tastemaker.state.connection import open_keys, open_state
        from tastemaker.state.server import EmbeddedValkey

        self._valkey = EmbeddedValkey(self._home)
        self._stack.callback(self._valkey.stop)
        self._client = self._stack.enter_context(open_state(self.settings, self._home))
        self._keys = open_keys(self._client, self.settings)
        self._client.delete(self._keys.ready)  # of replicas that a kill left no time to retire
        self._registry = Registry(self.settings, self._home)
        self._watcher = Watcher(self._registry, self._client, self._keys)
        if "champion" not in self._watcher.poll().aliases:
            raise ServingError(
                f"catalogue {self.settings.catalogue} has no champion",
                mend="publish a version, then `tastemaker promote <version> --to champion`",
            )

    def _start_ray(self) -> None:
        # Ray's workers would stand behind whatever else the machine runs, and an answer passes through several of them.
        os.environ.setdefault("RAY_worker_niceness", "0")
        arguments = prepare_ray(self.settings, self._home)
        # The folder that the graph's processes inherit: of the home that started the Ray session.
        self._metrics = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        _clear_metrics(self._metrics)
        import ray

        open_ray(ray, arguments, self._stack)

    def _start_graph(self) -> None:
        from ray import serve

        from tastemaker_services.graph.deployments import APP_NAME, build_graph

        _quiet_serve()
        gateway = self.settings.gateway
        forget(self._home)
        self._stack.callback(forget, self._home)
        self._stack.callback(_shut_serve_down)
        serve.start(
            proxy_location="HeadOnly" if self.settings.ray.address is None else "EveryNode",
            http_options={"host": gateway.host, "port": gateway.port, "keep_alive_timeout_s": 75},
        )
        try:
            serve.run(build_graph(self.settings), name=APP_NAME, route_prefix="/")
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise ServingError(
                f"the graph does not start: {reason}", mend=f"read the logs in {_ray_logs()}"
            ) from error

    def _start_watchers(self) -> None:
        """Of the registry, of which serving knows here alone, and of the embedded Valkey, which is started again if it dies."""
        from tastemaker_services.admin.gate_gauges import (
            GatesTold,  # metrics: only after their folder is named
        )

        watchers = [
            Every(
                WATCH_SECONDS,
                GatesTold(self._watcher, self._registry, self.settings.catalogue).poll,
                "registry-watcher",
            )
        ]
        if self.settings.state.url is None:
            watchers.append(Every(REVIVE_SECONDS, self._revive, "valkey-watcher"))
        for watcher in watchers:
            self._stack.callback(watcher.stop)
            watcher.start()

    def _revive(self) -> None:
        if self._valkey.has_died():
            self._valkey.start()

    def _start_consumer(self) -> None:
        from tastemaker_services.stream.consumer import ConsumerHandle

        self._stack.callback(ConsumerHandle(self.settings).stop)

    def _start_admin(self) -> None:
        from tastemaker_services.admin.app import Administered, administration
        from tastemaker_services.admin.listener import AdminServer

        running = Administered(
            self.settings, self._home, self._client, self._keys, self._registry, self._watcher, self._metrics
        )
        gateway = self.settings.gateway
        server = AdminServer(administration(running), gateway.admin_host, gateway.admin_port)
        self._stack.callback(server.stop)
        server.start()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(trust_env=False, timeout=10.0) as client:
            while (reason := _why_not_ready(client, self.url)) is not None:
                if time.monotonic() > deadline:
                    raise ServingError(
                        "the graph is not ready", value=reason, limit=f"ready within {READY_SECONDS:.0f} s",
                        mend=f"read the replicas' logs in {_ray_logs()}",
                    )  # fmt: skip
                time.sleep(0.1)

    def _announce(self) -> None:
        path = self._home / "run" / RUN_FILE
        write_json(path, {"pid": os.getpid(), "url": self.url, "admin_url": self.admin_url})
        self._stack.callback(path.unlink, missing_ok=True)
        if self.settings.ray.address is None:
            self._stack.callback(drain, self._home, self.settings.gateway.drain_seconds, self._num_under_way)

    def _num_under_way(self) -> float:
        from tastemaker_services.admin.listener import OurMetrics

        samples = (sample for metric in OurMetrics(self._metrics).collect() for sample in metric.samples)
        return sum(
            sample.value
            for sample in samples
            if sample.name == "tastemaker_gateway_in_flight" and sample.labels["kind"] == "http"
        )


def start(settings: Settings, home: Home) -> Serving:
    """Starts serving; see `Serving`.

    Raises:
        TastemakerError: A part does not start; nothing is left running.
    """
    check_exposure(settings.gateway)
    serving = Serving(settings, home)
    serving.start()
    return serving


def _port(host: str, port: int, key: str) -> int:
    """The port itself where it is free, a free one for 0."""
    if port == 0:
        return free_port()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUseError(
                key,
                value=port,
                limit="a free port",
                mend="stop what listens there, or set 0 for any free port",
            ) from error
    return port


def _client_host(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "localhost") else f"[{host}]" if ":" in host else host


def _clear_metrics(folder: Path) -> None:
    """Removes what processes of an earlier run left: sums start at 0. Our own files, if any, stay."""
    for file in folder.glob("*.db"):
        if not file.stem.endswith(f"_{os.getpid()}"):
            file.unlink(missing_ok=True)


def _why_not_ready(client: httpx.Client, url: str) -> str | None:
    try:
        answer = client.get(f"{url}/readyz")
        return None if answer.status_code == 200 else str(answer.json()["detail"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return f"the gateway does not answer yet ({type(error).__name__})"


def _quiet_serve() -> None:
    import logging

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    logging.getLogger("ray").setLevel(logging.ERROR)


def _shut_serve_down() -> None:
    import ray
    from ray import serve

    # Serve kills its controller while a call to it is under way; Ray would print that as an error.
    ray._private.worker._worker_logs_enabled = False
    serve.shutdown()


def _ray_logs() -> str:
    return "/tmp/ray/session_latest/logs/serve"
