"""The admin listener's view of what serves: each alias, who answers from it, and why a version was refused."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from fastapi import FastAPI, Request, Response

from tastemaker.errors import StateError
from tastemaker.registry.overview import AliasState
from tastemaker_services.web.access import Access
from tastemaker_services.web.openapi import problems
from tastemaker_services.web.problems import Problem


def add_versions(app: FastAPI, access: Access, read: Callable[[], Sequence[AliasState]]) -> None:
    """Adds `GET /admin/v1/bundles`.

    Args:
        app: The admin listener's.
        access: Guards it.
        read: Reads the state of every alias; StateError where it cannot.
    """

    @app.get("/admin/v1/bundles", responses=problems(401, 403, 503))
    def list_bundles(request: Request) -> Response:
        """Every alias with its version and state."""
        try:
            access.scopes(request.headers.get("authorization"), "admin")
            found = [asdict(state) | {"outcome": state.outcome} for state in read()]
        except Problem as problem:
            return problem.response()
        except StateError as error:
            return Problem(503, "unavailable", str(error), headers={"retry-after": "1"}).response()
        return Response(json.dumps({"bundles": found}), media_type="application/json")
