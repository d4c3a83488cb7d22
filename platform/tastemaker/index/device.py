"""A copy of an index on a GPU, searched without FAISS's selectors, which GPUs have not. Not for masks: those stay on the CPU.

Shape letters: B requests, E excluded rows, K results.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tastemaker.errors import ConfigError, MissingExtraError
from tastemaker.index.config import IndexConfig
from tastemaker.index.library import faiss
from tastemaker.types import Float32, Int64

MAX_RESULTS = 2048
"""Of one search on a GPU [FAISS]."""
_KINDS = ("flat", "ivf-flat")
Transfer = Callable[[Any], Any]


def to_gpu(index: Any) -> Any:
    """The index on the first GPU.

    Raises:
        MissingExtraError: FAISS is the CPU's build, or sees no GPU.
    """
    if not hasattr(faiss, "StandardGpuResources") or not faiss.get_num_gpus():
        raise MissingExtraError(
            "faiss sees no GPU",
            mend="pip install 'tastemaker[gpu]' on a machine with one, or set serving.index_device to cpu",
        )
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)


class DeviceSearch:
    """Searches of an index elsewhere. One at a time: a GPU's scratch memory is one search's.

    Args:
        index: On the CPU.
        config: Its kind and efforts.
        transfer: Gives the copy that is searched.

    Raises:
        ConfigError: GPUs cannot search this kind.
    """

    def __init__(self, index: Any, config: IndexConfig, transfer: Transfer = to_gpu) -> None:
        if config.kind not in _KINDS:
            raise ConfigError(
                "kind of an index on a GPU", value=config.kind, limit=" or ".join(_KINDS),
                mend="publish with index.kind set to one of them",
            )  # fmt: skip
        self._copy, self._lock = transfer(index), threading.Lock()

    def search(
        self, queries_BD: Float32, k: int, nprobe: int | None, excluded_E: Int64
    ) -> tuple[Int64, Float32] | None:
        """Rows and scores (B, K) without those excluded: as many more are asked for. None where that is too many."""
        wanted = k + len(excluded_E)
        if wanted > MAX_RESULTS:
            return None
        params = None if nprobe is None else faiss.SearchParametersIVF(nprobe=nprobe)
        with self._lock:
            score_BM, rows_BM = self._copy.search(queries_BD, wanted, params=params)
        gone_BM = np.isin(rows_BM, excluded_E)
        rows_BM, score_BM = np.where(gone_BM, -1, rows_BM), np.where(gone_BM, -np.inf, score_BM)
        order_BK = np.argsort(gone_BM, axis=1, kind="stable")[:, :k]  # what is gone goes last
        return np.take_along_axis(rows_BM, order_BK, 1), np.take_along_axis(score_BM, order_BK, 1)
