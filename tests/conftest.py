"""What holds for all tests: properties have no time limit, since speed is measured by benchmarks.

What tests start can be interrupted: a shell's background job has SIGINT ignored, and so would all that it starts.
"""

import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings

from tastemaker.config import Settings
from tastemaker.home import Home

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store with all its tables and nothing in them."""
    from tastemaker.registry.store import open_client

    home = Home.make(tmp_path_factory.mktemp("registry") / "home")
    open_client(Settings(), home)
    file = home / "mlflow" / "mlflow.db"
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@pytest.fixture(scope="session")
def make_home(empty_registry: Path) -> Callable[[Path], Home]:
    """Makes homes with an empty registry: making its tables takes MLflow seconds."""

    def make(root: Path) -> Home:
        home = Home.make(root)
        shutil.copy(empty_registry, home / "mlflow" / "mlflow.db")
        return home

    return make
