"""Releases a bundle: files first, the manifest last. Not for what to put in."""

import io
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from tastemaker.bundle.manifest import (
    ITEM_TOWER,
    QUERY_TOWER,
    SCHEMA_VERSION,
    BundleInfo,
    BundleRef,
    FileInfo,
    IndexInfo,
    Manifest,
    bad_bundle,
    check_name,
    check_parts,
    is_tower,
)
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.tensor_file import can_hold, file_parts
from tastemaker.errors import BundleError
from tastemaker.index.config import MeasuredIndex
from tastemaker.types import catalogue_name

if TYPE_CHECKING:
    from tastemaker.index.faiss_index import FaissIndex

Tensors = Mapping[str, npt.NDArray[Any]]


class Stateful(Protocol):
    """A model that a bundle can hold."""

    def config_dict(self) -> dict[str, Any]:
        """What the model is, as JSON."""
        ...

    def tensors(self) -> Tensors:
        """What it learned."""
        ...


class BundleWriter:
    """Collects the files of one bundle. Nothing of it exists for readers until `commit` returns.

    Args:
        store: Where it will lie.
        catalogue: Whose bundle it is.
    """

    def __init__(self, store: BundleStore, catalogue: str) -> None:
        self._store, self._catalogue = store, catalogue_name(catalogue)
        self._files: dict[str, FileInfo] = {}
        self._indexes: dict[str, tuple[str, dict[str, Any]]] = {}

    def add_json(self, name: str, value: Any) -> None:
        """Adds plain JSON; the same value always gives the same bytes.

        Raises:
            BundleError: Not JSON; NaN and infinity are not.
        """
        try:
            text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
            self._add(name, text.encode())
        except (TypeError, ValueError) as error:
            raise bad_bundle(f"{name} is not JSON", error) from error

    def add_tensors(self, name: str, tensors: Tensors, training_id: str | None = None) -> None:
        """Adds arrays as safetensors.

        Args:
            name: Ends in `.safetensors`; a `…_tower.safetensors` must be of the index's training.
            tensors: Numbers and booleans of any shape.
            training_id: The training that made them, where it is another than the bundle's.

        Raises:
            BundleError: An array holds objects or text.
        """
        plain = {key: np.asarray(value) for key, value in tensors.items()}
        for key, value in plain.items():
            if not can_hold(value):
                raise BundleError(f"{name}: {key}", value=str(value.dtype), limit="numbers or booleans")
        sha256, size = self._store.put_parts(lambda: file_parts(plain))
        self._keep(name, FileInfo(sha256=sha256, size=size, training_id=training_id))

    def add_table(self, name: str, table: pa.Table) -> None:
        """Adds a table as Parquet."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self._add(name, buffer.getvalue(), num_rows=table.num_rows)

    def add_model(self, name: str, model: Stateful) -> None:
        """Adds `{name}.json` and `{name}.safetensors`, from which `Bundle.model` makes the model again."""
        self.add_json(f"{name}.json", model.config_dict())
        self.add_tensors(f"{name}.safetensors", model.tensors())

    def add_towers(self, name: str, model: Stateful, is_item: Callable[[str], bool]) -> None:
        """Adds `{name}.json` and both towers' files, from which `Bundle.towers` makes the model again.

        Args:
            name: Of the model.
            model: A query tower and an item tower, trained together.
            is_item: Whether a tensor goes into the item tower's file. All that makes item vectors must, with
                the tables that the query tower also reads: the index is bound to that file's hash.
        """
        tensors = model.tensors()
        self.add_json(f"{name}.json", model.config_dict())
        self.add_tensors(ITEM_TOWER, {key: value for key, value in tensors.items() if is_item(key)})
        self.add_tensors(QUERY_TOWER, {key: value for key, value in tensors.items() if not is_item(key)})

    def add_index(
        self,
        name: str,
        index: "FaissIndex",
        tower: str = ITEM_TOWER,
        training_id: str | None = None,
        measured: MeasuredIndex | None = None,
    ) -> None:
        """Adds an index whose vectors the model in file `tower` made, and what was measured of it."""
        facts = {"kind": index.kind, "num_items": index.num_items, "dim": index.dim}
        self._indexes[name] = (tower, facts | {"config": index.config, "measured": measured})
        content = index.to_bytes()
        sha256, size = self._store.put_parts(lambda: [content])
        self._keep(name, FileInfo(sha256=sha256, size=size, training_id=training_id))

    def commit(self, info: BundleInfo) -> BundleRef:
        """Makes the bundle exist.

        Raises:
            CompatibilityError: Parts that do not belong together.
        """
        files = {name: self._complete(name, file, info.training_id) for name, file in self._files.items()}
        check_parts(files)
        manifest = Manifest(
            **{key: getattr(info, key) for key in BundleInfo.model_fields},
            schema_version=SCHEMA_VERSION,
            catalogue=self._catalogue,
            created=datetime.now(UTC).isoformat(),
            files=files,
        )
        return self._store.put_manifest(self._catalogue, manifest.to_bytes())

    def _complete(self, name: str, file: FileInfo, training_id: str) -> FileInfo:
        if name in self._indexes:
            tower, facts = self._indexes[name]
            if tower not in self._files:
                raise BundleError(
                    f"{name} was built with {tower}, which is not in the bundle", mend="add it too"
                )
            index = IndexInfo(tower=tower, tower_sha256=self._files[tower].sha256, **facts)
            file = file.model_copy(update={"index": index})
        if (is_tower(name) or file.index) and file.training_id is None:
            file = file.model_copy(update={"training_id": training_id})
        return file

    def _add(
        self, name: str, content: bytes, training_id: str | None = None, num_rows: int | None = None
    ) -> None:
        sha256 = self._store.put(content)
        self._keep(
            name, FileInfo(sha256=sha256, size=len(content), training_id=training_id, num_rows=num_rows)
        )

    def _keep(self, name: str, file: FileInfo) -> None:
        check_name(name)
        if name in self._files:
            raise BundleError(f"{name} was added already", mend="add each file once")
        self._files[name] = file
