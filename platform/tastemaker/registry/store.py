"""MLflow's store in the home: initialised once, opened directly, quiet. Not for what is kept in it."""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tastemaker.config import Settings
from tastemaker.errors import MissingExtraError, RegistryError
from tastemaker.home import Home

if TYPE_CHECKING:
    from mlflow import MlflowClient

T = TypeVar("T")

INIT_TIMEOUT_SECONDS = 120.0
_LOCK_TIMEOUT_SECONDS = 60.0
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "GIT_PYTHON_REFRESH": "quiet",
}


def open_client(settings: Settings, home: Home) -> "MlflowClient":
    """A client of the MLflow server in the settings, else of the SQLite store in the home, made if need be.

    Raises:
        RegistryError: Nothing answers, or the store cannot be opened.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    with registry_errors("open the registry"):
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        if settings.registry.tracking_uri:
            return MlflowClient(settings.registry.tracking_uri, settings.registry.tracking_uri)
        return _embedded(home)


def embedded_uri(home: Home) -> str:
    """The SQLite store in the home, as MLflow names it."""
    return f"sqlite:///{str(_file(home)).replace('%', '%25').replace('?', '%3F')}"


def _file(home: Home) -> Path:
    return home / "mlflow/mlflow.db"


def _embedded(home: Home) -> "MlflowClient":
    """Makes the tables under a lock: processes that migrate one empty store at once kill each other."""
    from mlflow import MlflowClient

    file, uri = _file(home), embedded_uri(home)
    with home.lock("mlflow-init", INIT_TIMEOUT_SECONDS):
        with closing(sqlite3.connect(file, timeout=INIT_TIMEOUT_SECONDS)) as database:
            database.execute("PRAGMA journal_mode=WAL")
        client = MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
        client.search_registered_models(max_results=1)
    return client


def experiment_id(client: "MlflowClient", home: Home, settings: Settings) -> str:
    """The MLflow experiment that holds the catalogue's runs, made if need be."""
    found = client.get_experiment_by_name(settings.catalogue)
    if found is not None:
        return str(found.experiment_id)
    artifacts = None if settings.registry.tracking_uri else (home / "mlflow/artifacts").as_uri()
    with home.lock("mlflow-init", INIT_TIMEOUT_SECONDS):
        found = client.get_experiment_by_name(settings.catalogue)
        return str(found.experiment_id if found else client.create_experiment(settings.catalogue, artifacts))


def registry_lock(home: Home) -> AbstractContextManager[None]:
    """Held by whoever publishes, moves an alias or takes a version away.

    Raises:
        UsageError: Another process holds it for a minute.
    """
    return home.lock("registry", _LOCK_TIMEOUT_SECONDS)


@contextmanager
def registry_errors(doing: str) -> Iterator[None]:
    """Turns what MLflow and its store raise into `RegistryError`.

    Args:
        doing: What fails then ("publish a version"), for the message.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    try:
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise MissingExtraError(
            "the registry needs mlflow", mend="pip install 'tastemaker[train]'"
        ) from error
    try:
        yield
    except (MlflowException, OSError, sqlite3.Error) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        refused = isinstance(error, MlflowException) and error.get_http_status_code() in (401, 403)
        mend = (
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, as MLflow knows them"
            if refused
            else "registry.tracking_uri and its server"
        )
        raise RegistryError(f"cannot {doing}: {first}", mend=f"check {mend}") from error


def found_or_none(read: Callable[[], T]) -> T | None:
    """What `read` gives; None where MLflow has no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return read()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise
