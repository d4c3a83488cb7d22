"""Hard negatives: what the current item vectors hold to be near each item.

Shape letters: I catalogue, D dimension, H neighbours, B items of one block, K results.
"""

import numpy as np

from tastemaker.errors import TrainingError
from tastemaker.index.config import IndexConfig, IndexKind
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.terminal import track
from tastemaker.types import Float32, Int32

EXACT_UP_TO = 20_000
"""Items above which a graph search takes the place of comparing every item with every other."""
_ITEMS_AT_ONCE = 1024


def mine_neighbours(vectors_ID: Float32, num_neighbours: int) -> Int32:
    """The items (I, H) of largest inner product with each item, itself left out, nearest first.

    H is `num_neighbours`, or all other items where there are fewer. A function of the vectors alone: the search is
    exact for small catalogues, and an HNSW's of one thread for large ones. On one thread, seconds for 20,000 items,
    minutes for a million.

    Raises:
        TrainingError: There is one item only.
        BundleError: A vector is not finite.
    """
    num_items = len(vectors_ID)
    if num_items < 2:
        raise TrainingError(
            "items to mine hard negatives from", value=num_items, limit="at least 2", mend="set `hard` to 0"
        )
    kind: IndexKind = "flat" if num_items <= EXACT_UP_TO else "hnsw"
    index = FaissIndex.build(vectors_ID, IndexConfig(kind=kind))
    neighbour_IH = np.empty((num_items, min(num_neighbours, num_items - 1)), np.int32)
    for begin in track(range(0, num_items, _ITEMS_AT_ONCE), "mining hard negatives"):
        rows = np.arange(begin, min(begin + _ITEMS_AT_ONCE, num_items), dtype=np.int32)
        found_BK, _ = index.search(vectors_ID[rows], neighbour_IH.shape[1] + 1)
        neighbour_IH[rows] = _others(found_BK, rows)
    return neighbour_IH


def _others(found_BK: Int32, rows_B: Int32) -> Int32:
    """What was found without each row itself; without the last where a row did not find itself.

    >>> _others(np.array([[4, 7, 8], [4, 7, 8]], np.int32), np.array([7, 9], np.int32))
    array([[4, 8],
           [4, 7]], dtype=int32)
    """
    drop_BK = found_BK == rows_B[:, None]
    drop_BK[~drop_BK.any(axis=1), -1] = True
    return found_BK[~drop_BK].reshape(len(found_BK), -1)
