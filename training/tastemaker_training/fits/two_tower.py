"""The two-tower's training, as every rank runs it: a fit on train, and a refit on train with validation.

The first fit keeps the epoch that is best on validation; the refit takes as many, its rates falling over these.
Both run in one start of the workers, which costs more than a fit of this size.

Shape letters: B requests or items, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from torch import Tensor

from tastemaker.data.schema import Column
from tastemaker.evaluation.offline import evaluate
from tastemaker.features.columns import HISTORY, FeatureSchema, ItemColumns
from tastemaker.features.context import query_rows
from tastemaker.features.examples import EXAMPLE_COLUMNS, ExampleBatches, RetrievalBatch
from tastemaker.features.frequency import StreamingFrequency
from tastemaker.features.negatives import NegativeSampler, NegativesConfig
from tastemaker.home import write_json
from tastemaker.models.cross_batch import CrossBatchMemory
from tastemaker.models.losses import sampled_softmax_loss
from tastemaker.models.tables import jagged
from tastemaker.models.two_tower import ITEM_ROWS, TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.types import Float32, Query
from tastemaker_training.artifacts import CHECKPOINTS, plain, save_model
from tastemaker_training.distributed.checkpoints import Checkpoints
from tastemaker_training.distributed.export import export_accumulators, export_model
from tastemaker_training.distributed.pipelining import Objective, StepBatch
from tastemaker_training.distributed.reporting import report_progress
from tastemaker_training.distributed.sharded_tables import ShardedTables, device, initial_rows
from tastemaker_training.distributed.sharding import Distributed, distribute
from tastemaker_training.distributed.spread import SpreadIndex
from tastemaker_training.distributed.state import State
from tastemaker_training.distributed.warm_start import ACCUMULATORS, ITEMS, MODEL, VOCABULARY, WarmStart
from tastemaker_training.fits.fitting import Fit, Report
from tastemaker_training.fits.retrieval_source import RetrievalSource
from tastemaker_training.plan.fit_config import TwoTowerFitConfig
from tastemaker_training.rows.example_set import ExampleSet
from tastemaker_training.rows.stream import RowStream

METRIC = "validation_ndcg@10"


class TwoTowerLoss:
    """The two-tower's loss on a batch whose rows were looked up; remembers what further negatives need.

    Args:
        model: Over sharded tables.
        negatives: What stands against the targets.
        batch_size: Examples of one rank's step.
    """

    def __init__(self, model: TwoTower, negatives: NegativesConfig, batch_size: int) -> None:
        self._model, self._config = model, negatives
        self._frequency = StreamingFrequency() if negatives.frequency == "streaming" else None
        self._memory = CrossBatchMemory(
            negatives.memory_batches, batch_size, model.config.dim,
            warmup_steps=negatives.memory_warmup_steps, device=device(),
        )  # fmt: skip

    def __call__(self, batch: RetrievalBatch) -> Tensor:
        """Mean loss."""
        query_bags, item_bags = jagged(batch.query_bags), jagged(batch.item_bags)
        query_BD, item_MD = self._model.query(query_bags), self._model.item(item_bags)
        item_M, log_q_M, owner_M = (
            torch.from_numpy(array).to(device())
            for array in (batch.item_M, self._log_q(batch), batch.owner_M)
        )
        config, num = self._config, len(query_BD)
        loss = sampled_softmax_loss(
            query_BD, item_MD, item_M, log_q_M, self._model.config.temperature,
            in_batch=config.in_batch,
            owner_M=owner_M if config.rejected else None,
            history=query_bags[HISTORY] if config.mask_history else None,
            memory=self._memory.view() if config.memory_batches else None,
        )  # fmt: skip
        if config.memory_batches:
            self._memory.push(item_MD[:num], item_M[:num], log_q_M[:num])
        return loss

    def _log_q(self, batch: RetrievalBatch) -> Float32:
        """That of the draw; of the targets as the stream has shown them so far, where this is asked for."""
        if self._frequency is None:
            return batch.log_q_M
        target_B = batch.item_M[: len(batch.query_bags[HISTORY].lengths)]
        self._frequency.update(target_B, batch.step)
        log_q_M = batch.log_q_M.copy()
        log_q_M[: len(target_B)] = np.log(self._frequency.expected(target_B))
        return log_q_M

    def state(self) -> State:
        """What this rank remembers."""
        state: State = {}
        if self._frequency is not None:
            state = {name: torch.from_numpy(value) for name, value in self._frequency.state().items()}
        if self._config.memory_batches:
            state |= {f"memory/{name}": value for name, value in self._memory.state().items()}
        return {f"rank{dist.get_rank()}/{name}": value for name, value in state.items()}

    def load(self, state: State) -> None:
        """Goes on from what `state` gave on this rank; on another number of ranks it is learned anew."""
        prefix = f"rank{dist.get_rank()}/"
        mine = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        memory = {name: value for name, value in mine.items() if name.startswith("memory/")}
        if self._frequency is not None and "gap" in mine:
            self._frequency.load({name: mine[name].numpy() for name in mine.keys() - memory.keys()})
        if memory:
            self._memory.load({name.removeprefix("memory/"): value for name, value in memory.items()})


@dataclass(frozen=True)
class _Task:
    """What both fits share."""

    config: TwoTowerConfig
    fit: TwoTowerFitConfig
    seed: int
    examples: ExampleSet
    columns: ItemColumns
    item_ids: list[str]
    warm_start: WarmStart | None
    folder: Path


def two_tower_loop(config: dict[str, Any]) -> None:
    """Fits on train and refits on train with validation; a model of each lies in `folder` then.

    Args:
        config: `examples` (folder of an `ExampleSet`), `model` (TwoTowerConfig), `fit` (TwoTowerFitConfig), `seed`,
            `folder`; `warm_start`: folder of the training whose refit both fits begin from; `only_fit`: the one fit
            that is wanted, "train".
    """
    torch.set_num_threads(1)
    examples = ExampleSet(Path(config["examples"]))
    items = examples.items()
    schema = FeatureSchema.fit(items)
    warm_start = config.get("warm_start")
    task = _Task(
        TwoTowerConfig.parse(config["model"], "two_tower.model"),
        TwoTowerFitConfig.parse(config["fit"], "two_tower.fit"),
        config["seed"],
        examples,
        ItemColumns.from_items(items, schema),
        [str(item_id) for item_id in items[Column.ITEM_ID].to_pylist()],
        WarmStart.of(Path(warm_start), items, schema) if warm_start else None,
        Path(config["folder"]),
    )
    if dist.get_rank() == 0:
        pq.write_table(items, task.folder / ITEMS)
    best_epoch = _Fit(task, "train").run(task.fit.epochs, validate=True)
    if config.get("only_fit") != "train":
        _Fit(task, "refit").run(best_epoch, validate=False)


class _Fit:
    """One fit of this rank."""

    def __init__(self, task: _Task, name: str) -> None:
        self.task, self.name = task, name
        config, fit = task.config, task.fit
        rank, num_ranks = dist.get_rank(), dist.get_world_size()
        self.stream = RowStream(
            task.examples.files(name), EXAMPLE_COLUMNS, fit.stream,
            seed=task.seed, batch_size=fit.batch_size, rank=rank, num_ranks=num_ranks,
        )  # fmt: skip
        self.vocabulary = task.examples.vocabulary(name)
        item_rows = self.vocabulary.rows(task.item_ids)
        specs = two_tower_specs(config, task.columns.schema, self.vocabulary.num_rows)
        torch.manual_seed(task.seed)
        self.tables = ShardedTables(specs, fit.sharding)
        self.model = TwoTower(config, specs, self.tables, item_rows)
        self.model_config = self.model.config_dict()
        if task.warm_start is not None:
            task.warm_start.set_dense(self.model)
        self.loss = TwoTowerLoss(self.model, fit.negatives, self.stream.batch_size // num_ranks)
        self.distributed = self._distributed()

    def _distributed(self) -> Distributed:
        fit, warm_start = self.task.fit, self.task.warm_start
        rows, items = initial_rows(self.task.seed), self.model.item_rows
        distributed = distribute(
            Objective(self.model, self.loss), self.tables, fit.sharding, fit.optimizer,
            warm_start.rows(rows, items) if warm_start else rows, fit.precision,
        )  # fmt: skip
        if warm_start is not None:
            warm_start.set_accumulators(distributed, items)
        return distributed

    def run(self, num_epochs: int, *, validate: bool) -> int:
        """Trains for `num_epochs`, leaves the best of them, or the last where none is validated; its number."""
        task, sampler = (
            self.task,
            NegativeSampler(self.task.examples.counts(self.name), self.task.fit.negatives),
        )
        config = task.config
        maker = ExampleBatches(task.columns, sampler, config.half_life, config.max_history, config.context)
        source = RetrievalSource(
            self.stream, maker, task.fit.negatives, task.seed, lambda: self._index().whole()
        )
        identity = {"model": self.model_config, "data": self.stream.describe(), "num_epochs": num_epochs}
        kept = Checkpoints(task.folder / CHECKPOINTS / self.name, task.fit.checkpoint, identity)
        fit = Fit(
            self.distributed,
            source,
            self._prepare,
            task.fit,
            kept,
            num_epochs,
            task.seed,
            [source, self.loss],
        )
        self._report({"plan": [plain(shard) for shard in self.distributed.plan]})
        position = fit.run(self._validated if validate else dict, METRIC if validate else None, self._report)
        self._write()
        return position.best_epoch or num_epochs

    def _prepare(self, batch: RetrievalBatch) -> StepBatch:
        bags = self.model.rows_of(jagged(batch.query_bags | batch.item_bags))
        return StepBatch.of(self.tables, bags, batch)

    def _report(self, numbers: Report) -> None:
        report_progress({"fit": self.name, **numbers})

    def _validated(self) -> dict[str, float]:
        """All ranks score the whole catalogue together, as it would serve."""
        histories, targets = self.task.examples.validation()
        index = self._index()
        found = evaluate(
            lambda queries, k: index.recommend(self._encode_queries, queries, k),
            histories, targets, len(self.task.columns), (10,), description="validating",
        )  # fmt: skip
        return {METRIC: float(found.per_user["ndcg@10"].mean())}

    def _index(self) -> SpreadIndex:
        return SpreadIndex(self._encode_items, len(self.task.columns))

    @torch.no_grad()
    def _encode_items(self, rows_B: np.ndarray) -> Tensor:
        return self.model.item(jagged(self.task.columns.item_bags(rows_B)))

    @torch.no_grad()
    def _encode_queries(self, queries: Sequence[Query]) -> Tensor:
        context = query_rows(queries) if self.task.config.context else None
        bags = self.model.query_bags([query.history_L for query in queries], context)
        return self.model.query(jagged(bags))

    def _write(self) -> None:
        folder = self.task.folder / self.name
        folder.mkdir(exist_ok=True)
        rows = {ITEM_ROWS: self.model.item_rows}
        export_model(folder / f"{MODEL}.safetensors", self.model, self.tables, rows)
        export_accumulators(folder / ACCUMULATORS, self.distributed)
        if dist.get_rank() == 0:
            write_json(folder / f"{MODEL}.json", self.model_config)
            save_model(folder, VOCABULARY, self.vocabulary)
