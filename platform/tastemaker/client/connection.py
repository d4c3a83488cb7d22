"""What both clients are told at the start: where the gateway is, the key, limits. And how they word what the network says."""

import os
from collections.abc import Mapping
from typing import Final

import httpx

from tastemaker import __version__
from tastemaker.client.errors import ClientError, LateError, UnreachableError, answer_error
from tastemaker.errors import ConfigError

API_KEY: Final = "TASTEMAKER_API_KEY"
"""Variable of the environment that holds the key where none is given."""
_JSON: Final = "application/json"
_AGENT: Final = f"tastemaker-python/{__version__}"


class Connection:
    """Where and as whom a client asks. Neither its text nor an error shows the key.

    >>> Connection("http://127.0.0.1:8700/", api_key="secret", max_connections=20)
    Connection('http://127.0.0.1:8700')

    Raises:
        ConfigError: The address is none, or the key cannot stand in a header.
    """

    def __init__(self, url: str, api_key: str | None, max_connections: int) -> None:
        self.url = _address(url)
        key = os.environ.get(API_KEY) if api_key is None else api_key
        headers = {"accept": _JSON, "user-agent": _AGENT}
        if key:
            headers["authorization"] = f"Bearer {_checked(key.strip())}"
        self.headers: Mapping[str, str] = headers
        self.limits = httpx.Limits(max_connections=max_connections, keepalive_expiry=30.0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


def body_headers(content: bytes | None) -> dict[str, str]:
    """Headers of a request's body, where it has one."""
    return {} if content is None else {"content-type": _JSON}


def checked(response: httpx.Response, body: bytes) -> bytes:
    """The body of an answer.

    Raises:
        AnswerError: It is none.
    """
    if not response.is_success:
        raise answer_error(response.status_code, body, response.headers.get("retry-after"))
    return body


def network_error(error: httpx.HTTPError, url: str) -> ClientError:
    """What a fault of the network is to a caller."""
    if isinstance(error, httpx.TimeoutException):
        return LateError(
            f"{url} did not answer in time", mend="give more time, or look at the gateway's load"
        )
    return UnreachableError(
        f"{url} cannot be reached",
        value=str(error)[:200] or type(error).__name__,
        mend="look whether it is up",
    )


def _address(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(
            "the gateway's address", value=url[:200], limit="like http://127.0.0.1:8700", mend="correct it"
        ) from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query:
        raise ConfigError(
            "the gateway's address", value=str(parsed.copy_with(username=None, password=None))[:200],
            limit="like http://127.0.0.1:8700, with neither name nor query", mend="correct it",
        )  # fmt: skip
    return str(parsed).rstrip("/")


def _checked(key: str) -> str:
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError("the API key", limit="printable ASCII without spaces", mend="copy it anew")
    return key
