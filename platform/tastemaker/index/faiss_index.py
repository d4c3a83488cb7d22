"""Nearest items to a vector by inner product, under hard rules. Not for making the vectors.

Shape letters: B requests, I catalogue, D dimension, K results.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, Self

import numpy as np

from tastemaker.errors import BundleError, IntegrityError, MissingExtraError
from tastemaker.types import Bool, Float32, Int32

try:
    import faiss as _faiss
except ImportError as error:
    raise MissingExtraError("faiss is not installed", mend="pip install 'tastemaker[cpu]'") from error

faiss: Any = _faiss  # its stubs lack the keyword arguments of its Python layer

IndexKind = Literal["flat", "hnsw"]
Allowed = Bool | Sequence[Bool | None] | None

HNSW_LINKS = 32
HNSW_BUILD_BEAM = 80
HNSW_SEARCH_BEAM = 128
EXACT_BELOW_SHARE = 0.1
"""Where rules leave a smaller share of the catalogue a graph search starves: all allowed items are scored."""


class VectorIndex(Protocol):
    """Finds the items of largest inner product with a vector. Safe to search from several threads."""

    @property
    def num_items(self) -> int:
        """Rows, which are item_index 0 to num_items - 1."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> tuple[Int32, Float32]:
        """The k best allowed items of each query, see `FaissIndex.search`."""
        ...

    def vectors(self) -> Float32:
        """All vectors (I, D), read-only."""
        ...


class _OwnedMemory:
    """What numpy makes a view of; the view holds it, and it holds the index whose memory it is."""

    def __init__(self, index: Any, flat: Any, num_items: int, dim: int) -> None:
        self._index = index, flat
        address = faiss.rev_swig_ptr(flat.get_xb(), num_items * dim).ctypes.data
        self.__array_interface__ = {
            "data": (address, True),
            "shape": (num_items, dim),
            "typestr": "<f4",
            "version": 3,
        }


