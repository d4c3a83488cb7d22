"""What the commands of one process share: settings, the home, and what to stop at the end."""

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # both are late: pydantic would double the time of `--help`
    from tastemaker.config import Settings
    from tastemaker.home import Home

lifetime = ExitStack()
"""Closed when the process's command ends, whichever way: servers and sessions that a command starts are entered here."""

_settings: "Settings | None" = None


def use(new: "Settings") -> None:
    """Makes `new` the settings of this process."""
    global _settings  # noqa: PLW0603 (one command line, one settings tree)
    _settings = new


def is_set() -> bool:
    """Whether the settings have been read."""
    return _settings is not None


def settings() -> "Settings":
    """The settings of this process, read from the environment where no command line set them."""
    if _settings is None:
        from tastemaker.config_sources import load_settings

        use(load_settings())
    assert _settings is not None
    return _settings


def home() -> "Home":
    """The home that the settings name; made where it is not there yet."""
    from tastemaker.home import Home

    return Home.make(settings().home)


def gateway_url() -> str:
    """Where the gateway of this home listens; where none is announced, where the settings say."""
    gateway = settings().gateway
    try:
        return str(json.loads((home() / "run" / "serving.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return f"http://{gateway.host}:{gateway.port}"
