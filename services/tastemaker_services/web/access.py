"""Who may call what: API keys with scopes, kept as hashes. Not for who the user of the recommendations is."""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from typing import cast

from tastemaker.config_serving import ApiKey, GatewaySettings
from tastemaker.errors import ConfigError
from tastemaker.types import ORIGINS, Origin
from tastemaker_services.web.problems import Problem, invalid

ORIGIN_HEADER = "x-tastemaker-origin"
VARIANT_HEADER = "x-tastemaker-variant"
EVERY_SCOPE = frozenset({"read", "ingest", "catalogue", "erase", "explain", "admin"})


def check_exposure(settings: GatewaySettings) -> None:
    """Refuses to listen beyond loopback without keys.

    Raises:
        ConfigError: `gateway.host` is reachable from elsewhere and no key is configured; or `gateway.admin_host`, and none
            of scope admin.
    """
    if not settings.keys and not _is_loopback(settings.host):
        raise ConfigError(
            "gateway.host", value=settings.host, limit="a loopback address while gateway.keys is empty",
            mend="configure a key (its SHA-256 and scopes), or listen on 127.0.0.1",
        )  # fmt: skip
    if not _is_loopback(settings.admin_host) and not any("admin" in key.scopes for key in settings.keys):
        raise ConfigError(
            "gateway.admin_host", value=settings.admin_host,
            limit="a loopback address while gateway.keys has no key of scope admin",
            mend="configure one (its SHA-256 and scopes), or listen on 127.0.0.1",
        )  # fmt: skip


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Access:
    """Decides by the `Authorization: Bearer` header. Without any key configured everything is allowed."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = tuple((bytes.fromhex(key.sha256), frozenset(key.scopes)) for key in keys)

    def scopes(self, authorization: str | None, needed: str) -> frozenset[str]:
        """The scopes of the caller's key, `needed` among them.

        Raises:
            Problem: 401 without a known key, 403 where it lacks the scope.
        """
        if not self._keys:
            return EVERY_SCOPE
        found = self._scopes_of(authorization or "")
        if found is None:
            raise Problem(
                401, "unauthorized", "an API key is needed: send `Authorization: Bearer <key>`",
                field="authorization", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        if needed not in found:
            detail = f"the key lacks scope {needed}, has {', '.join(sorted(found)) or 'none'}"
            raise Problem(403, "forbidden", detail, field="authorization")
        return found

    def _scopes_of(self, authorization: str) -> frozenset[str] | None:
        scheme, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode(errors="replace")).digest()
        found = None
        for known, scopes in self._keys:  # all of them, so that the time says nothing of which one matched
            if hmac.compare_digest(known, digest):
                found = scopes
        return found if scheme.lower() == "bearer" else None


def origin_of(header: str | None, scopes: frozenset[str]) -> Origin:
    """Where a request comes from; anything but live needs the scope admin.

    Raises:
        Problem: 422 for an unknown word, 403 without the scope.
    """
    if header is None or header == "live":
        return "live"
    if header not in ORIGINS:
        raise invalid(ORIGIN_HEADER, f"{ORIGIN_HEADER} is unknown, must be one of {', '.join(ORIGINS)}")
    if "admin" not in scopes:
        raise Problem(403, "forbidden", f"{ORIGIN_HEADER} needs a key with scope admin", field=ORIGIN_HEADER)
    return cast(Origin, header)


def variants_of(header: str | None, scopes: frozenset[str]) -> dict[str, str]:
    """The variants that a tester asks for: `experiment=variant`, several of them with commas between.

    >>> variants_of("checkout=b, front=a", EVERY_SCOPE)
    {'checkout': 'b', 'front': 'a'}

    Raises:
        Problem: 422 for what says no variant, 403 without the scope admin.
    """
    if header is None:
        return {}
    if "admin" not in scopes:
        detail = f"{VARIANT_HEADER} needs a key with scope admin"
        raise Problem(403, "forbidden", detail, field=VARIANT_HEADER)
    found: dict[str, str] = {}
    for part in header.split(","):
        experiment, _, variant = (word.strip() for word in part.partition("="))
        if not experiment or not variant or experiment in found:
            limit = "experiment=variant, each experiment once, with commas between"
            raise invalid(VARIANT_HEADER, f"{VARIANT_HEADER} is {header[:60]!r}, must be {limit}: correct it")
        found[experiment] = variant
    return found
