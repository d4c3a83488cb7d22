"""Steps through TorchRec's pipeline: while one batch is computed, the rows of the next are asked for.

One look-up of all that a step reads comes first, and the rest of the model is computed from it: that is what lets the
pipeline begin the next batch's exchange early. The same pipeline runs on CPU with gloo and on GPU with NCCL.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from tastemaker.models.tables import Jagged
from tastemaker_training.distributed.sharded_tables import ShardedTables, device, keyed
from tastemaker_training.distributed.sharding import Distributed


@dataclass
class StepBatch(Pipelineable):
    """A batch on its way: the rows that it reads, how many bags each feature has, and all else that the loss needs."""

    rows: KeyedJaggedTensor
    num_bags: Mapping[str, int]
    content: Any

    @classmethod
    def of(cls, tables: ShardedTables, bags: Mapping[str, Jagged], content: Any) -> "StepBatch":
        """The batch that reads `bags`."""
        num_bags = {feature: len(bag) for feature, bag in bags.items()}
        return cls(keyed(bags, tables.features), num_bags, content)

    def to(self, device: torch.device, non_blocking: bool = False) -> "StepBatch":
        """The batch with its rows on a device."""
        return StepBatch(self.rows.to(device, non_blocking=non_blocking), self.num_bags, self.content)

    def record_stream(self, stream: Any) -> None:
        """Keeps the rows' memory until a stream is done with it."""
        self.rows.record_stream(stream)

    def pin_memory(self) -> "StepBatch":
        """The batch in memory that a GPU reads by itself."""
        return StepBatch(self.rows.pin_memory(), self.num_bags, self.content)


def tables_of(model: nn.Module) -> ShardedTables:
    """A model's tables, which must be spread over the ranks."""
    tables = model.tables
    assert isinstance(tables, ShardedTables), type(tables)
    return tables


class Objective(nn.Module):
    """A model's loss, as TorchRec's pipeline can follow it.

    Args:
        model: Its tables are at `model.tables`.
        loss: Gives the loss of a batch's content; finds all that it looks up there already.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.rest = _Rest(tables_of(model), loss)

    def forward(self, batch: StepBatch) -> tuple[Tensor, Tensor]:
        """The loss, to be differentiated and to be read."""
        found: tuple[Tensor, Tensor] = self.rest(tables_of(self.model).collection(batch.rows), batch)
        return found


class _Rest(nn.Module):
    """What follows the look-up. It must not own the model: the pipeline does not look into modules without tables."""

    def __init__(self, tables: ShardedTables, loss: Callable[[Any], Tensor]) -> None:
        super().__init__()
        assert not isinstance(loss, nn.Module), "it would own the model"
        self._hand_out, self._loss = tables.hand_out, loss

    def forward(self, pooled: Any, batch: StepBatch) -> tuple[Tensor, Tensor]:
        self._hand_out(pooled, batch.num_bags)
        loss = self._loss(batch.content)
        return loss, loss.detach()


class Pipeline(TrainPipelineSparseDist[StepBatch, Tensor]):
    """The steps of one epoch; `close` gives the model back.

    Args:
        distributed: Of an `Objective`.
        parts: Backward passes of one dense update.
    """

    def __init__(self, distributed: Distributed, parts: int) -> None:
        super().__init__(distributed.module, _Update(), device(), custom_model_fwd=self._forward)
        self._distributed, self._parts = distributed, parts
        self._part, self._last, self._value = 0, True, 0.0

    def step(self, batches: Iterator[StepBatch], part: int, last: bool) -> float:
        """Learns from the next batch and gives its loss.

        Args:
            batches: Always the same iterator; a batch or two beyond this one are taken from it.
            part: Of a dense update, which backward pass this is.
            last: Whether it is the one that updates.

        Raises:
            StopIteration: There is no batch left.
            TrainingError: The loss is not a number; `current` is its batch.
        """
        self._part, self._last = part, last
        self.progress(batches)
        return self._value

    @property
    def current(self) -> StepBatch | None:
        """The batch that a step is, or was last, about."""
        return self.batches[0] if self.batches else None

    def close(self) -> None:
        """Lets the model compute without the pipeline again."""
        self.detach()

    def _forward(self, batch: StepBatch | None) -> tuple[Tensor, Tensor]:
        with self._distributed.arithmetic():
            found: tuple[Tensor, Tensor] = self._distributed.module(batch)
        return found

    def _backward(self, losses: Tensor) -> None:
        self._value = self._distributed.backward(losses, self._part, self._parts)

    def _optimizer_step(self) -> None:
        if self._last:
            self._distributed.update()


class _Update:
    """Stands where the pipeline expects an optimizer: `Distributed` has them."""

    def zero_grad(self) -> None:
        """See `Distributed.backward`."""

    def step(self) -> None:
        """See `Distributed.update`."""
