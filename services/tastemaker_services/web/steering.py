"""Takes off a request what would steer Ray Serve, before Serve reads it and whatever stands in front of it.

Serve reads some headers of a request before our application does: one ends an answer with 408 or undoes the time-out that
an operator set, one has the work go on for a client that left, and a value that is not UTF-8 is answered with 500 in each. A
caller has `deadline_ms`. Serve's proxies and replicas import this by name (`tastemaker.runtime.SERVE_MODE`), so it
imports nothing that is heavy.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from starlette.middleware import Middleware

STEERING: Final = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"serve-multiplexed-model-id",
    }
)
"""Names as Serve compares them, with `-` for `_`."""
REQUEST_ID: Final = b"x-request-id"
"""Goes on to the answer, and into Serve's logs, where it is ASCII; else Serve makes one."""


def middlewares() -> list[Middleware]:
    """What Serve puts around each of its HTTP servers."""
    return [Middleware(WithoutSteering)]


class WithoutSteering:
    """ASGI middleware that passes a request on without those headers."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Passes the request on."""
        if "headers" in scope:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if not _steers(name, value)]
        await self._app(scope, receive, send)


def _steers(name: bytes, value: bytes) -> bool:
    compared = name.lower().replace(b"_", b"-")
    return compared in STEERING or (compared == REQUEST_ID and not value.isascii())
