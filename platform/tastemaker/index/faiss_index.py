"""A `VectorIndex` inside FAISS: exact, by a graph or by lists. Not for making the vectors.

Shape letters: B requests, I catalogue, D dimension, K results.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from tastemaker.errors import BundleError, IntegrityError
from tastemaker.index.config import RECALL_AT, IndexConfig, IndexKind
from tastemaker.index.device import DeviceSearch, Transfer, to_gpu
from tastemaker.index.library import faiss
from tastemaker.index.rules import Allowed, Rules, all_alike, of_request
from tastemaker.index.structure import Structure, config_of, take_apart, train_structure
from tastemaker.types import Float32, Int32

ITEMS_PER_BEAM = 40
"""Items that are scored, by picking their rows, in the time that one more place of a graph search's beam takes."""
_SCAN_FROM_SHARE = 0.8
"""Where rules leave as much, passing over the rest costs less than picking rows."""
_WIDEN = 4
_READ_BYTES = 2**20


class _OwnedMemory:
    """What numpy makes a view of; the view holds it, and it holds the index whose memory it is."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        flat = structure.flat
        address = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).ctypes.data
        self.__array_interface__ = {
            "data": (address, True),
            "shape": (flat.ntotal, flat.d),
            "typestr": "<f4",
            "version": 3,
        }


class FaissIndex:
    """A FAISS index of float32 vectors: flat (exact), or hnsw, ivf-flat and ivf-pq (approximate).

    One thread searches and builds: the results, graphs and lists are a function of the vectors alone.

    Args:
        structure: What FAISS holds.
        config: How hard it searches; its structure is that of `structure`.
        device: A copy that is searched where no mask is given.
    """

    def __init__(self, structure: Structure, config: IndexConfig, device: DeviceSearch | None = None) -> None:
        self._structure, self.config, self._device = structure, config, device
        self._vectors_ID: Float32 = np.asarray(_OwnedMemory(structure))

    @classmethod
    def build(cls, vectors_ID: Float32, config: IndexConfig | None = None) -> Self:
        """An index over `vectors_ID`, row i being item_index i; flat where nothing is said.

        Efforts that are unset are not fitted, see `building.build_index`, but those of `structure.config_of`.

        Raises:
            BundleError: Not a matrix, empty, or with values that are not finite.
            ConfigError: The config does not fit the number or length of the vectors.
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
        shaped = (config or IndexConfig(kind="flat")).shaped(*vectors.shape)
        structure = train_structure(vectors, shaped)
        own = config_of(structure)
        unset = {key: getattr(own, key) for key, value in shaped if value is None}
        return cls(structure, shaped.model_copy(update=unset))

    def with_config(self, config: IndexConfig) -> Self:
        """The same index at other efforts.

        Raises:
            IntegrityError: The config is of another kind or structure.
        """
        return type(self)(self._structure, _fitting(config, self._structure))

    def on_gpu(self, transfer: Transfer = to_gpu) -> Self:
        """The same index with a copy on the GPU, which is searched where no mask is given.

        Raises:
            ConfigError: GPUs cannot search its kind.
            MissingExtraError: There is none.
        """
        device = DeviceSearch(self._structure.whole, self.config, transfer)
        return type(self)(self._structure, self.config, device)

    @property
    def kind(self) -> IndexKind:
        """Exact or approximate, and how."""
        return self._structure.kind

    @property
    def num_items(self) -> int:
        """Rows, which are item_index 0 to num_items - 1."""
        return len(self._vectors_ID)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors_ID.shape[1])

    @property
    def memory_bytes(self) -> int:
        """What it holds, all vectors among it."""
        return self._structure.memory_bytes

    def vectors(self) -> Float32:
        """All vectors (I, D): a read-only view of the index's own memory, which it keeps alive."""
        return self._vectors_ID

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
            leave fewer than k items, -1 and -inf fill the end. `flat` is exact, the other kinds nearly so.
        """
        queries = np.ascontiguousarray(queries_BD, np.float32)
        assert queries.ndim == 2, queries.shape
        assert queries.shape[1] == self.dim, (queries.shape, self.dim)
        assert k > 0, k
        faiss.omp_set_num_threads(1)  # holds for the calling thread only, so each search says it
        if allowed is None and exclude is None:
            return self._find(queries, k, Rules.none(self.num_items))
        if len(queries) and all_alike(allowed, exclude, len(queries)):
            return self._find(queries, k, self._rules(allowed, exclude, 0))
        found = [
            self._find(queries[b : b + 1], k, self._rules(allowed, exclude, b)) for b in range(len(queries))
        ]
        if not found:
            return np.empty((0, k), np.int32), np.empty((0, k), np.float32)
        return np.concatenate([rows for rows, _ in found]), np.concatenate([scores for _, scores in found])

    def _rules(self, allowed: Allowed, exclude: Sequence[Int32] | None, b: int) -> Rules:
        return Rules.of(self.num_items, of_request(allowed, b), None if exclude is None else exclude[b])

    def _find(self, queries: Float32, k: int, rules: Rules) -> tuple[Int32, Float32]:
        """Searches as wide as the rules make it need to be, wider where that found too little, at last everything."""
        wanted, effort = min(k, rules.num_left), self._effort(k, rules)
        while effort is not None:
            rows, scores = self._elsewhere(queries, k, effort, rules) or self._here(queries, k, effort, rules)
            if ((rows >= 0).sum(axis=1) >= wanted).all():
                return _ordered(rows, scores)
            effort = self._wider(effort)
        return self._exact(queries, k, rules)

    def _effort(self, k: int, rules: Rules) -> int | None:
        """Beam or lists in which there are as many allowed items as in those of a search without rules.

        None where scoring every allowed item is as cheap: for a graph by `ITEMS_PER_BEAM`, for lists where all of them would
        be read.
        """
        share, more = rules.num_left / self.num_items, max(1.0, k / RECALL_AT)
        if self.kind == "flat" or not rules.num_left:
            return None
        if self.kind == "hnsw":
            beam = int(max((self.config.beam or 1) * more, k) / share)
            return beam if share == 1 or rules.num_left > ITEMS_PER_BEAM * beam else None
        nprobe = math.ceil((self.config.nprobe or 1) * more / share)
        return nprobe if nprobe < self._structure.searched.nlist or share == 1 else None

    def _here(self, queries: Float32, k: int, effort: int, rules: Rules) -> tuple[Any, Any]:
        params = self._params(effort, k, rules.selector())
        scores, rows = self._structure.whole.search(queries, k, params=params)
        return rows, scores

    def _elsewhere(
        self, queries: Float32, k: int, effort: int | None, rules: Rules
    ) -> tuple[Any, Any] | None:
        if self._device is None or rules.mask_I is not None:
            return None
        nprobe = None if effort is None else min(effort, self._structure.searched.nlist)
        return self._device.search(queries, k, nprobe, rules.excluded_E)

    def _wider(self, effort: int) -> int | None:
        """The next wider search; None for all."""
        if self.kind == "hnsw" or effort >= self._structure.searched.nlist:
            return None
        return effort * _WIDEN

    def _params(self, effort: int, k: int, selector: Any) -> Any:
        if self.kind == "hnsw":
            return faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
        lists = faiss.SearchParametersIVF(sel=selector, nprobe=min(effort, self._structure.searched.nlist))
        if self.kind == "ivf-flat":
            return lists
        times_k = (self.config.refine or 1.0) * max(RECALL_AT / k, 1.0)  # as many candidates for few results
        return faiss.IndexRefineSearchParameters(k_factor=times_k, base_index_params=lists)

    def _exact(self, queries: Float32, k: int, rules: Rules) -> tuple[Int32, Float32]:
        if self.kind == "flat" and (found := self._elsewhere(queries, k, None, rules)):
            return _ordered(*found)
        if rules.mask_I is None or rules.num_left >= _SCAN_FROM_SHARE * self.num_items:
            params = faiss.SearchParameters(sel=rules.selector())
            scores, rows = self._structure.flat.search(queries, k, params=params)
            return _ordered(rows, scores)
        left = np.flatnonzero(rules.mask_I)
        best = [self._best_of(left, query, k) for query in queries]
        return np.concatenate([rows for rows, _ in best]), np.concatenate([scores for _, scores in best])

    def _best_of(self, left: Any, query: Float32, k: int) -> tuple[Int32, Float32]:
        """The best of given rows, by the products that a flat search computes."""
        scores = np.empty(len(left), np.float32)
        pointers = (faiss.swig_ptr(part) for part in (scores, query, self._vectors_ID, left))
        faiss.fvec_inner_products_by_idx(*pointers, self.dim, 1, len(left))
        if len(left) > k:
            border = np.partition(scores, len(left) - k)[len(left) - k]
            near = np.flatnonzero(scores >= border)  # all ties at the border
            left, scores = left[near], scores[near]
        rows, best = _ordered(left[None], scores[None])
        missing = max(k - len(left), 0)
        rows = np.pad(rows[:, :k], ((0, 0), (0, missing)), constant_values=-1)
        return rows, np.pad(best[:, :k], ((0, 0), (0, missing)), constant_values=-np.inf)

    def to_bytes(self) -> memoryview:
        """The index in FAISS's own format, without its config."""
        return memoryview(faiss.serialize_index(self._structure.whole))

    @classmethod
    def read(cls, read: Callable[[int], bytes], config: IndexConfig | None = None) -> Self:
        """The index that `to_bytes` wrote, from a stream: it is not in memory twice.

        Give it only content whose hash was checked: FAISS trusts its input.

        Args:
            read: Gives the next so many bytes.
            config: At which efforts it searches; unset, at those of `structure.config_of`.

        Raises:
            IntegrityError: Not an index of the four kinds, or of another structure than `config` says.
        """
        try:
            index = faiss.read_index(faiss.PyCallbackIOReader(read, _READ_BYTES))
        except RuntimeError as error:
            raise IntegrityError(
                "the index is not in FAISS's format", mend="publish the bundle again"
            ) from error
        structure = take_apart(index)
        return cls(structure, _fitting(config or config_of(structure), structure))


def _fitting(config: IndexConfig, structure: Structure) -> IndexConfig:
    own = config_of(structure)
    for key in ("kind", "nlist", "codes", "links"):
        if getattr(config, key) != getattr(own, key):
            raise IntegrityError(
                f"{key} of the index",
                value=getattr(own, key),
                limit=f"{getattr(config, key)}, as its config says",
                mend="publish the bundle again",
            )
    if not config.is_fitted:
        raise IntegrityError("config of the index", value=config.kind, limit="with its efforts set")
    return config


def _ordered(rows: Any, scores: Any) -> tuple[Int32, Float32]:
    scores = np.where(rows < 0, -np.inf, scores).astype(np.float32)
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(rows, order, 1).astype(np.int32), np.take_along_axis(scores, order, 1)
