"""The two-tower's training loop, as every rank runs it: a fit on train, and a refit on train with validation.

The first fit keeps the epoch that is best on validation; the refit takes as many, its rates falling over these.
Both run in one start of the workers, which costs more than a fit of this size.

Shape letters: B requests, I catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tastemaker.data.schema import Dataset, read_dataset
from tastemaker.data.splits import Histories, Split, leave_last
from tastemaker.evaluation.offline import evaluate
from tastemaker.features.columns import FeatureSchema, ItemColumns
from tastemaker.features.examples import Examples, RetrievalBatch
from tastemaker.home import Home
from tastemaker.models.losses import sampled_softmax_loss
from tastemaker.models.tables import jagged
from tastemaker.models.two_tower import TwoTower, TwoTowerConfig, two_tower_specs
from tastemaker.stages.retrieval import top_allowed
from tastemaker.types import Int32, Query
from tastemaker_training.artifacts import save_model
from tastemaker_training.fit_config import TwoTowerFitConfig
from tastemaker_training.recipe import SplitConfig
from tastemaker_training.reporting import rank_and_size, report_files, report_progress
from tastemaker_training.sharding import ShardedTables, distribute, initial_rows, plain_state

State = dict[str, np.ndarray]


class TwoTowerObjective(nn.Module):
    """The two-tower's loss as a module, so that DDP sees one forward pass."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: RetrievalBatch) -> Tensor:
        """Mean loss of a batch."""
        query_bags, item_bags = jagged(batch.query_bags), jagged(batch.item_bags)
        cast("ShardedTables", self.model.tables).prefetch(query_bags | item_bags)
        return sampled_softmax_loss(
            self.model.query(query_bags),
            self.model.item(item_bags),
            torch.from_numpy(batch.item_M),
            torch.from_numpy(batch.log_q_M),
            self.model.config.temperature,
        )


@dataclass(frozen=True)
class _Task:
    """What both fits share."""

    config: TwoTowerConfig
    fit: TwoTowerFitConfig
    seed: int
    dataset: Dataset
    split: Split
    columns: ItemColumns


def two_tower_loop(config: dict[str, Any]) -> None:
    """Fits on train and refits on train with validation; rank 0 hands over a model of each.

    Args:
        config: `home`, `catalogue`, `split` (SplitConfig), `model` (TwoTowerConfig), `fit` (TwoTowerFitConfig), `seed`.
    """
    torch.set_num_threads(1)
    dataset = read_dataset(Home.open(Path(config["home"])), config["catalogue"])
    split_config = SplitConfig.parse(config["split"], "split")
    task = _Task(
        TwoTowerConfig.parse(config["model"], "two_tower.model"),
        TwoTowerFitConfig.parse(config["fit"], "two_tower.fit"),
        config["seed"],
        dataset,
        leave_last(dataset, split_config.num_test, split_config.num_validation),
        ItemColumns.from_items(dataset.items, FeatureSchema.fit(dataset.items)),
    )
    best_epoch = _Fit(task, "train", task.split.train).run(task.fit.epochs, validate=True)
    _Fit(task, "refit", task.split.train_validation).run(best_epoch, validate=False)


class _Fit:
    """One fit of this rank."""

    def __init__(self, task: _Task, name: str, histories: Histories) -> None:
        self.task, self.name = task, name
        self.rank, self.num_ranks = rank_and_size()
        config = task.config
        self.examples = Examples(histories, task.columns, config.half_life, config.max_history)
        specs = two_tower_specs(config, task.columns.schema)
        torch.manual_seed(task.seed)
        self.tables = ShardedTables(specs)
        self.model = TwoTower(config, specs, self.tables)
        self.model_config = self.model.config_dict()
        objective, rows = TwoTowerObjective(self.model), initial_rows(task.seed)
        self.distributed = distribute(objective, self.tables, task.fit.sharding, task.fit.optimizer, rows)
        self.steps_per_epoch = self.examples.num_steps(task.fit.batch_size, self.num_ranks)

    def run(self, num_epochs: int, *, validate: bool) -> int:
        """Trains for `num_epochs`, hands over the best of them, or the last where none is validated; its number."""
        best_epoch, best_ndcg, best = num_epochs, -1.0, State()
        for epoch in range(num_epochs):
            loss = self._epoch(epoch, num_epochs)
            report: dict[str, Any] = {"fit": self.name, "epoch": epoch + 1, "loss": loss}
            state = plain_state(self.model, self.tables)
            if validate:
                report["validation_ndcg@10"] = ndcg = self._validation_ndcg(state)
                if ndcg > best_ndcg:
                    best_epoch, best_ndcg, best = epoch + 1, ndcg, state
            else:
                best = state
            report_progress(report)
        plan = [vars(shard) for shard in self.distributed.plan]
        report_files(
            self.name, {"best_epoch": best_epoch, "plan": plan}, lambda folder: self._write(folder, best)
        )
        return best_epoch

    def _epoch(self, epoch: int, num_epochs: int) -> float:
        """Mean loss of one pass over the examples."""
        fit, losses = self.task.fit, []
        total = num_epochs * self.steps_per_epoch
        batches = self.examples.batches(
            seed=self.task.seed,
            epoch=epoch,
            batch_size=fit.batch_size,
            num_negatives=fit.num_negatives,
            rank=self.rank,
            num_ranks=self.num_ranks,
        )
        for step, batch in enumerate(batches, epoch * self.steps_per_epoch):
            self.distributed.scale_learning_rates(1.0 - step / total)
            losses.append(self.distributed.step(self.distributed.module(batch)))
        return float(np.mean(losses))

    def _validation_ndcg(self, state: State) -> float:
        """Rank 0 scores the plain model, as it would serve; all ranks learn the figure."""
        ndcg = torch.zeros(1, dtype=torch.float64)
        if self.rank == 0:
            ndcg[0] = _ndcg(TwoTower.from_state(self.model_config, state), self.task)
        dist.broadcast(ndcg, src=0)
        return float(ndcg)

    def _write(self, folder: Path, state: State) -> None:
        save_model(folder, "two_tower", TwoTower.from_state(self.model_config, state))


def _ndcg(model: TwoTower, task: _Task) -> float:
    vectors_ID = model.encode_items(task.columns)

    def recommend(queries: Sequence[Query], k: int) -> list[Int32]:
        score_BI = model.encode([query.history_L for query in queries]) @ vectors_ID.T
        return [top_allowed(score_I, query, k)[0] for score_I, query in zip(score_BI, queries, strict=True)]

    found = evaluate(recommend, task.split.train, task.split.validation, task.dataset.num_items, (10,))
    return float(found.per_user["ndcg@10"].mean())
