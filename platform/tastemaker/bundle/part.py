"""A bundle as one shard of a catalogue holds it: what is searched is cut to own rows, and what any row is looked up in stays in its file.

Vectors, factors and tables of all items are mapped and not loaded: a user's history may name any of them. The system keeps what is
looked up often, once for all processes of a machine.
"""

from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle, Restorable
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.tensor_file import map_tensors
from tastemaker.errors import CompatibilityError
from tastemaker.index.mapped import let_go
from tastemaker.index.sharded import ShardOf
from tastemaker.index.slicing import SlicedIndex
from tastemaker.types import Float32

Array = npt.NDArray[Any]
M = TypeVar("M")


class BundlePart(Bundle):
    """One shard's part of a released bundle. Made by `open_part`."""

    shard: ShardOf

    @classmethod
    def open_part(cls, store: BundleStore, ref: BundleRef, shard: ShardOf) -> Self:
        """The part of the bundle that `ref` names, all of whose files are verified.

        Raises:
            IntegrityError: See `Bundle.open`.
            CompatibilityError: See `Bundle.open`.
        """
        part = cls.open(store, ref)
        part.shard = shard
        return part

    @property
    def own(self) -> range:
        """Its rows.

        Raises:
            ConfigError: There are more shards than items.
        """
        return self.shard.rows(len(self.item_ids))

    def searched(self, name: str = "index.faiss") -> SlicedIndex:
        """The slice of an index that finds own rows alone.

        Raises:
            IntegrityError: It is not what its config says.
            CompatibilityError: It holds another number or length of vectors than the manifest says.
        """
        return self.once(f"slice of {name}", lambda: self._slice(name))

    def _slice(self, name: str) -> SlicedIndex:
        file = self._file(name)
        with self._store.on_disk(file.sha256, file.size, self._called(name)) as path:
            found = SlicedIndex.read(path, self.own, file.index.config if file.index else None)
        info = file.index
        if info is None or (found.num_items, found.dim) != (info.num_items, info.dim):
            limit = f"({info.num_items}, {info.dim})" if info else "recorded in the manifest"
            raise CompatibilityError(f"size of {name}", value=(found.num_items, found.dim), limit=limit)
        return found

    def tensors(self, name: str) -> dict[str, Array]:
        """The arrays of a safetensors file, which stay in it: what is written to them is seen here alone."""
        file = self._file(name)
        with self._store.on_disk(file.sha256, file.size, self._called(name)) as path:
            return map_tensors(path)

    def _weights(self, name: str) -> dict[str, Array]:
        found = super()._weights(name)
        for array in found.values():
            let_go(array)
        return found


def exact_slice(bundle: Bundle, vectors_ID: Float32) -> SlicedIndex:
    """An exact index of a part's own rows of a matrix that stays in its file."""
    assert bundle.shard is not None, "a part of a bundle"
    found = SlicedIndex.exact(vectors_ID, bundle.shard.rows(len(vectors_ID)))
    let_go(vectors_ID)
    return found


class OwnColumns(Generic[M]):
    """Of a square sparse matrix of items, a `Restorable` that keeps what is given to own rows alone.

    Args:
        own: Rows of the shard.
        kind: What is made of the three arrays of a CSR matrix that are left.
    """

    def __init__(self, own: range, kind: Restorable[M]) -> None:
        self._own, self._kind = own, kind

    def from_state(self, config: dict[str, Any], tensors: Mapping[str, Array], /) -> M:
        """See `Restorable`."""
        cut = own_columns(tensors["indptr"], tensors["indices"], tensors["data"], self._own)
        for array in tensors.values():
            let_go(array)
        return self._kind.from_state(config, cut)


def own_columns(
    indptr: Array, indices: Array, data: Array, own: range, rows_at_once: int = 65_536
) -> dict[str, Array]:
    """The entries of a CSR matrix whose columns are in a range, in a matrix of the same shape.

    >>> cut = own_columns(np.array([0, 2, 3]), np.array([0, 1, 1]), np.array([5.0, 6.0, 7.0]), range(1, 2))
    >>> cut["indptr"].tolist(), cut["indices"].tolist(), cut["data"].tolist()
    ([0, 1, 2], [1, 1], [6.0, 7.0])
    """
    lengths, kept_indices, kept_data = [np.zeros(1, np.int64)], [indices[:0]], [data[:0]]
    for start in range(0, len(indptr) - 1, rows_at_once):
        bounds = indptr[start : start + rows_at_once + 1].astype(np.int64)
        some = indices[bounds[0] : bounds[-1]]
        is_own = (some >= own.start) & (some < own.stop)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_own)])
        lengths.append(np.diff(before[bounds - bounds[0]]))
        kept_indices.append(some[is_own])
        kept_data.append(data[bounds[0] : bounds[-1]][is_own])
    return {
        "indptr": np.cumsum(np.concatenate(lengths)),
        "indices": np.concatenate(kept_indices),
        "data": np.concatenate(kept_data),
    }
