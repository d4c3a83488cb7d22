"""The listener for those who run the platform: /docs, /metrics, /admin/v1; not the gateway's."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from tastemaker import __version__
from tastemaker.config_serving import GatewaySettings
from tastemaker.errors import ServingError
from tastemaker_services.gauges import forget_dead_gauges
from tastemaker_services.routes.api import create_api
from tastemaker_services.web.openapi import document

START_SECONDS = 10.0


def create_admin(settings: GatewaySettings, metrics_folder: Path) -> FastAPI:
    """The application.

    Args:
        settings: The gateway's.
        metrics_folder: Where the graph's processes keep their metrics; the answer is their sum.
    """
    admin = FastAPI(
        title="Tastemaker admin", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
    )

    @admin.get("/docs")
    def docs() -> Response:
        """The gateway's API and that of `/admin/v1` for people."""
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Tastemaker")

    @admin.get("/openapi.json")
    def openapi() -> dict[str, Any]:
        """The gateway's API and that of `/admin/v1` for programs."""
        told, own = gateway_openapi(settings), document(admin)
        told["paths"] |= {path: tree for path, tree in own["paths"].items() if path.startswith("/admin/")}
        told["components"]["schemas"] |= own["components"]["schemas"]
        return told

    @admin.get("/metrics")
    def metrics() -> Response:
        """All processes' metrics, summed, as Prometheus reads them."""
        registry = CollectorRegistry()
        registry.register(OurMetrics(metrics_folder))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @admin.get("/healthz")
    def healthz() -> dict[str, str]:
        """Whether the listener lives."""
        return {"status": "ok"}

    return admin


class OurMetrics:
    """The sums of our metrics. Ray's own processes keep theirs in the same folder: they inherit its name."""

    def __init__(self, folder: Path) -> None:
        self._sums = MultiProcessCollector(None, path=str(folder))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        """Ours, summed over processes; of gauges over those that live."""
        forget_dead_gauges()
        sums: list[Metric] = list(self._sums.collect())  # type: ignore[no-untyped-call]
        return [metric for metric in sums if metric.name.startswith("tastemaker_")]


def gateway_openapi(settings: GatewaySettings) -> dict[str, Any]:
    """OpenAPI of the gateway's routes."""

    class _Nobody:
        """Stands in for what answers: only the routes are looked at."""

        recommend = similar = append = why_not_ready = None

    return document(create_api(_Nobody(), settings, ""))  # type: ignore[arg-type]


class AdminServer:
    """Runs an application for those who run the platform in a thread of this process."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True, name="admin")
        self.url = f"http://{host}:{port}"

    def start(self) -> None:
        """Starts listening.

        Raises:
            ServingError: It does not come up.
        """
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ServingError(f"the listener at {self.url} does not start", mend="see the log")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stops listening."""
        self._server.should_exit = True
        self._thread.join(timeout=5.0)
