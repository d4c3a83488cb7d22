"""Opens a released bundle: the only way from storage into serving. Checks bytes before it parses them."""

import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.bundle.manifest import ITEM_TOWER, QUERY_TOWER, BundleRef, FileInfo, Manifest
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.tensor_file import tensors_in
from tastemaker.data.values import values_in
from tastemaker.errors import BundleError, CompatibilityError, IntegrityError
from tastemaker.pacing import step

if TYPE_CHECKING:
    from tastemaker.index.faiss_index import FaissIndex
    from tastemaker.index.sharded import ShardOf
    from tastemaker.index.slicing import SlicedIndex

Array = npt.NDArray[Any]
_AT_ONCE = 2**20
_BLOCK_BYTES = 2**22
_IDS_AT_ONCE = 4096
T = TypeVar("T")
M_co = TypeVar("M_co", covariant=True)


class Restorable(Protocol[M_co]):
    """A class of models that a bundle can hold."""

    def from_state(self, config: dict[str, Any], tensors: Mapping[str, Array], /) -> M_co:
        """The model of this configuration and content."""
        ...


class Bundle:
    """One released bundle. Files are read when asked for; JSON, tables and indexes are kept, tensors are not.

    Thread-safe: what two threads ask for is read once, and what was read is had without waiting.
    """

    shard: "ShardOf | None" = None
    """Of a part of a bundle, see `part`: which it is."""

    def __init__(self, store: BundleStore, ref: BundleRef, manifest: Manifest) -> None:
        self._store, self.ref, self.manifest = store, ref, manifest
        self._kept: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._is_verified = self._on_gpu = False

    @classmethod
    def open(
        cls, store: BundleStore, ref: BundleRef | str, sha256: str | None = None, *, whole: bool = True
    ) -> Self:
        """The bundle that `ref` names, all of it verified.

        Args:
            store: Where it lies.
            ref: What publishing returned, or the URI of the manifest.
            sha256: The manifest's hash where `ref` is a URI; unset, the URI's own twelve digits must do.
            whole: Without it each file is verified when it is read, and no other.

        Raises:
            IntegrityError: A file is missing, changed or outside the store.
            CompatibilityError: Another release's schema, or parts that do not belong together.
        """
        if isinstance(ref, BundleRef):
            found, content = store.get_manifest(ref.uri, ref.sha256)
        else:
            found, content = store.get_manifest(ref, sha256)
        bundle = cls(store, found, Manifest.from_bytes(content, found.uri))
        if whole:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Checks every file's presence, size and hash, once; `open` has done so unless told otherwise.

        Raises:
            IntegrityError: A file is missing, changed or outside the store.
        """
        with self._lock:
            if self._is_verified:
                return
            for name, file in self.manifest.files.items():
                self._store.check(file.sha256, file.size, self._called(name))
            self._is_verified = True

    @property
    def bundle_id(self) -> str:
        """Short name of the bundle."""
        return self.ref.bundle_id

    def has(self, name: str) -> bool:
        """Whether the bundle holds a file of this name."""
        return name in self.manifest.files

    def json(self, name: str) -> Any:
        """The value of a JSON file. Do not change it."""
        return self._keep(name, json.loads)

    def tensors(self, name: str) -> dict[str, Array]:
        """The arrays of a safetensors file; the caller's own, writable."""
        file = self._file(name)
        content = np.empty(file.size, np.uint8)
        with self._store.reading(file.sha256, file.size, self._called(name)) as read:
            end = 0
            while block := read(_BLOCK_BYTES):
                content[end : end + len(block)] = np.frombuffer(block[: file.size - end], np.uint8)
                end += len(block)
        try:
            return tensors_in(content)
        except ValueError as error:
            raise self._broken(name) from error

    def table(self, name: str) -> pa.Table:
        """The rows of a Parquet file."""
        table: pa.Table = self._keep(name, lambda content: pq.read_table(pa.BufferReader(content)))
        if table.num_rows != self.manifest.files[name].num_rows:
            raise CompatibilityError(
                f"{name}: rows", value=table.num_rows, limit=self.manifest.files[name].num_rows
            )
        return table

    def search_on_gpu(self) -> None:
        """Has indexes that are read from now on copied to the GPU."""
        self._on_gpu = True

    def index(self, name: str = "index.faiss") -> "FaissIndex":
        """The index, which holds one vector for each item.

        Its content is checked before it is parsed, by `open` or here, and once more as it is read: it is not held beside
        the index.

        Raises:
            IntegrityError: It changed since, or is not what its config says.
            CompatibilityError: It holds another number or length of vectors than the manifest says.
        """
        file = self._file(name)
        info = file.index
        index = self.once(name, lambda: self._read_index(name, file))
        if info is None or (index.num_items, index.dim) != (info.num_items, info.dim):
            limit = f"({info.num_items}, {info.dim})" if info else "recorded in the manifest"
            raise CompatibilityError(f"size of {name}", value=(index.num_items, index.dim), limit=limit)
        return index

    def searched(self, name: str = "index.faiss") -> "FaissIndex | SlicedIndex":
        """What is searched of an index for candidates: here all of it, see `index`."""
        return self.index(name)

    def _read_index(self, name: str, file: FileInfo) -> "FaissIndex":
        from tastemaker.index.faiss_index import FaissIndex

        if not self._is_verified:
            self._store.check(file.sha256, file.size, self._called(name))
        with self._store.reading(file.sha256, file.size, self._called(name)) as read:
            found = FaissIndex.read(read, file.index.config if file.index else None)
        return found.on_gpu() if self._on_gpu else found

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What is made of the bundle's files and never changes: made when it is first asked for, and kept."""
        if name not in self._kept:
            with self._lock:
                if name not in self._kept:
                    self._kept[name] = make()
        found: T = self._kept[name]
        return found

    def model(self, name: str, kind: Restorable[M_co]) -> M_co:
        """The model in `{name}.json` and `{name}.safetensors`, made again by `kind.from_state`.

        Raises:
            IntegrityError: A weight is not finite.
        """
        return kind.from_state(self.json(f"{name}.json"), self._weights(f"{name}.safetensors"))

    def towers(self, name: str, kind: Restorable[M_co]) -> M_co:
        """The model in `{name}.json` and both towers' files, made again by `kind.from_state`.

        Raises:
            IntegrityError: A weight is not finite.
        """
        weights = self._weights(QUERY_TOWER) | self._weights(ITEM_TOWER)
        return kind.from_state(self.json(f"{name}.json"), weights)

    def _weights(self, name: str) -> dict[str, Array]:
        found = self.tensors(name)
        for key, array in found.items():
            if not _is_finite(array):
                what = f"{key} in {name} of bundle {self.bundle_id} has values that are not finite"
                raise IntegrityError(what, mend="look at the training run, and publish another bundle")
        return found

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The customer's ids; item_index is the position here.

        A tuple: the garbage collector looks at all of a list's items each time, and at a tuple of texts once.
        """
        return self.once("item ids", lambda: tuple(values_in(self.table("items.parquet").column("item_id"))))

    @property
    def rows(self) -> Mapping[str, int]:
        """The item_index of each id."""
        return self.once("rows", self._read_rows)

    def _read_rows(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for start in range(0, len(self.item_ids), _IDS_AT_ONCE):
            step()
            ids = self.item_ids[start : start + _IDS_AT_ONCE]
            rows.update(zip(ids, range(start, start + len(ids)), strict=True))
        return rows

    def index_of(self, item_id: str) -> int | None:
        """The item_index of an id; None where the bundle does not know it."""
        return self.rows.get(item_id)

    def _keep(self, name: str, parse: Any) -> Any:
        def read() -> Any:
            try:
                return parse(self._read(name))
            except (ValueError, pa.ArrowException) as error:
                raise self._broken(name) from error

        return self.once(name, read)

    def _read(self, name: str) -> bytes:
        file = self._file(name)
        return self._store.get(file.sha256, file.size, self._called(name))

    def _file(self, name: str) -> FileInfo:
        file = self.manifest.files.get(name)
        if file is None:
            mend = "publish it with a recipe that trains this part"
            raise BundleError(f"bundle {self.bundle_id} has no file {name}", mend=mend)
        return file

    def _called(self, name: str) -> str:
        return f"{name} of bundle {self.bundle_id}"

    def _broken(self, name: str) -> IntegrityError:
        return IntegrityError(
            f"{name} of bundle {self.bundle_id} cannot be parsed", mend="publish the bundle again"
        )


def _is_finite(array: Array) -> bool:
    """Whether all values are numbers; looks at a few megabytes at a time, so as to need no second array of that size."""
    if array.dtype.kind != "f":
        return True
    flat = array.reshape(-1)
    for at in range(0, len(flat), _AT_ONCE):
        step()
        if not np.isfinite(flat[at : at + _AT_ONCE]).all():
            return False
    return True
