"""Where bundles lie: blobs named by their content, and manifests. Not for what is inside them.

{root}/blobs/sha256/ab/ab12…      every file, once, whoever uses it
{root}/manifests/{catalogue}/{bundle_id}.json    written last; without it there is no bundle
{root}/tmp/                       what is being written; a crash leaves its rest here alone

What nothing names is removed by `sweeping`, which goes by age: whoever relies on a blob that is there makes it young again.
"""

import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tastemaker.bundle.manifest import BundleRef
from tastemaker.config import Settings
from tastemaker.errors import BundleError, IntegrityError
from tastemaker.home import Home
from tastemaker.pacing import step
from tastemaker.types import catalogue_name

_URI = re.compile(r"manifests/[a-z0-9-]{1,40}/[0-9a-f]{12}\.json")
_HASH = re.compile(r"[0-9a-f]{64}")
_BLOCK_BYTES = 2**22
_YOUNG_SECONDS = 1800.0
"""An object store cannot make a blob young again: one that is older is written anew."""
Part = bytes | memoryview


class BundleStore:
    """A folder or an object store, by fsspec URL. Several processes may write at once.

    Args:
        root: Path or URL of the store's root.
    """

    def __init__(self, root: str | Path) -> None:
        self._fs, path = _open(str(root))
        self._root = path.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    @classmethod
    def of(cls, settings: Settings, home: Home) -> Self:
        """`bundles` below the storage root that the settings name, which is the home unless told."""
        return cls(
            f"{settings.storage.url.rstrip('/')}/bundles" if settings.storage.url else home / "bundles"
        )

    @property
    def fs(self) -> Any:
        """The fsspec file system that it lies in."""
        return self._fs

    @property
    def root(self) -> str:
        """Its root's path there, without a slash at the end."""
        return self._root

    def put(self, content: bytes) -> str:
        """Keeps `content`; its SHA-256. A blob that is there already is kept, a damaged one replaced."""
        return self.put_parts(lambda: [content])[0]

    def put_parts(self, parts: Callable[[], Iterable[Part]]) -> tuple[str, int]:
        """Keeps a content that need not fit into memory, as `put` does; its SHA-256 and size.

        Args:
            parts: Gives it from the beginning; asked once for the hash and once to write it.
        """
        sha256, size = _hash(parts())
        path = self._blob(sha256)
        if not (self._is_young(path) and self._hash_of(path) == sha256):
            self._write(path, parts())
        return sha256, size

    def renew(self, sha256: str, size: int, name: str) -> None:
        """Makes a blob that another bundle is to share as young as one that is written now; the rest as `get`.

        Raises:
            IntegrityError: Missing, changed, or outside the store.
        """
        if not self._is_young(self._blob(sha256)):
            self._write(self._blob(sha256), [self.get(sha256, size, name)])

    def _is_young(self, path: str) -> bool:
        """Whether a blob is there, and young from now on."""
        try:
            if self._local:
                os.utime(path)
                return True
            written: float = self._fs.modified(path).timestamp()
        except OSError:
            return False
        return time.time() - written < _YOUNG_SECONDS

    def _hash_of(self, path: str) -> str:
        """Empty where it has gone."""
        try:
            with self._fs.open(path, "rb") as file:
                return _hash(iter(lambda: file.read(_BLOCK_BYTES), b""))[0]
        except FileNotFoundError:
            return ""

    def get(self, sha256: str, size: int, name: str) -> bytes:
        """The blob of this hash and size; `name` is the file's, for the message.

        Raises:
            IntegrityError: Missing, changed, or outside the store.
        """
        content = self._read(self._blob(sha256), name)
        if len(content) != size:
            raise _changed(name, f"{len(content)} bytes", f"{size} bytes")
        if (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise _changed(name, f"SHA-256 {found[:12]}", sha256[:12])
        return content

    def check(self, sha256: str, size: int, name: str) -> None:
        """Raises what `get` would, without holding the blob."""
        with self.reading(sha256, size, name) as read:
            while read(_BLOCK_BYTES):
                pass

    @contextmanager
    def reading(self, sha256: str, size: int, name: str) -> Iterator[Callable[[int], bytes]]:
        """Gives a function that reads the next so many bytes of a blob, all of which must be read before the end.

        The hash is that of what was read, and so known at the end: a parser that trusts its input must not be given a
        blob that `check` has not passed.

        Raises:
            IntegrityError: Missing, changed, or outside the store.
        """
        digest, read_bytes = hashlib.sha256(), 0
        with self._opened(self._blob(sha256), name) as file:

            def read(num_bytes: int) -> bytes:
                nonlocal read_bytes
                step()
                block = bytes(file.read(num_bytes))
                digest.update(block)
                read_bytes += len(block)
                return block

            yield read
            read_bytes += len(file.read(1))
        if read_bytes != size:
            raise _changed(name, f"{read_bytes} bytes", f"{size} bytes")
        if digest.hexdigest() != sha256:
            raise _changed(name, f"SHA-256 {digest.hexdigest()[:12]}", sha256[:12])

    @contextmanager
    def on_disk(self, sha256: str, size: int, name: str) -> Iterator[Path]:
        """A file of this machine with a blob's content, to be mapped: who has mapped it keeps it when the file goes.

        A folder's own blob is given as it lies, and must have passed `check`; of an object store it is copied, and checked.

        Raises:
            IntegrityError: Missing, changed, or outside the store.
        """
        if self._local:
            with self._opened(self._blob(sha256), name):
                yield Path(self._blob(sha256))
            return
        with tempfile.NamedTemporaryFile() as file:
            with self.reading(sha256, size, name) as read:
                while block := read(_BLOCK_BYTES):
                    file.write(block)
            file.flush()
            yield Path(file.name)

    def put_manifest(self, catalogue: str, content: bytes) -> BundleRef:
        """Makes a bundle exist. Every blob that the manifest names must be there already."""
        sha256 = hashlib.sha256(content).hexdigest()
        ref = BundleRef(f"manifests/{catalogue_name(catalogue)}/{sha256[:12]}.json", sha256)
        self._write(f"{self._root}/{ref.uri}", [content])
        return ref

    def get_manifest(self, uri: str, sha256: str | None = None) -> tuple[BundleRef, bytes]:
        """The manifest at `uri` (relative to the store), checked against its hash or at least its name.

        Raises:
            IntegrityError: Missing, changed, or outside the store.
        """
        if not _URI.fullmatch(uri):
            limit = "manifests/<catalogue>/<bundle id>.json"
            raise IntegrityError(
                "URI of a bundle", value=uri, limit=limit, mend="give the URI that publishing printed"
            )
        content = self._read(f"{self._root}/{uri}", uri)
        found = hashlib.sha256(content).hexdigest()
        if not found.startswith(Path(uri).stem) or sha256 not in (None, found):
            raise _changed(uri, f"SHA-256 {found[:12]}", (sha256 or Path(uri).stem)[:12])
        return BundleRef(uri, found), content

    def bundles(self, catalogue: str) -> list[str]:
        """URIs of all bundles of the catalogue, sorted."""
        folder = f"{self._root}/manifests/{catalogue_name(catalogue)}"
        if not self._fs.isdir(folder):
            return []
        names = (entry.rsplit("/", 1)[-1] for entry in self._fs.ls(folder, detail=False))
        uris = (f"manifests/{catalogue}/{name}" for name in names)
        return sorted(uri for uri in uris if _URI.fullmatch(uri))

    def forget_bundles(self, catalogue: str) -> int:
        """Removes the manifests of a catalogue's bundles, which are no more then; gives their number. Blobs stay."""
        uris = self.bundles(catalogue)
        try:
            for uri in uris:
                self._fs.rm_file(f"{self._root}/{uri}")
        except OSError as error:
            raise BundleError(
                f"manifests of catalogue {catalogue} cannot be removed",
                value=str(error),
                mend="see to the storage",
            ) from error
        return len(uris)

    def _blob(self, sha256: str) -> str:
        if not _HASH.fullmatch(sha256):
            raise IntegrityError("hash of a bundle's file", value=sha256, limit="64 hexadecimal digits")
        return f"{self._root}/blobs/sha256/{sha256[:2]}/{sha256}"

    def _read(self, path: str, name: str) -> bytes:
        with self._opened(path, name) as file:
            return bytes(file.read())

    @contextmanager
    def _opened(self, path: str, name: str) -> Iterator[Any]:
        if self._local and not Path(path).resolve().is_relative_to(Path(self._root).resolve()):
            raise IntegrityError(f"{name} is a link out of the bundle store", mend="publish the bundle again")
        try:
            with self._fs.open(path, "rb") as file:
                yield file
        except FileNotFoundError as error:
            what = f"{name} is missing from the bundle store at {self._root}"
            raise IntegrityError(what, mend="publish the bundle again, or correct storage.url") from error
        except OSError as error:
            raise BundleError(
                f"{name} cannot be read", value=str(error), mend="see to the storage"
            ) from error

    def _write(self, path: str, parts: Iterable[Part]) -> None:
        try:
            if self._local:
                _write_local(Path(self._root), Path(path), parts)
            else:
                self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
                with self._fs.open(path, "wb") as file:
                    for part in parts:
                        file.write(part)
        except OSError as error:
            raise BundleError(
                f"{path} cannot be written", value=str(error), mend="see to the storage"
            ) from error


def _open(url: str) -> tuple[Any, str]:
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise BundleError("URL of the bundle store", value=url, mend=str(error)) from error
    return fs, str(path)


def _hash(parts: Iterable[Part]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for part in parts:
        digest.update(part)
        size += len(part)
    return digest.hexdigest(), size


def _write_local(root: Path, path: Path, parts: Iterable[Part]) -> None:
    temporary = root / "tmp" / uuid4().hex
    temporary.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _changed(name: str, value: str, limit: str) -> IntegrityError:
    return IntegrityError(
        f"{name} was changed since it was published", value=value, limit=limit, mend="publish again"
    )
