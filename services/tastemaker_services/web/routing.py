"""What the groups of routes share: who may call them, and how a body becomes an answer that is counted."""

from collections.abc import Awaitable
from typing import Any

from fastapi import Response

from tastemaker import telemetry
from tastemaker.config_serving import GatewaySettings
from tastemaker_services.web.access import Access
from tastemaker_services.web.bodies import json_response
from tastemaker_services.web.problems import Problem


class Routes:
    """Base of a group of routes."""

    def __init__(self, settings: GatewaySettings, catalogue: str) -> None:
        self.settings, self.catalogue = settings, catalogue
        self.access = Access(settings.keys)
        self._under_way = telemetry.IN_FLIGHT.labels(catalogue, "http")

    async def answer(self, route: str, answer: Awaitable[dict[str, Any]], status: int = 200) -> Response:
        """The body that is awaited, or the problem that it ends in, counted under the route's name."""
        try:
            with self._under_way.track_inprogress():
                body = await answer
        except Problem as problem:
            outcomes = {401: "unauthorized", 403: "unauthorized", 429: "refused", 503: "error"}
            outcome = outcomes.get(problem.status, "invalid")
            telemetry.REQUESTS.labels(self.catalogue, route, outcome).inc()
            return problem.response()
        outcome = "degraded" if body.get("degraded") else "ok"
        telemetry.REQUESTS.labels(self.catalogue, route, outcome).inc()
        return json_response(body, status)
