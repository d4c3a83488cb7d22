"""Where settings come from: defaults < file < `TASTEMAKER_A__B` environment < the few flags. What there is to set, `config` says."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tastemaker.config import Settings
from tastemaker.errors import ConfigError

ENV_PREFIX = "TASTEMAKER_"
_NOT_SETTINGS = frozenset({"TASTEMAKER_CONFIG", "TASTEMAKER_DEBUG", "TASTEMAKER_API_KEY"})
"""Variables that say something else; the last is the client's."""


def load_settings(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from file, environment and flags.

    Args:
        file: YAML; unset reads the file that `TASTEMAKER_CONFIG` names, if any.
        environment: Stands in for `os.environ`.
        flags: Dotted keys and values from the command line; None values are not set.

    Raises:
        ConfigError: See `Strict.parse`.
    """
    return _load(file, environment, flags)[0]


def setting_origins(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Settings, and for each dotted key that is not a default, where it came from."""
    return _load(file, environment, flags)


def _load(
    file: Path | None, environment: Mapping[str, str] | None, flags: Mapping[str, Any] | None
) -> tuple[Settings, dict[str, str]]:
    environment = os.environ if environment is None else environment
    if file is None and environment.get("TASTEMAKER_CONFIG"):
        file = Path(environment["TASTEMAKER_CONFIG"])
    tree: dict[str, Any] = read_yaml(file) if file else {}
    origins = {key: str(file) for key in flatten(tree)}
    for key, value, name in _from_environment(environment):
        _set(tree, key, value, name)
        origins[key] = name
    for key, value in (flags or {}).items():
        if value is not None:
            _set(tree, key, value, "command line")
            origins[key] = "command line"
    named = ", ".join(sorted(set(origins.values()))) or "defaults"
    return Settings.parse(tree, named), origins


def read_yaml(file: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: No such file, not YAML, or not a mapping.
    """
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"config file {file}", value=error.strerror, mend="give the path of a YAML file"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {file} is not YAML", value=str(error), mend="correct it") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"config file {file}", value=type(tree).__name__, limit="a mapping", mend="correct it"
        )
    return tree


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    found = []
    for name, text in sorted(environment.items()):
        if not name.startswith(ENV_PREFIX) or name in _NOT_SETTINGS:
            continue
        key = name.removeprefix(ENV_PREFIX).lower().replace("__", ".")
        value: Any = yaml.safe_load(text) if text.strip() else text
        if name.endswith("_FILE") and name != "TASTEMAKER_RAY__TOKEN_FILE":
            key, value = key.removesuffix("_file"), _secret(name, text)
            if key == "gateway.keys":  # the one secret that is a list
                value = yaml.safe_load(value)
        if key in ("home", "state.password", "state.url") and value is not None:
            value = str(value)
        found.append((key, value, name))
    return found


def _secret(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"{name} names {path}", value=error.strerror, mend="mount the secret there"
        ) from error


def _set(tree: dict[str, Any], key: str, value: Any, origin: str) -> None:
    *parents, last = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{origin}: {key}", mend=f"{part} is a value, not a group of keys")
    tree[last] = value


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values by their dotted keys.

    >>> flatten({"a": {"b": 1, "c": {}}, "d": 2})
    {'a.b': 1, 'a.c': {}, 'd': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
