"""Encoding and searching the catalogue over all ranks: each has a slice of the item vectors, none has a table whole.

Every rank calls these together, with the same arguments, and gets the same answer.
Shape letters: I catalogue, J items of this rank's slice, B queries, K results, D dimension, N ranks.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tastemaker.stages.source import forbidden
from tastemaker.types import Float32, Int32, Query
from tastemaker_training.distributed.sharded_tables import device

_ITEMS_AT_ONCE = 4096
EncodeItems = Callable[[np.ndarray], Tensor]
"""Vectors (B, D) of item rows (B,)."""
EncodeQueries = Callable[[Sequence[Query]], Tensor]
"""Vectors (B, D) of queries."""


class SpreadIndex:
    """Exact search over item vectors, of which this rank holds those of its slice.

    Args:
        encode: Looks the items' rows up: an exchange between all ranks.
        num_items: Of the catalogue.
    """

    def __init__(self, encode: EncodeItems, num_items: int) -> None:
        rank, self._num_ranks = dist.get_rank(), dist.get_world_size()
        self._num_items = num_items
        self._each = -(-num_items // self._num_ranks)
        self._first = rank * self._each
        # All ranks encode equally many; what stands beyond the catalogue's end is row 0 again, and is cut off.
        rows_J = np.arange(self._first, self._first + self._each)
        rows_J[rows_J >= num_items] = 0
        starts = range(0, self._each, _ITEMS_AT_ONCE)
        self._vectors_JD = torch.cat([encode(rows_J[start : start + _ITEMS_AT_ONCE]) for start in starts])
        self._num_mine = max(min(num_items - self._first, self._each), 0)

    def whole(self) -> Float32:
        """All vectors (I, D)."""
        return _gathered(self._vectors_JD).flatten(0, 1)[: self._num_items].cpu().numpy()

    def recommend(self, encode: EncodeQueries, queries: Sequence[Query], k: int) -> list[Int32]:
        """The k best items of each query that its lists allow, best first."""
        score_BJ = self._encoded(encode, queries) @ self._vectors_JD[: self._num_mine].T
        for b, query in enumerate(queries):
            rows = forbidden(query) - self._first
            score_BJ[b, torch.from_numpy(rows[(rows >= 0) & (rows < self._num_mine)])] = -torch.inf
        width = min(k, self._each)
        padded_BJ = torch.nn.functional.pad(score_BJ, (0, self._each - self._num_mine), value=-torch.inf)
        score_BK, at_BK = padded_BJ.topk(width, dim=1)
        score_BX = _gathered(score_BK).permute(1, 0, 2).flatten(1)
        row_BX = _gathered(at_BK + self._first).permute(1, 0, 2).flatten(1)
        best_BK = score_BX.argsort(dim=1, descending=True, stable=True)[:, :k]
        found = zip(score_BX.gather(1, best_BK), row_BX.gather(1, best_BK), strict=True)
        return [rows[scores > -torch.inf].cpu().numpy().astype(np.int32) for scores, rows in found]

    def _encoded(self, encode: EncodeQueries, queries: Sequence[Query]) -> Tensor:
        """The queries' vectors (B, D), of which each rank encodes a share."""
        each = -(-len(queries) // self._num_ranks)
        padded = [*queries, *[queries[0]] * (each * self._num_ranks - len(queries))]
        mine = padded[dist.get_rank() * each :][:each]
        return _gathered(encode(mine)).flatten(0, 1)[: len(queries)]


def _gathered(value: Tensor) -> Tensor:
    """Every rank's value of one shape, (N, …)."""
    value = value.contiguous().to(device())
    parts = [torch.empty_like(value) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, value)
    return torch.stack(parts)
