"""All checks of one installation, in the order in which one fault explains the next."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from tastemaker import __version__
from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.doctor import serving_checks as serving
from tastemaker.doctor import state_checks as state
from tastemaker.doctor.finding import Check, Finding, found_by
from tastemaker.errors import StateError
from tastemaker.home import Home
from tastemaker.state.connection import connect, state_errors, url_of
from tastemaker.state.keys import Keys

PACKAGES: Final = ("ray", "torch", "faiss-cpu", "mlflow", "feast", "redis", "pydantic", "numpy", "pyarrow")


def examine(settings: Settings, home: Home, gateway_url: str) -> Iterator[Finding]:
    """The findings, as they are made.

    Args:
        settings: Of the installation.
        home: Its home, or this pod's.
        gateway_url: Where /readyz is.
    """
    yield Finding("versions", "ok", ", ".join(f"{name} {found}" for name, found in versions().items()))
    yield from serving.check_disk(home)
    yield from serving.check_exposure(settings)
    try:
        client = connect(url_of(settings, home))
        with state_errors("reach Redis/Valkey"):
            client.ping()
    except StateError as error:
        yield Finding("state", "failed", error.what, error.mend or "")
        return
    keys, store = Keys(settings.catalogue, settings.state.partitions), BundleStore.of(settings, home)
    checks: dict[str, Check] = {
        "state": lambda: state.check_server(client, settings),
        "clock": lambda: state.check_clock(client),
        "registry": lambda: serving.check_registry(client, keys, settings, home),
        "live": lambda: serving.check_live(client, keys, store),
        "replicas": lambda: serving.check_readiness(client, keys),
        "gateway": lambda: serving.check_gateway(gateway_url),
        "streams": lambda: state.check_streams(client, keys),
    }
    for name, check in checks.items():
        yield from found_by(name, check)
    client.close()


def versions() -> dict[str, str]:
    """Of ourselves, Python and the packages that matter; of those that are installed."""
    found = {"tastemaker": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
