"""What an index is made of inside FAISS: made, taken apart and recognised. Not for searching.

Shape letters: I catalogue, D dimension, W items of a list.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tastemaker.errors import IntegrityError
from tastemaker.index.config import DEFAULT_BEAM, DEFAULT_REFINE, IndexConfig, IndexKind
from tastemaker.index.library import faiss
from tastemaker.types import Float32, Int64

_CODE_BITS = 4
_POINTS_PER_LIST = 64
"""Items a list that k-means learns from: a quarter of FAISS's own number, in a quarter of its time."""
_FLAT = ("IndexFlat", "IndexFlatIP")


class Structure(NamedTuple):
    """An index and its parts, which live as long as `whole` does.

    `searched` is what a search goes through and is `whole` but for ivf-pq, whose refining part is around it. `flat` holds
    all vectors plainly: a part of the whole, but for ivf-flat, whose lists hold them in another order.
    """

    kind: IndexKind
    whole: Any
    searched: Any
    flat: Any

    @property
    def memory_bytes(self) -> int:
        """What it holds."""
        num_items, dim = self.flat.ntotal, self.flat.d
        total = num_items * dim * 4
        if self.kind == "hnsw":
            graph = self.searched.hnsw
            total += 4 * graph.neighbors.size() + 8 * graph.offsets.size() + 4 * graph.levels.size()
        elif self.kind != "flat":
            total += num_items * (self.searched.code_size + 8) + self.searched.nlist * dim * 4
        return int(total)


def train_structure(vectors_ID: Float32, config: IndexConfig) -> Structure:
    """The index of `config`, whose kind and structure are chosen. Of one thread, and a function of the vectors alone."""
    faiss.omp_set_num_threads(1)
    index = _empty(config, vectors_ID.shape[1])
    if config.kind in ("ivf-flat", "ivf-pq"):
        index.train(vectors_ID)
    index.add(vectors_ID)
    return take_apart(index)


def _empty(config: IndexConfig, dim: int) -> Any:
    metric = faiss.METRIC_INNER_PRODUCT
    if config.kind == "flat":
        return faiss.IndexFlatIP(dim)
    if config.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, config.links, metric)
        index.hnsw.efConstruction = config.build_beam
        return index
    lists = "Flat" if config.kind == "ivf-flat" else f"PQ{config.codes}x{_CODE_BITS}fs,RFlat"
    index = faiss.index_factory(dim, f"IVF{config.nlist},{lists}", metric)
    ivf = index if config.kind == "ivf-flat" else faiss.downcast_index(index.base_index)
    ivf.cp.min_points_per_centroid = 1  # few items are no fault
    ivf.cp.max_points_per_centroid = _POINTS_PER_LIST
    if config.kind == "ivf-pq":
        ivf.pq.cp.min_points_per_centroid = 1
    return index


def emptied(structure: Structure) -> Any:
    """An index of lists without items, with the centroids and codebooks of another: `searched` of its kind."""
    old = structure.searched
    whole = _empty(config_of(structure), old.d)
    index = whole if structure.kind == "ivf-flat" else faiss.downcast_index(whole.base_index)
    centroids = faiss.downcast_index(old.quantizer)
    faiss.downcast_index(index.quantizer).add(_matrix(centroids))
    if structure.kind == "ivf-pq":
        faiss.copy_array_to_vector(faiss.vector_to_array(old.pq.centroids), index.pq.centroids)
        index.by_residual = old.by_residual
    index.is_trained = whole.is_trained = True
    return whole


def take_apart(index: Any, plain: "Callable[[Any], Any] | None" = None) -> Structure:
    """The parts of an index of one of the four kinds.

    Args:
        index: FAISS's.
        plain: Makes a flat index of the vectors in an ivf-flat's lists; unset, one in memory.

    Raises:
        IntegrityError: It is of another kind, metric or size inside, or its lists do not hold each row once.
    """
    name = type(index).__name__
    if name in _FLAT:
        structure = Structure("flat", index, index, index)
    elif name == "IndexHNSWFlat":
        structure = Structure("hnsw", index, index, faiss.downcast_index(index.storage))
    elif name == "IndexIVFFlat":
        _check_lists(index)
        structure = Structure("ivf-flat", index, index, (plain or _plain)(index))
    elif name == "IndexRefineFlat":
        searched, flat = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
        if type(searched).__name__ != "IndexIVFPQFastScan" or searched.pq.nbits != _CODE_BITS:
            raise _refused(f"refined {type(searched).__name__}")
        _check_lists(searched)
        structure = Structure("ivf-pq", index, searched, flat)
    else:
        raise _refused(name)
    _check_parts(structure)
    return structure


def config_of(structure: Structure) -> IndexConfig:
    """What the structure says of itself, with the efforts that are used where nothing else is said."""
    searched = structure.searched
    match structure.kind:
        case "hnsw":
            links = searched.hnsw.nb_neighbors(1)
            return IndexConfig(
                kind="hnsw", links=links, build_beam=searched.hnsw.efConstruction, beam=DEFAULT_BEAM
            )
        case "ivf-flat":
            return IndexConfig(kind="ivf-flat", nlist=searched.nlist, nprobe=_default_nprobe(searched.nlist))
        case "ivf-pq":
            return IndexConfig(
                kind="ivf-pq", nlist=searched.nlist, nprobe=_default_nprobe(searched.nlist),
                codes=searched.pq.M, refine=DEFAULT_REFINE,
            )  # fmt: skip
        case _:
            return IndexConfig(kind="flat")


def _default_nprobe(nlist: int) -> int:
    return max(nlist // 32, 1)


def _check_parts(structure: Structure) -> None:
    parts = (structure.whole, structure.searched, structure.flat)
    shape = structure.whole.ntotal, structure.whole.d
    flat = structure.flat
    if any(part.metric_type != faiss.METRIC_INNER_PRODUCT for part in parts):
        raise _refused(f"{structure.kind} of another metric")
    if type(flat).__name__ not in _FLAT or any((part.ntotal, part.d) != shape for part in parts):
        raise _refused(f"{structure.kind} with parts of other sizes")
    if flat.codes.size() != flat.ntotal * flat.d * 4 or not flat.ntotal:
        raise _refused(f"{structure.kind} of {flat.codes.size()} bytes for {flat.ntotal} vectors")


def _check_lists(ivf: Any) -> None:
    quantizer = faiss.downcast_index(ivf.quantizer)
    if type(quantizer).__name__ not in _FLAT or (quantizer.ntotal, quantizer.d) != (ivf.nlist, ivf.d):
        raise _refused(f"lists by {type(quantizer).__name__}")
    seen_I = np.zeros(ivf.ntotal, bool)
    num_rows = 0
    for rows_W, _ in _lists(ivf):
        if len(rows_W) and not (rows_W.min() >= 0 and rows_W.max() < ivf.ntotal):
            raise _refused("lists with rows that are not of the catalogue")
        seen_I[rows_W] = True
        num_rows += len(rows_W)
    if num_rows != ivf.ntotal or not seen_I.all():
        raise _refused("lists that do not hold each row once")


def _lists(ivf: Any) -> Iterator[tuple[Int64, int]]:
    """Rows of each list (a view), and the address of their codes."""
    lists = ivf.invlists
    for number in range(ivf.nlist):
        size = lists.list_size(number)
        if size:
            yield faiss.rev_swig_ptr(lists.get_ids(number), size), number


def _plain(ivf: Any) -> Any:
    vectors_ID = np.empty((ivf.ntotal, ivf.d), np.float32)
    lay_out(ivf, vectors_ID)
    flat = faiss.IndexFlatIP(ivf.d)
    flat.add(vectors_ID)
    return flat


def lay_out(ivf: Any, vectors_ID: Float32) -> None:
    """Writes the vectors of an ivf-flat's lists in the order of rows."""
    for rows_W, number in _lists(ivf):
        codes = faiss.rev_swig_ptr(ivf.invlists.get_codes(number), len(rows_W) * ivf.code_size)
        vectors_ID[rows_W] = codes.view(np.float32).reshape(len(rows_W), ivf.d)


def _matrix(flat: Any) -> Float32:
    vectors_ID: Float32 = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
    return vectors_ID


def _refused(found: str) -> IntegrityError:
    limit = "flat, hnsw, ivf-flat or ivf-pq, of inner products"
    return IntegrityError("kind of the index", value=found, limit=limit, mend="publish the bundle again")
