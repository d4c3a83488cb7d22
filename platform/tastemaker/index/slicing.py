"""The index of one shard, made of the whole's file: own rows are searched, the others' vectors are looked up in the file.

Lists keep the whole's centroids and codebooks, so that shards of one index read the same lists; a graph is linked anew. Not for
how shards' answers are merged: see `sharded`.

Shape letters: B requests, I catalogue, D dimension, K results.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tastemaker.errors import IntegrityError
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.library import faiss
from tastemaker.index.mapped import map_rows, spilled_rows
from tastemaker.index.rules import Allowed
from tastemaker.index.sharded import Shard
from tastemaker.index.structure import Structure, config_of, emptied, lay_out, take_apart, train_structure
from tastemaker.types import Float32, Int32

_REFINE_TAIL = 4
"""Bytes behind the vectors of an ivf-pq's file: the factor of its refining."""


class SlicedIndex:
    """A `VectorIndex` of a catalogue that finds the rows of one shard alone.

    Args:
        shard: Own rows.
        vectors_ID: Of all rows.
    """

    def __init__(self, shard: Shard, vectors_ID: Float32) -> None:
        self._shard, self.num_items = shard, len(vectors_ID)
        self._vectors_ID = vectors_ID[:]
        self._vectors_ID.flags.writeable = False

    @classmethod
    def read(cls, path: Path, own: range, config: IndexConfig | None = None) -> "SlicedIndex":
        """The slice of an index's file, whose content was checked: FAISS trusts its input.

        Args:
            path: Need not be there any more afterwards.
            own: Rows of the shard.
            config: How hard it searches; unset, as `structure.config_of` says.

        Raises:
            IntegrityError: It is not an index of the four kinds.
            BundleError: It cannot be mapped.
        """
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise IntegrityError(
                "the index is not in FAISS's format", mend="publish the bundle again"
            ) from error
        spilled: list[Float32] = []

        def plain(ivf: Any) -> Any:
            spilled.append(spilled_rows(ivf.ntotal, ivf.d))
            lay_out(ivf, spilled[0])
            return _view(faiss.downcast_index(ivf.quantizer).codes.owner, spilled[0])

        whole = take_apart(index, plain)
        vectors_ID = spilled[0] if spilled else _mapped(path, whole)
        sliced = _sliced(whole, vectors_ID[own.start : own.stop])
        index = FaissIndex(sliced, config_of(sliced)).with_config(config or config_of(whole))
        return cls(Shard(index, own.start), vectors_ID)

    @classmethod
    def exact(cls, vectors_ID: Float32, own: range) -> "SlicedIndex":
        """An exact index of own rows of a matrix, of which those alone are copied."""
        sliced = FaissIndex.build(vectors_ID[own.start : own.stop])
        return cls(Shard(sliced, own.start), vectors_ID)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._shard.index.dim

    def vectors(self) -> Float32:
        """Vectors (I, D) of all items, read-only."""
        return self._vectors_ID

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> tuple[Int32, Float32]:
        """See `FaissIndex.search`; own rows alone are found."""
        return self._shard.search(queries_BD, k, allowed, exclude)


def _mapped(path: Path, whole: Structure) -> Float32:
    """Vectors of all rows (I, D): they stand at the end of the file, but for an ivf-flat's."""
    num_items, dim = whole.flat.ntotal, whole.flat.d
    tail = _REFINE_TAIL if whole.kind == "ivf-pq" else 0
    offset = path.stat().st_size - tail - num_items * dim * 4
    vectors_ID = map_rows(path, offset, num_items, dim)
    own_ID = faiss.rev_swig_ptr(whole.flat.get_xb(), num_items * dim).reshape(num_items, dim)
    for row in (0, num_items - 1):
        if vectors_ID[row].tobytes() != own_ID[row].tobytes():
            raise IntegrityError(
                "vectors at the end of the index's file", value=f"row {row} is another",
                limit="the index's own", mend="serve without shards, and tell us which FAISS wrote it",
            )  # fmt: skip
    return vectors_ID


def _sliced(whole: Structure, own_ND: Float32) -> Structure:
    """An index of some rows, of the same kind; it holds their vectors where its search reads them in another order."""
    faiss.omp_set_num_threads(1)
    config = config_of(whole)
    mapped = whole.flat if whole.kind != "ivf-flat" else faiss.downcast_index(whole.searched.quantizer)
    flat = _view(mapped.codes.owner, own_ND)
    if whole.kind == "flat":
        return Structure("flat", flat, flat, flat)
    if whole.kind == "hnsw":
        index = train_structure(own_ND, config)
        index.flat.codes = flat.codes  # in place of its copy
        return index
    index = emptied(whole)
    if whole.kind == "ivf-flat":
        index.add(own_ND)
        return Structure("ivf-flat", index, index, flat)
    searched, refining = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
    searched.add(own_ND)
    refining.codes, refining.ntotal, index.ntotal = flat.codes, len(own_ND), len(own_ND)
    return Structure("ivf-pq", index, searched, refining)


def _view(owner: Any, rows_ND: Float32) -> Any:
    """A flat index over a matrix that others keep in memory; `owner` is any that FAISS can hold."""
    flat = faiss.IndexFlatIP(rows_ND.shape[1])
    address = faiss.cast_integer_to_void_ptr(rows_ND.ctypes.data)
    flat.codes = faiss.MaybeOwnedVectorUInt8.create_view(address, rows_ND.nbytes, owner)
    flat.ntotal = len(rows_ND)
    return flat
