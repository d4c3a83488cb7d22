"""Taking a catalogue down, and nothing of any other, which may share servers, home and bundle store with it.

Keys are told apart by the whole of their catalogue's hash tag, Feast's rows by the whole of their project's name. Not for
a single user (`erasure`).
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import redis

from tastemaker.bundle.store import BundleStore
from tastemaker.config import Settings
from tastemaker.errors import DataError
from tastemaker.events.standstill import Standstill
from tastemaker.features.feast_repo import repo_folder
from tastemaker.features.feast_rows import FeastRows
from tastemaker.features.views import ENTITIES, views_of
from tastemaker.home import Home
from tastemaker.registry.forgetting import forget_versions
from tastemaker.state.connection import scan_keys, state_errors
from tastemaker.state.keys import Keys
from tastemaker.types import catalogue_name

_SCAN: Final = 2000
_LEASES: Final = (b"lease", b"fence")


class Removal:
    """Removes what one catalogue has. What was cut off is run again: no step minds.

    Args:
        settings: Of the home; their catalogue need not be the one that is removed.
        home: Holds the log and all that was made of it.
        client: Of the role `state.url`.
        cache: Of the role `state.cache_url`.
        catalogue: Which.

    Raises:
        UsageError: That is no name of a catalogue.
    """

    def __init__(
        self, settings: Settings, home: Home, client: redis.Redis, cache: redis.Redis, catalogue: str
    ) -> None:
        self._settings, self._home = settings, home
        self._client, self._cache = client, cache
        self._catalogue = catalogue_name(catalogue)

    def remove(self, *, bundles: bool = False) -> dict[str, int]:
        """Gives how many of each were removed; what there was none of is not named.

        Args:
            bundles: Versions and manifests as well. Their files stay: other catalogues may share them.

        Raises:
            UsageError: It is being served.
            StateError: Redis/Valkey cannot be reached.
            DataError: A folder cannot be removed.
            RegistryError: MLflow cannot be reached.
        """
        removed = {"state keys": self._remove_state(), "cached lists": self._delete(self._cache, ())}
        removed["feature rows"] = self._remove_rows()
        for folder in self._folders():
            removed[f"files in {folder.relative_to(self._home.root)}"] = _remove_folder(folder)
        if bundles:
            removed["versions"] = forget_versions(self._settings, self._home, self._catalogue)
            removed["manifests"] = BundleStore.of(self._settings, self._home).forget_bundles(self._catalogue)
        return {what: number for what, number in removed.items() if number}

    def _remove_state(self) -> int:
        with state_errors("read the catalogue's record"):
            partitions: Any = self._client.hget(Keys(self._catalogue, 1).record, "partitions")
        removed = 0
        if partitions is not None:
            with Standstill(self._client, Keys(self._catalogue, int(partitions))) as still:
                removed = self._delete(self._client, _LEASES, still)
        return removed + self._delete(self._client, ())

    def _delete(self, client: redis.Redis, but: tuple[bytes, ...], still: Standstill | None = None) -> int:
        """Deletes the catalogue's keys from a server, but for those whose name ends so."""
        removed = 0
        for page in self._own_keys(client):
            if still is not None:
                still.hold()
            with state_errors("remove a catalogue's keys"):
                pipe: Any = client.pipeline(transaction=False)
                for key in page:
                    if not key.endswith(but):
                        pipe.unlink(key)
                removed += sum(pipe.execute())
        return removed

    def _own_keys(self, client: redis.Redis) -> Iterator[list[bytes]]:
        own = f"tm:{{{self._catalogue}"
        prefixes = (f"{own}}}:".encode(), f"{own}:".encode())  # of all of it, and of a partition
        for page in scan_keys(client, f"{own}*", _SCAN):
            yield [key for key in page if key.startswith(prefixes)]

    def _remove_rows(self) -> int:
        rows, removed = FeastRows(self._client, self._catalogue), 0
        for entity in ENTITIES:
            for ids in rows.ids(entity):
                rows.delete(ids, views_of(entity))
                removed += len(ids)
        return removed

    def _folders(self) -> list[Path]:
        """All but the receipts of erasures, which say nothing of anyone and are there to be shown."""
        name, home = self._catalogue, self._home
        return [
            home / "events" / name, home / "decisions" / name, repo_folder(home, name), home / "spool" / name,
            home / "checkpoints" / "runs" / name, home / "checkpoints" / "tune" / name,
            home / "run" / f"rebuild-{name}",
        ]  # fmt: skip


def _remove_folder(folder: Path) -> int:
    """Gives how many files it had."""
    if not folder.exists():
        return 0
    number = sum(file.is_file() for file in folder.rglob("*"))
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise DataError(
            f"cannot remove {folder}: {error}", mend="see to its rights, then run this again"
        ) from error
    return number
