"""The small listener of a cluster's parts: /metrics for Prometheus, /healthz and /readyz for Kubernetes. It asks for no keys.

In a pod of the graph it is a container of its own, which sums the metrics of the pod's processes. It must see their
process ids (`shareProcessNamespace`): gauges of processes that are gone are dropped.
"""

from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from tastemaker import __version__
from tastemaker_services.admin.listener import OurMetrics
from tastemaker_services.web.bodies import json_response
from tastemaker_services.web.problems import Problem

Reason = Callable[[], str | None]


def create_exporter(
    metrics_folder: Path, why_not_alive: Reason = lambda: None, why_not_ready: Reason = lambda: None
) -> FastAPI:
    """The application.

    Args:
        metrics_folder: Where the processes keep their metrics; the answer is their sum.
        why_not_alive: Why the process should be started anew; None while it is well.
        why_not_ready: What it waits for; None where it works.
    """
    app = FastAPI(
        title="Tastemaker exporter", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
    )

    @app.get("/metrics")
    def metrics() -> Response:
        """All processes' metrics, summed, as Prometheus reads them."""
        registry = CollectorRegistry()
        registry.register(OurMetrics(metrics_folder))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/healthz")
    def healthz() -> Response:
        """Whether the process does its work."""
        return _told(why_not_alive(), "ok", "not-alive")

    @app.get("/readyz")
    def readyz() -> Response:
        """Whether it can do it."""
        return _told(why_not_ready(), "ready", "not-ready")

    return app


def _told(reason: str | None, well: str, kind: str) -> Response:
    if reason is None:
        return json_response({"status": well})
    return Problem(503, kind, reason, headers={"retry-after": "1"}).response()
