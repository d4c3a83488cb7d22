"""Builds an index whose efforts are fitted to a recall. Not for choosing between kinds: see `tuning`.

Shape letters: B queries, D dimension.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tastemaker.index.config import RECALL_AT, IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.index.measuring import borders, perturbed, recall
from tastemaker.types import Float32

REFINES = (4.0, 8.0, 16.0, 32.0, 64.0)
MAX_BEAM = 4096
MIN_NPROBE = 4
"""Fewer lists save next to nothing, and starve searches for more results than the effort was fitted to."""
_NUM_QUERIES = 200


@dataclass(frozen=True, slots=True)
class Built:
    """An index and the time that building it took."""

    index: FaissIndex
    seconds: float


def build_index(vectors_ID: Float32, config: IndexConfig, queries_BD: Float32 | None = None) -> Built:
    """The index of `config` over vectors (I, D); efforts that it leaves open reach its recall.

    They do so for `queries_BD`, which unset are items' own vectors with noise. Where ivf-pq that `auto` chose cannot reach it, ivf-flat takes its place, which can.

    Raises:
        BundleError: See `FaissIndex.build`.
        ConfigError: See `FaissIndex.build`.
    """
    began = time.perf_counter()
    index, reached = _fitted(vectors_ID, config, queries_BD)
    if config.kind == "auto" and index.kind == "ivf-pq" and reached < config.recall:
        index, _ = _fitted(vectors_ID, config.model_copy(update={"kind": "ivf-flat"}), queries_BD)
    return Built(index, time.perf_counter() - began)


def _fitted(vectors_ID: Float32, config: IndexConfig, queries_BD: Float32 | None) -> tuple[FaissIndex, float]:
    index = FaissIndex.build(vectors_ID, config)
    if config.shaped(*index.vectors().shape).is_fitted:
        return index, 1.0
    if queries_BD is None:
        queries_BD = perturbed(index.vectors(), _NUM_QUERIES)
    return fit_efforts(index, queries_BD, config.recall)


def fit_efforts(index: FaissIndex, queries_BD: Float32, target: float) -> tuple[FaissIndex, float]:
    """The index at the least of the efforts tried that reaches the target, else at the most; and the recall reached."""
    if index.kind == "flat":
        return index, 1.0
    k = min(RECALL_AT, index.num_items)
    border_B = borders(queries_BD, index.vectors(), k)
    tried, reached = index, 0.0
    for config in efforts(index.config):
        tried = index.with_config(config)
        found_BK, _ = tried.search(queries_BD, k)
        reached = recall(found_BK, queries_BD, index.vectors(), border_B)
        if reached >= target:
            break
    return tried, reached


def efforts(config: IndexConfig) -> Iterator[IndexConfig]:
    """The same index at rising efforts: beams grow by half, lists double in two steps; refining by 4 to 64 times k for each number of lists.

    >>> [config.nprobe for config in efforts(IndexConfig(kind="ivf-flat", nlist=20, nprobe=1))]
    [4, 6, 8, 12, 16, 20]
    """
    if config.kind == "hnsw":
        beam = RECALL_AT
        while beam <= MAX_BEAM:
            yield config.model_copy(update={"beam": beam})
            beam += beam // 2
    elif config.kind in ("ivf-flat", "ivf-pq"):
        assert config.nlist is not None
        nprobe = MIN_NPROBE
        while True:
            nprobe = min(nprobe, config.nlist)
            for refine in (None,) if config.kind == "ivf-flat" else REFINES:
                yield config.model_copy(update={"nprobe": nprobe, "refine": refine})
            if nprobe == config.nlist:
                return
            nprobe = nprobe * 3 // 2 if nprobe.bit_count() == 1 else nprobe * 4 // 3
    else:
        yield config
