"""The one folder that embedded mode keeps all it has under. Not for cluster mode, which takes addresses."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tastemaker.errors import DataError, UsageError

SCHEMA = 1
FOLDERS = (
    "run", "run/metrics", "state", "mlflow", "bundles", "feast", "events", "decisions",
    "checkpoints", "logs", "secrets",
)  # fmt: skip

_NOT_OURS = frozenset({".lock", "lost+found"})
"""What a new folder may hold already: another process's lock, and what ext4 puts into the root of a volume."""


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below the home folder. `Home.make` is the only thing that creates one."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "Home":
        """The home at `root`, made if it is not there yet; mode 0700.

        Raises:
            UsageError: `root` is a file, or a folder that holds something else.
            DataError: A newer release wrote it.
        """
        root = root.absolute()
        marker = root / "home.json"
        if root.exists() and not root.is_dir():
            raise UsageError(f"home {root} is a file", mend="name a folder in TASTEMAKER_HOME")
        if root.is_dir() and not marker.exists() and _holds_others(root):
            raise UsageError(
                f"home {root} holds other files", mend="name an empty or new folder in TASTEMAKER_HOME"
            )
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            for folder in FOLDERS:
                (root / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            if not marker.exists():
                write_json(marker, {"schema": SCHEMA, "created": datetime.now(UTC).isoformat()})
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> "Home":
        """The home at `root`, which must exist.

        Raises:
            UsageError: No home is there.
            DataError: A newer release wrote it.
        """
        root = root.absolute()
        try:
            schema = json.loads((root / "home.json").read_text())["schema"]
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"no home at {root}", mend="run `tastemaker init` first") from error
        if schema > SCHEMA:
            raise DataError(
                f"schema of home {root}", value=schema, limit=f"at most {SCHEMA}", mend="upgrade tastemaker"
            )
        return cls(root)

    def __truediv__(self, part: str) -> Path:
        return self.root / part

    @contextmanager
    def lock(self, name: str, timeout_seconds: float = 0.0) -> Iterator[None]:
        """Holds the home's lock `name`.

        Raises:
            UsageError: Another process holds it for longer than `timeout_seconds`.
        """
        try:
            with FileLock(self.root / "run" / f"{name}.lock", timeout=timeout_seconds):
                yield
        except Timeout as error:
            raise UsageError(
                f"{name} of home {self.root} is in use by another process", mend="wait for it or stop it"
            ) from error


def _holds_others(root: Path) -> bool:
    """Whether a folder is neither new nor a home that another process is making, or was when it ended."""
    names = {path.name for path in root.iterdir()}
    ours = _NOT_OURS | {name.partition("/")[0] for name in FOLDERS} if ".lock" in names else _NOT_OURS
    return any(name not in ours and "home.json" not in name for name in names)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader sees the old file or the whole new one."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` by temporary name, fsync and rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
