"""Takes off a request what would steer Ray Serve, before Serve reads it and whatever stands in front of it.

Serve reads some headers of a request before our application does: one ends an answer with 408 or undoes the time-out that
an operator set, one has the work go on for a client that left, and a value that is not UTF-8 is answered with 500 in each. A
caller has `deadline_ms`. Serve's proxies and replicas import this by name (`tastemaker.runtime.OF_IMAGE`), so it
imports nothing that is heavy.
"""

import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

from starlette.middleware import Middleware

REQUEST_ID: Final = b"x-request-id"
"""Goes on to the answer, and into Serve's logs, where it is ASCII; else Serve makes one."""


def steering_names(environment: Mapping[str, str]) -> frozenset[bytes]:
    """Headers that steer Serve in an environment, which may call the session's otherwise: lower case, with `-` for `_`."""
    session = environment.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id")
    return frozenset(
        {
            b"x-request-timeout-seconds",
            b"x-request-disconnect-disabled",
            b"serve-multiplexed-model-id",
            _compared(session.encode()),
        }
    )


def middlewares() -> list[Middleware]:
    """What Serve puts around each of its HTTP servers."""
    return [Middleware(WithoutSteering)]


class WithoutSteering:
    """ASGI middleware that passes a request on without those headers."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app, self._steering = app, steering_names(os.environ)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Passes the request on."""
        if "headers" in scope:
            scope["headers"] = [
                (name, value) for name, value in scope["headers"] if not self._steers(name, value)
            ]
        await self._app(scope, receive, send)

    def _steers(self, name: bytes, value: bytes) -> bool:
        compared = _compared(name)
        return compared in self._steering or (compared == REQUEST_ID and not value.isascii())


def _compared(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")
