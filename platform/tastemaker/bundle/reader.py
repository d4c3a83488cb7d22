"""Opens a released bundle: the only way from storage into serving. Checks bytes before it parses them."""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors
import safetensors.numpy

from tastemaker.bundle.manifest import ITEM_TOWER, QUERY_TOWER, BundleRef, Manifest
from tastemaker.bundle.store import BundleStore
from tastemaker.errors import BundleError, CompatibilityError, IntegrityError

if TYPE_CHECKING:
    from tastemaker.index.faiss_index import FaissIndex

Array = npt.NDArray[Any]
M_co = TypeVar("M_co", covariant=True)


class Restorable(Protocol[M_co]):
    """A class of models that a bundle can hold."""

    def from_state(self, config: dict[str, Any], tensors: Mapping[str, Array], /) -> M_co:
        """The model of this configuration and content."""
        ...


class Bundle:
    """One released bundle. Files are read when asked for; JSON, tables and indexes are kept, tensors are not.

    Not safe to load from two threads at once; what it has loaded is safe to read from any.
    """

    def __init__(self, store: BundleStore, ref: BundleRef, manifest: Manifest) -> None:
        self._store, self.ref, self.manifest = store, ref, manifest
        self._kept: dict[str, Any] = {}

    @classmethod
    def open(cls, store: BundleStore, ref: BundleRef | str, sha256: str | None = None) -> Self:
        """The bundle that `ref` names, all of it verified.

        Args:
            store: Where it lies.
            ref: What publishing returned, or the URI of the manifest.
            sha256: The manifest's hash where `ref` is a URI; unset, the URI's own twelve digits must do.

        Raises:
            IntegrityError: A file is missing, changed or outside the store.
            CompatibilityError: Another release's schema, or parts that do not belong together.
        """
        if isinstance(ref, BundleRef):
            found, content = store.get_manifest(ref.uri, ref.sha256)
        else:
            found, content = store.get_manifest(ref, sha256)
        bundle = cls(store, found, Manifest.from_bytes(content, found.uri))
        bundle.verify()
        return bundle

    def verify(self) -> None:
        """Checks every file's presence, size and hash; `open` has done so once.

        Raises:
            IntegrityError: A file is missing, changed or outside the store.
        """
        for name in self.manifest.files:
            self._read(name)

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
        content = self._read(name)
        try:
            return dict(safetensors.numpy.load(content))
        except safetensors.SafetensorError as error:
            raise self._broken(name) from error

    def table(self, name: str) -> pa.Table:
        """The rows of a Parquet file."""
        table: pa.Table = self._keep(name, lambda content: pq.read_table(pa.BufferReader(content)))
        if table.num_rows != self.manifest.files[name].num_rows:
            raise CompatibilityError(
                f"{name}: rows", value=table.num_rows, limit=self.manifest.files[name].num_rows
            )
        return table

    def index(self, name: str = "index.faiss") -> "FaissIndex":
        """The index, which holds one vector for each item.

        Raises:
            CompatibilityError: It holds another number or length of vectors than the manifest says.
        """
        from tastemaker.index.faiss_index import FaissIndex

        index: FaissIndex = self._keep(name, FaissIndex.from_bytes)
        info = self.manifest.files[name].index
        if info is None or (index.num_items, index.dim) != (info.num_items, info.dim):
            limit = f"({info.num_items}, {info.dim})" if info else "recorded in the manifest"
            raise CompatibilityError(f"size of {name}", value=(index.num_items, index.dim), limit=limit)
        return index

    def model(self, name: str, kind: Restorable[M_co]) -> M_co:
        """The model in `{name}.json` and `{name}.safetensors`, made again by `kind.from_state`."""
        return kind.from_state(self.json(f"{name}.json"), self.tensors(f"{name}.safetensors"))

    def towers(self, name: str, kind: Restorable[M_co]) -> M_co:
        """The model in `{name}.json` and both towers' files, made again by `kind.from_state`."""
        return kind.from_state(
            self.json(f"{name}.json"), self.tensors(QUERY_TOWER) | self.tensors(ITEM_TOWER)
        )

    @cached_property
    def item_ids(self) -> list[str]:
        """The customer's ids; item_index is the position here."""
        return [str(item_id) for item_id in self.table("items.parquet").column("item_id").to_pylist()]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def index_of(self, item_id: str) -> int | None:
        """The item_index of an id; None where the bundle does not know it."""
        return self._rows.get(item_id)

    def _keep(self, name: str, parse: Any) -> Any:
        if name not in self._kept:
            content = self._read(name)
            try:
                self._kept[name] = parse(content)
            except (ValueError, pa.ArrowException) as error:
                raise self._broken(name) from error
        return self._kept[name]

    def _read(self, name: str) -> bytes:
        file = self.manifest.files.get(name)
        if file is None:
            mend = "publish it with a recipe that trains this part"
            raise BundleError(f"bundle {self.bundle_id} has no file {name}", mend=mend)
        return self._store.get(file.sha256, file.size, f"{name} of bundle {self.bundle_id}")

    def _broken(self, name: str) -> IntegrityError:
        return IntegrityError(
            f"{name} of bundle {self.bundle_id} cannot be parsed", mend="publish the bundle again"
        )
