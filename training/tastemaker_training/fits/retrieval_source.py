"""The two-tower's batches, as the loop of a fit takes them: rows streamed from example files, negatives, what both need.

Shape letters: I catalogue, H neighbours, B examples of a rank's step.
"""

from collections.abc import Callable, Iterator
from itertools import count

import numpy as np
import torch
import torch.distributed as dist

from tastemaker.features.examples import ExampleBatches, RetrievalBatch
from tastemaker.features.negatives import NegativesConfig
from tastemaker.types import Float32, Int32
from tastemaker_training.distributed.state import State
from tastemaker_training.fits.mining import mine_neighbours
from tastemaker_training.rows.stream import RowStream

_NEIGHBOURS = "neighbours"


class RetrievalSource:
    """One rank's batches.

    Args:
        stream: Of the example files.
        maker: Makes batches of its rows.
        config: What stands against the targets.
        seed: Of the draws: a step's are a function of it, the epoch, the step and the rank.
        item_vectors: Gives the vectors (I, D) of all items as they are now, on every rank that calls it together.
    """

    def __init__(
        self,
        stream: RowStream,
        maker: ExampleBatches,
        config: NegativesConfig,
        seed: int,
        item_vectors: Callable[[], Float32],
    ) -> None:
        self._stream, self._maker, self._config, self._seed = stream, maker, config, seed
        self._item_vectors = item_vectors
        self._neighbour_IH: Int32 | None = None

    @property
    def num_steps(self) -> int:
        """Of an epoch."""
        return self._stream.num_steps

    @property
    def num_rows(self) -> int:
        """Examples of an epoch, of all ranks."""
        return self._stream.num_steps * self._stream.batch_size

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[RetrievalBatch]:
        """Those of an epoch from `first_step` on. Hard negatives are mined where an epoch begins, but for the first."""
        if self._config.hard and epoch and first_step == 0:
            self._neighbour_IH = self._mined()
        return self._batches(epoch, first_step)

    def _batches(self, epoch: int, first_step: int) -> Iterator[RetrievalBatch]:
        for step, rows in zip(count(first_step), self._stream.batches(epoch, first_step), strict=False):
            generator = np.random.default_rng((self._seed, epoch, step, dist.get_rank()))
            yield self._maker.batch(
                rows, generator, epoch * self.num_steps + step, neighbour_IH=self._neighbour_IH
            )

    def _mined(self) -> Int32:
        """Rank 0 mines; all get the same."""
        vectors_ID = self._item_vectors()
        shape = (len(vectors_ID), min(self._config.hard_per_item, len(vectors_ID) - 1))
        mined = torch.zeros(shape, dtype=torch.int32)
        if dist.get_rank() == 0:
            mined = torch.from_numpy(mine_neighbours(vectors_ID, shape[1]))
        dist.broadcast(mined, src=0)
        return mined.numpy()

    def state(self) -> State:
        """What was mined."""
        if self._neighbour_IH is None:
            return {}
        return {_NEIGHBOURS: torch.from_numpy(self._neighbour_IH)}

    def load(self, state: State) -> None:
        """Goes on from what `state` gave."""
        if _NEIGHBOURS in state:
            self._neighbour_IH = state[_NEIGHBOURS].numpy()
