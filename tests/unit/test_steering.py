"""What of a request's headers reaches Serve."""

import asyncio
from typing import Any

import pytest

from tastemaker.runtime import OF_IMAGE
from tastemaker_services.web import steering

Headers = list[tuple[bytes, bytes]]


def passed_on(headers: Headers) -> Headers:
    """What the innermost application is given."""
    seen: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope)

    [around] = steering.middlewares()
    asyncio.run(
        around.cls(app, *around.args, **around.kwargs)({"type": "http", "headers": headers}, None, None)
    )
    [scope] = seen
    return list(scope["headers"])


KEPT: Headers = [
    (b"host", b"shop"),
    (b"authorization", b"Bearer k"),
    (b"traceparent", b"00-ab-cd-01"),
    (b"x-request-id", b"our-own"),
    (b"x-note", b"\xff"),
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-request-timeout-seconds", b"0"),
        (b"X-Request-Timeout-Seconds", b"0.001"),
        (b"x_request_timeout_seconds", b"5"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"serve_multiplexed_model_id", b"m"),
        (b"serve-multiplexed-model-id", b"m"),
        (b"x-session-id", b"\xff"),
        (b"x-request-id", b"\xc3\xa9\xff"),
    ],
)
def test_what_steers_serve_is_taken_off_and_the_rest_passed_on_in_order(name: bytes, value: bytes) -> None:
    assert passed_on([*KEPT[:2], (name, value), *KEPT[2:], (name, value)]) == KEPT


def test_the_sessions_header_is_the_one_that_serve_was_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_SESSION_ID_HEADER_KEY", "X_Cart")
    plain = (b"x-session-id", b"a")  # steers nothing then
    assert passed_on([*KEPT, (b"x-cart", b"a"), (b"X_CART", b"b"), plain]) == [*KEPT, plain]


def test_what_has_no_headers_is_passed_on() -> None:
    scopes: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(scope)

    asyncio.run(steering.WithoutSteering(app)({"type": "lifespan"}, None, None))
    assert scopes == [{"type": "lifespan"}]


def test_serve_is_told_where_it_is() -> None:
    [path] = OF_IMAGE.values()
    module, name = path.split(":")
    assert (module, getattr(steering, name)) == (steering.__name__, steering.middlewares)
