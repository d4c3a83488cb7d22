"""A .tar.gz of what support needs to know: findings, settings, versions, what is live, what the servers say, logs, metrics.

No secret is in it: settings and texts are searched for every secret that this process knows, and for what looks like one. No
user's data is in it either: neither events nor records, nor the decision log.
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis

from tastemaker.config import Settings
from tastemaker.doctor.examination import versions
from tastemaker.doctor.finding import Finding
from tastemaker.errors import TastemakerError
from tastemaker.home import Home
from tastemaker.redaction import HIDDEN, without_secrets
from tastemaker.registry.live import read_live
from tastemaker.registry.overview import read_overview
from tastemaker.state.connection import connect, nodes_of, url_of
from tastemaker.state.keys import Keys

LOG_BYTES: Final = 2**20
"""Of each log file, its end."""
_SECTIONS: Final = ("server", "clients", "memory", "persistence", "stats", "replication", "keyspace")
_SECRET_WORDS: Final = ("PASSWORD", "SECRET", "TOKEN", "API_KEY", "ACCESS_KEY", "CREDENTIAL")
_LEAST_SECRET: Final = 6
"""Shorter ones would make every text unreadable; they are no secrets."""


def write_support_bundle(
    path: Path,
    settings: Settings,
    home: Home,
    findings: Sequence[Finding],
    origins: Mapping[str, str],
    metrics: str | None = None,
) -> list[str]:
    """Writes the archive; the names in it.

    Args:
        path: Of the archive; what is there is replaced.
        settings: Of the installation.
        home: Whose logs are taken.
        findings: What the checks said.
        origins: Where settings come from, by dotted key.
        metrics: As Prometheus reads them, where they could be read.

    Raises:
        OSError: It cannot be written.
    """
    secrets = known_secrets(settings, home)
    created = datetime.now(UTC)
    root = f"tastemaker-support-{created:%Y%m%dT%H%M%SZ}"
    names = []
    with tarfile.open(path, "w:gz") as archive:
        path.chmod(0o600)
        for name, make in _contents(settings, home, findings, origins, metrics).items():
            text = without_secrets(_made(make), secrets)
            _add(archive, f"{root}/{name}", text.encode(errors="replace"), created)
            names.append(name)
    return names


def known_secrets(settings: Settings, home: Home) -> tuple[str, ...]:
    """Every secret that this process could see: of settings, their URLs, the home's secrets, the environment."""
    found: list[str] = [key.sha256 for key in settings.gateway.keys]
    if settings.state.password is not None:
        found.append(settings.state.password.get_secret_value())
    addresses = (
        settings.state.url,
        settings.state.cache_url,
        settings.registry.tracking_uri,
        settings.storage.url,
    )
    for url in filter(None, addresses):
        if password := urlsplit(url).password:
            found += [password, unquote(password)]
    found += [_text(file) for file in sorted((home / "secrets").glob("*")) if file.is_file()]
    for name, value in os.environ.items():
        if any(word in name.upper() for word in _SECRET_WORDS):
            found.append(_text(Path(value)) if name.endswith(("_FILE", "_PATH")) else value)
    lines = (line.strip() for text in found for line in text.splitlines())
    return tuple(sorted({line for line in lines if len(line) >= _LEAST_SECRET}))


def _contents(
    settings: Settings,
    home: Home,
    findings: Sequence[Finding],
    origins: Mapping[str, str],
    metrics: str | None,
) -> dict[str, Callable[[], str]]:
    contents: dict[str, Callable[[], str]] = {
        "findings.json": lambda: _json([asdict(one) for one in findings]),
        "settings.json": lambda: _json(_settings(settings, origins)),
        "versions.json": lambda: _json(versions()),
        "live.json": lambda: _json(_live(settings, home)),
        "state.txt": lambda: _state(settings, home),
        "machine.json": lambda: _json(_machine()),
    }
    if metrics is not None:
        contents["metrics.txt"] = lambda: metrics
    for file in sorted(path for path in (home / "logs").rglob("*") if path.is_file()):
        contents[f"logs/{file.relative_to(home / 'logs')}"] = lambda file=file: _end(file)  # type: ignore[misc]
    return contents


def _made(make: Callable[[], str]) -> str:
    try:
        return make()
    except (TastemakerError, redis.RedisError, OSError) as error:
        return f"cannot be told: {error}\n"


def _settings(settings: Settings, origins: Mapping[str, str]) -> dict[str, Any]:
    told = settings.model_dump(mode="json")
    told["gateway"]["keys"] = [
        {"sha256": HIDDEN, "scopes": list(key.scopes)} for key in settings.gateway.keys
    ]
    return {"settings": told, "origins": [f"{key} from {origin}" for key, origin in origins.items()]}


def _live(settings: Settings, home: Home) -> dict[str, Any]:
    keys = Keys(settings.catalogue, settings.state.partitions)
    with connect(url_of(settings, home)) as client:
        live = read_live(client, keys)
        states = [asdict(state) | {"outcome": state.outcome} for state in read_overview(client, keys)]
    return {"live": live.model_dump(mode="json") if live else None, "overview": states}


def _state(settings: Settings, home: Home) -> str:
    with connect(url_of(settings, home)) as client:
        return "\n".join(_sections(client))


def _sections(client: redis.Redis) -> Iterator[str]:
    for number, node in enumerate(nodes_of(client)):
        for section in _SECTIONS:
            told: Any = node.info(section)
            yield f"# node {number}, {section}"
            yield from (f"{name}: {value}" for name, value in told.items())


def _machine() -> dict[str, Any]:
    import psutil

    memory = psutil.virtual_memory()
    return {
        "cpus": os.cpu_count(),
        "load": psutil.getloadavg(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "kernel": os.uname().release,
    }


def _end(file: Path) -> str:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - LOG_BYTES))
        return opened.read().decode(errors="replace")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"


def _add(archive: tarfile.TarFile, name: str, content: bytes, created: datetime) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(content), int(created.timestamp()), 0o600
    archive.addfile(entry, io.BytesIO(content))
