"""The loop of every fit: steps, step sizes, checkpoints, going on where it was. Not what is fitted, nor on what."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.distributed as dist

from tastemaker.errors import TrainingError
from tastemaker_training.distributed.checkpoint_files import Position
from tastemaker_training.distributed.checkpoints import Checkpoints
from tastemaker_training.distributed.pipelining import Pipeline, StepBatch
from tastemaker_training.distributed.sharded_tables import device
from tastemaker_training.distributed.sharding import Distributed
from tastemaker_training.distributed.state import State
from tastemaker_training.plan.fit_config import FitConfig
from tastemaker_training.rows.prefetching import prefetched

Report = dict[str, Any]
ROWS_PER_SECOND: Final = "rows_per_second"
"""Of an epoch's numbers, what the dashboards call throughput."""


class Source(Protocol):
    """A rank's batches, a function of (epoch, step) alone."""

    @property
    def num_steps(self) -> int:
        """Batches of an epoch, the same on every rank."""
        ...

    @property
    def num_rows(self) -> int:
        """What an epoch's batches of all ranks hold: examples of a retriever, candidates of a ranker."""
        ...

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[Any]:
        """Those of an epoch from `first_step` on."""
        ...


class Memory(Protocol):
    """What is learned on the way beside the model, and a checkpoint must hold."""

    def state(self) -> State:
        """Tensors, the same on every rank, or a rank's own under `rank0/…`."""
        ...

    def load(self, state: State) -> None:
        """Goes on from what `state` gave."""
        ...


@dataclass
class Fit:
    """One fit of this rank. Every rank makes the same calls.

    Args:
        distributed: An `Objective` over the ranks.
        source: What it learns from.
        prepare: Makes what the pipeline takes of a batch; called in a thread of its own.
        config: How.
        checkpoints: Where it is kept; the fit goes on from the newest that is there.
        num_epochs: Passes over the source.
        seed: Of what a step draws (dropout): a function of it, the step and the rank.
        memories: What else learns on the way.
    """

    distributed: Distributed
    source: Source
    prepare: Callable[[Any], StepBatch]
    config: FitConfig
    checkpoints: Checkpoints
    num_epochs: int
    seed: int
    memories: Sequence[Memory] = ()

    def run(
        self,
        evaluate: Callable[[], Mapping[str, float]],
        metric: str | None,
        report: Callable[[Report], None],
    ) -> Position:
        """Trains to the end, and leaves the fit as it was after its best epoch, or its last where none is measured.

        Args:
            evaluate: Gives numbers for the curve after an epoch.
            metric: Which of them says how good the epoch was; more is better.
            report: Takes each epoch's numbers; those from before a resumption are given again.

        Raises:
            TrainingError: The loss is not a number, or a checkpoint cannot be read or written.
        """
        self.checkpoints.open(self.distributed)
        position = self._restored()
        for earlier in position.curve:
            report(dict(earlier))
        for epoch in range(position.epoch, self.num_epochs):
            begun, started = position.step, time.perf_counter()
            position = self._epoch(epoch, position)
            loss = _over_ranks(position.loss_sum) / self.source.num_steps
            rate = self._rows_per_second(begun, time.perf_counter() - started)
            numbers = {"epoch": epoch + 1, "loss": loss, ROWS_PER_SECOND: rate, **evaluate()}
            position = _after_epoch(position, numbers, metric)
            self._save(position)
            report(numbers)
        self.checkpoints.wait()
        if position.best_epoch not in (0, self.num_epochs):
            self.checkpoints.restore(self.distributed, self.checkpoints.best())
        return position

    def _rows_per_second(self, begun: int, seconds: float) -> float:
        """Of all ranks, over the steps of an epoch from `begun` on: batches, steps and checkpoints, not the evaluation."""
        share = (self.source.num_steps - begun) / self.source.num_steps
        return self.source.num_rows * share / max(seconds, 1e-9)

    def _restored(self) -> Position:
        restored = self.checkpoints.restore(self.distributed)
        if restored is None:
            return Position()
        position, more = restored
        for memory in self.memories:
            memory.load(more)
        return position

    def _epoch(self, epoch: int, position: Position) -> Position:
        """The rest of an epoch. Sums of losses are this rank's own."""
        steps, parts = self.source.num_steps, self.config.accumulate
        every = self.config.checkpoint.every_steps
        prepared = map(self.prepare, self.source.batches(epoch, position.step))
        pipeline = Pipeline(self.distributed, parts)
        with closing(prefetched(prepared, self.config.prefetch)) as batches:
            for step in range(position.step, steps):
                last = step % parts == parts - 1 or step + 1 == steps
                loss = self._step(pipeline, batches, epoch, step, last)
                position = replace(position, step=step + 1, loss_sum=position.loss_sum + loss)
                if every and last and (step + 1) % every == 0 and step + 1 < steps:
                    self._save(position)
        pipeline.close()
        return position

    def _step(
        self, pipeline: Pipeline, batches: Iterator[StepBatch], epoch: int, step: int, last: bool
    ) -> float:
        steps = self.source.num_steps
        rate = self.config.optimizer.rate(epoch * steps + step, self.num_epochs * steps)
        self.distributed.scale_learning_rates(rate)
        key = (self.seed, epoch, step, dist.get_rank())
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        try:
            return pipeline.step(batches, step % self.config.accumulate, last)
        except TrainingError as error:
            self.checkpoints.wait()
            kept = self.checkpoints.last
            where = f"{self.checkpoints.folder / kept}" if kept else "none, since none was written yet"
            raise TrainingError(
                f"the loss of step {step + 1} of epoch {epoch + 1} on batch {fingerprint(pipeline.current)}",
                value=error.value, limit=error.limit, mend=f"{error.mend}; the last good checkpoint is {where}",
            ) from error  # fmt: skip

    def _save(self, position: Position) -> None:
        more: State = {}
        for memory in self.memories:
            more |= memory.state()
        position = replace(position, loss_sum=_over_ranks(position.loss_sum))
        self.checkpoints.save(self.distributed, position, more)


def _after_epoch(position: Position, numbers: Report, metric: str | None) -> Position:
    """The first step of the next epoch, with the best epoch so far."""
    position = replace(
        position, epoch=position.epoch + 1, step=0, loss_sum=0.0, curve=(*position.curve, numbers)
    )
    if metric is None:
        return position
    best = position.best_metric
    if best is None or numbers[metric] > best:
        return replace(position, best_epoch=position.epoch, best_metric=float(numbers[metric]))
    return position


def _over_ranks(value: float) -> float:
    """The mean of every rank's value."""
    total = torch.tensor(value, dtype=torch.float64, device=device())
    dist.all_reduce(total)
    return float(total) / dist.get_world_size()


def fingerprint(batch: Any) -> str:
    """Twelve digits that tell one batch from another, whatever arrays it is made of.

    >>> fingerprint((np.zeros(2),)) == fingerprint({"a": np.zeros(2)})
    True
    """
    digest = hashlib.sha256()
    for array in _arrays(batch):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, torch.Tensor):
        yield value.detach().cpu().numpy()
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for part in value:
            yield from _arrays(part)
    elif hasattr(value, "__dict__"):
        yield from _arrays(vars(value))
