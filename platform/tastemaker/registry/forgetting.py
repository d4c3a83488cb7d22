"""Takes versions and runs out of the registry, for good."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tastemaker.config import Settings
from tastemaker.errors import RegistryError
from tastemaker.home import Home
from tastemaker.registry.client import Registry
from tastemaker.registry.store import embedded_uri, experiment_id, open_client, registry_errors, registry_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient

PRUNED: Final = "tastemaker.pruned"
"""Tag of a run that we deleted: what is left of it may go for good. One that was deleted in MLflow's UI is not ours to remove."""
PARENT: Final = "mlflow.parentRunId"
_AT_ONCE: Final = 500


def forget_versions(settings: Settings, home: Home, catalogue: str) -> int:
    """Deletes the registered model of a catalogue with its versions and aliases; gives the number of versions. Runs stay.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    versions = Registry(settings, home).versions(catalogue)
    if versions:
        with registry_errors(f"remove the versions of catalogue {catalogue}"):
            open_client(settings, home).delete_registered_model(catalogue)
    return len(versions)


def forget_version(settings: Settings, home: Home, number: int, is_free: Callable[[], bool]) -> bool:
    """Deletes a version of the settings' catalogue unless an alias names it; whether it did. Its number is never given again.

    Args:
        settings: Of the catalogue.
        home: Of the registry.
        number: The version's.
        is_free: Whether nothing else uses it; asked last of all, while no alias can move.

    Raises:
        RegistryError: MLflow cannot be reached or refuses.
    """
    client, catalogue = open_client(settings, home), settings.catalogue
    with registry_lock(home), registry_errors(f"remove version {number}"):
        aliases = client.get_registered_model(catalogue).aliases
        if str(number) in {str(named) for named in aliases.values()} or not is_free():
            return False
        client.delete_model_version(catalogue, str(number))
    return True


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that is not under way. `ended` is in seconds since 1970 UTC, `parent` the run that it is nested in."""

    id: str
    name: str
    ended: float
    parent: str | None
    version: int | None


class EndedRuns:
    """The runs of the settings' catalogue that have ended.

    Raises:
        RegistryError: From every method, where MLflow cannot be reached or refuses.
    """

    def __init__(self, settings: Settings, home: Home) -> None:
        self._settings, self._home = settings, home
        self._client: MlflowClient = open_client(settings, home)

    def ended(self) -> list[EndedRun]:
        """All of them; `version` is the one that a promotion's run is about."""
        return [_ended(run) for run in self._search("") if run.info.end_time and run.info.status != "RUNNING"]

    def remove(self, run_id: str) -> bool:
        """Deletes a run, and says that it did; `purge` removes it for good."""
        with registry_errors("remove runs"):
            self._client.set_tag(run_id, PRUNED, "true")
            self._client.delete_run(run_id)
        return True

    def purge(self) -> int:
        """Removes for good, with their files, what was deleted by us before; gives the number of runs.

        Of a store that is this home's: a server keeps them until its own `mlflow gc`.
        """
        if self._settings.registry.tracking_uri:
            return 0
        from mlflow.entities import ViewType

        ids = [run.info.run_id for run in self._search(f"tags.`{PRUNED}` = 'true'", ViewType.DELETED_ONLY)]
        for start in range(0, len(ids), _AT_ONCE):
            _purge(embedded_uri(self._home), ids[start : start + _AT_ONCE])
        return len(ids)

    def _search(self, filters: str, view: int | None = None) -> Iterator[Any]:
        more = {} if view is None else {"run_view_type": view}
        token: str | None = None
        with registry_errors("list runs"):
            experiment = experiment_id(self._client, self._home, self._settings)
            while True:
                page = self._client.search_runs([experiment], filters, page_token=token, **more)
                yield from page
                token = page.token
                if not token:
                    return


def _ended(run: Any) -> EndedRun:
    tags = run.data.tags
    version = tags.get("tastemaker.version", "")
    return EndedRun(
        id=str(run.info.run_id), name=str(run.info.run_name), ended=run.info.end_time / 1000,
        parent=tags.get(PARENT), version=int(version) if version.isdigit() else None,
    )  # fmt: skip


def _purge(uri: str, ids: Sequence[str]) -> None:
    """By MLflow's own command: there is no call for it."""
    words = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
    told = subprocess.run(
        [*words, "--run-ids", ",".join(ids)], capture_output=True, text=True, check=False,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri},
    )  # fmt: skip
    if told.returncode:
        last = (told.stderr or told.stdout).strip().splitlines()[-1:]
        raise RegistryError(
            f"`mlflow gc` failed: {' '.join(last)}", mend="see to the store, then run this again"
        )