class FaissIndex:
    """A FAISS index, flat (exact) or HNSW (approximate), of float32 vectors.

    One thread searches and builds: the results, and an HNSW's graph, are a function of the vectors alone.
    """

    def __init__(self, index: Any) -> None:
        self._index = index
        self._flat = faiss.downcast_index(index.storage) if hasattr(index, "hnsw") else index

    @classmethod
    def build(cls, vectors_ID: Float32, kind: IndexKind = "flat") -> Self:
        """An index over `vectors_ID`, row i being item_index i.

        Raises:
            BundleError: Not a matrix, empty, or with values that are not finite.
        """
        vectors = np.ascontiguousarray(vectors_ID, np.float32)
        if vectors.ndim != 2 or not vectors.size:
            raise BundleError(
                "vectors of the index", value=vectors.shape, limit="(items, dimension), none of them 0"
            )
        if not np.isfinite(vectors).all():
            row = int(np.argwhere(~np.isfinite(vectors))[0, 0])
            raise BundleError(
                "vectors of the index", value=f"row {row} is not finite", mend="check the training run"
            )
        faiss.omp_set_num_threads(1)
        index = _empty(kind, vectors.shape[1])
        index.add(vectors)
        return cls(index)

    @property
    def kind(self) -> IndexKind:
        """Exact or approximate."""
        return "flat" if self._flat is self._index else "hnsw"

    @property
    def num_items(self) -> int:
        """Rows, which are item_index 0 to num_items - 1."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    def vectors(self) -> Float32:
        """All vectors (I, D): a read-only view of the index's own memory, which it keeps alive."""
        view: Float32 = np.asarray(_OwnedMemory(self._index, self._flat, self.num_items, self.dim))
        return view

    def search(
        self, queries_BD: Float32, k: int, allowed: Allowed = None, exclude: Sequence[Int32] | None = None
    ) -> tuple[Int32, Float32]:
        """The k items of largest inner product with each query, among those that the rules leave.

        Args:
            queries_BD: One vector a request.
            k: Results a request.
            allowed: Rows that alone may be found: one mask (I,) for all requests, or a mask or None for each.
            exclude: Rows that must not be found, for each request.

        Returns:
            item_index (B, K), best first, ties by item_index, and the inner products (B, K). Where the rules
            leave fewer than k items, -1 and -inf fill the end. `flat` is exact, `hnsw` nearly so.
        """
        queries = np.ascontiguousarray(queries_BD, np.float32)
        assert queries.ndim == 2, queries.shape
        assert queries.shape[1] == self.dim, (queries.shape, self.dim)
        assert k > 0, k
        faiss.omp_set_num_threads(1)  # holds for the calling thread only, so each search says it
        if allowed is None and exclude is None:
            return self._find(queries, k, None, self.num_items)
        found = [
            self._find(
                queries[b : b + 1], k, *self._rules(_of(allowed, b), None if exclude is None else exclude[b])
            )
            for b in range(len(queries))
        ]
        if not found:
            return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _rules(self, allowed: Bool | None, exclude: Int32 | None) -> tuple[Any, int]:
        """A selector, None where everything is allowed, and how many items it leaves."""
        gone = np.unique(exclude).astype(np.int64) if exclude is not None else np.empty(0, np.int64)
        gone = gone[(gone >= 0) & (gone < self.num_items)]
        if allowed is None:
            selector = faiss.IDSelectorNot(faiss.IDSelectorBatch(gone)) if gone.size else None
            return selector, self.num_items - len(gone)
        assert allowed.shape == (self.num_items,), (allowed.shape, self.num_items)
        mask = allowed.copy()
        mask[gone] = False
        return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little")), int(mask.sum())

    def _find(self, queries: Float32, k: int, selector: Any, num_left: int) -> tuple[Int32, Float32]:
        if self.kind == "flat" or num_left < EXACT_BELOW_SHARE * self.num_items:
            return self._exact(queries, k, selector)
        beam = int(
            max(HNSW_SEARCH_BEAM, 2 * k) * self.num_items / max(num_left, 1)
        )  # as many allowed ones in it
        scores, rows = self._index.search(
            queries, k, params=faiss.SearchParametersHNSW(sel=selector, efSearch=beam)
        )
        if ((rows >= 0).sum(axis=1) < min(k, num_left)).any():
            return self._exact(queries, k, selector)
        return _ordered(rows, scores)

    def _exact(self, queries: Float32, k: int, selector: Any) -> tuple[Int32, Float32]:
        scores, rows = self._flat.search(queries, k, params=faiss.SearchParameters(sel=selector))
        return _ordered(rows, scores)

    def to_bytes(self) -> bytes:
        """The index in FAISS's own format."""
        return bytes(faiss.serialize_index(self._index).data)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """The index that `to_bytes` wrote. Give it only bytes whose hash was checked: FAISS trusts its input.

        Raises:
            IntegrityError: Not an index of these two kinds.
        """
        try:
            index = faiss.deserialize_index(np.frombuffer(content, np.uint8))
        except RuntimeError as error:
            raise IntegrityError(
                "the index is not in FAISS's format", mend="publish the bundle again"
            ) from error
        kinds = (faiss.IndexFlatIP, faiss.IndexHNSWFlat)
        if not isinstance(index, kinds) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise IntegrityError(
                "kind of the index", value=type(index).__name__, limit="flat or hnsw, of inner products"
            )
        return cls(index)


def _empty(kind: IndexKind, dim: int) -> Any:
    if kind == "flat":
        return faiss.IndexFlatIP(dim)
    index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD_BEAM
    return index


def _of(allowed: Allowed, b: int) -> Bool | None:
    if allowed is None or (isinstance(allowed, np.ndarray) and allowed.ndim == 1):
        return allowed
    return allowed[b]


def _ordered(rows: Any, scores: Any) -> tuple[Int32, Float32]:
    scores = np.where(rows < 0, -np.inf, scores).astype(np.float32)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, 1).astype(np.int32), np.take_along_axis(scores, order, 1)
