"""What lies in a bundle store and nothing names any more: found and removed by age, while others publish.

Whoever publishes writes a blob, or makes it young again where it is there already, before the manifest that names it. So
what is older than the grace period, and is named by no manifest, nobody relies on. In a folder a blob is taken aside before its age is
looked at for the last time, and put back where somebody made it young meanwhile; in an object store the last look and the
removal are two calls, with milliseconds between.
"""

import json
import re
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fsspec.implementations.local import LocalFileSystem

from tastemaker.bundle.store import BundleStore
from tastemaker.errors import BundleError, IntegrityError

_BLOB: Final = re.compile(r".*/blobs/sha256/[0-9a-f]{2}/([0-9a-f]{64})")
_MANIFEST: Final = re.compile(r".*/(manifests/[a-z0-9-]{1,40}/[0-9a-f]{12}\.json)")
_ASIDE: Final = "condemned-"
"""Begins the name, below `tmp/`, of a blob that was taken aside."""


@dataclass(frozen=True, slots=True)
class Lying:
    """A file of the store: its path below the root, its size, and when it was written, in seconds since 1970 UTC."""

    name: str
    num_bytes: int
    written: float


class Sweeping:
    """Finds what may go, and removes it. What was cut off is run again.

    Args:
        store: Of bundles; all catalogues of it are looked at.
        before: Only what was written before goes, in seconds since 1970 UTC.
    """

    def __init__(self, store: BundleStore, before: float) -> None:
        self._fs, self._root, self._before = store.fs, store.root, before
        self._local = isinstance(self._fs, LocalFileSystem)

    def put_back(self) -> None:
        """Puts back what a sweep that was cut off had taken aside."""
        for path in self._paths("tmp"):
            name = path.rpartition("/")[2]
            if name.startswith(_ASIDE):
                self._restore(path, self._place(name.removeprefix(_ASIDE)))

    def manifests(self) -> list[str]:
        """URIs of all bundles of all catalogues, sorted."""
        found = (_MANIFEST.fullmatch(path) for path in self._paths("manifests"))
        return sorted(match[1] for match in found if match)

    def named(self, without: Set[str] = frozenset()) -> set[str]:
        """Hashes of all blobs that a manifest names, whatever release wrote it.

        Args:
            without: URIs of manifests that do not count.

        Raises:
            IntegrityError: A manifest does not say what it names.
        """
        hashes: set[str] = set()
        for uri in self.manifests():
            if uri not in without:
                hashes |= self._names(uri)
        return hashes

    def unnamed(self, named: Set[str]) -> Iterator[Lying]:
        """Old blobs that are not among these."""
        for path in self._paths("blobs"):
            match = _BLOB.fullmatch(path)
            if match and match[1] not in named and (lying := self._look(path)) is not None:
                yield lying

    def rests(self) -> Iterator[Lying]:
        """What writing left when it was cut off long ago."""
        for path in self._paths("tmp"):
            if (lying := self._look(path)) is not None:
                yield lying

    def manifest(self, uri: str) -> Lying | None:
        """A bundle's manifest; None where it is young, or gone."""
        return self._look(f"{self._root}/{uri}")

    def remove(self, name: str) -> bool:
        """Removes a file that is still old; whether it did.

        Raises:
            BundleError: The storage refuses.
        """
        path = f"{self._root}/{name}"
        with _storage_errors(name):
            try:
                if self._look(path) is None:
                    return False
                if self._local and (match := _BLOB.fullmatch(path)):
                    return self._remove_aside(path, match[1])
                self._fs.rm_file(path)
            except FileNotFoundError:  # another sweep was first
                return False
            return True

    def _remove_aside(self, path: str, sha256: str) -> bool:
        """Nobody who makes a blob young again can do so to one that is aside: they write it anew."""
        aside = f"{self._root}/tmp/{_ASIDE}{sha256}"
        Path(aside).parent.mkdir(parents=True, exist_ok=True)
        Path(path).replace(aside)
        if self._look(aside) is None:
            self._restore(aside, path)
            return False
        Path(aside).unlink(missing_ok=True)
        return True

    def _restore(self, aside: str, path: str) -> None:
        with _storage_errors(path):
            if Path(path).exists():  # it was written anew meanwhile
                Path(aside).unlink(missing_ok=True)
            else:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(aside).replace(path)

    def _place(self, sha256: str) -> str:
        return f"{self._root}/blobs/sha256/{sha256[:2]}/{sha256}"

    def _names(self, uri: str) -> set[str]:
        mend = "restore it from a backup, or remove it; until then no blob is removed"
        try:
            with self._fs.open(f"{self._root}/{uri}", "rb") as file:
                content = file.read()
            return {str(file["sha256"]) for file in json.loads(content)["files"].values()}
        except FileNotFoundError:
            return set()
        except OSError as error:
            raise BundleError(f"{uri} cannot be read", value=str(error), mend="see to the storage") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{uri} does not say what it names", mend=mend) from error

    def _look(self, path: str) -> Lying | None:
        """A file that is there and old; None otherwise."""
        try:
            info: dict[str, Any] = self._fs.info(path)
            written: float = self._fs.modified(path).timestamp()
        except FileNotFoundError:
            return None
        name = path.removeprefix(f"{self._root}/")
        return Lying(name, int(info["size"] or 0), written) if written < self._before else None

    def _paths(self, folder: str) -> list[str]:
        root = f"{self._root}/{folder}"
        with _storage_errors(folder):
            self._fs.invalidate_cache()
            return sorted(self._fs.find(root)) if self._fs.isdir(root) else []


@contextmanager
def _storage_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            f"{name} cannot be looked at or removed", value=str(error), mend="see to the storage"
        ) from error
