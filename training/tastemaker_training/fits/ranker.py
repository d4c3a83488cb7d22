"""The ranker's training, as every rank runs it.

Shape letters: N candidates of all requests, B of one batch, F dense features, T targets, G requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tastemaker.evaluation import metrics
from tastemaker.features.ranking_batch import RankingBatch
from tastemaker.features.ranking_data import CLICK, RankingData
from tastemaker.features.request_features import of_nobody
from tastemaker.home import write_json
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig, dlrm_specs
from tastemaker.models.ranking_losses import RankingLoss
from tastemaker.models.tables import jagged
from tastemaker.types import Bool, Float32
from tastemaker_training.artifacts import CHECKPOINTS, plain
from tastemaker_training.distributed.checkpoints import Checkpoints
from tastemaker_training.distributed.export import export_model
from tastemaker_training.distributed.pipelining import Objective, StepBatch, tables_of
from tastemaker_training.distributed.reporting import report_progress
from tastemaker_training.distributed.sharded_tables import ShardedTables, device, initial_rows
from tastemaker_training.distributed.sharding import distribute
from tastemaker_training.fits.fitting import Fit
from tastemaker_training.plan.fit_config import RankerFitConfig
from tastemaker_training.rows.ranking_file import load_ranking_data

RESULT = "ranker"
"""Folder of the result in a run's folder: `ranker.*` and `calibration.json`."""
_DEPTH = 10


class RankerLoss:
    """The ranker's loss on a batch, and its logits.

    Args:
        model: Over sharded tables.
        fit: What counts how much.
    """

    def __init__(self, model: Dlrm, fit: RankerFitConfig) -> None:
        self._model = model
        self._loss = RankingLoss(model.config.targets, fit.loss, fit.loss_weights, fit.negative_share)

    def __call__(self, batch: RankingBatch) -> Tensor:
        """Mean loss."""
        label_BT, offsets_G1 = torch.from_numpy(batch.label_BT), torch.from_numpy(batch.offsets_G1)
        weight_B = None if batch.weight_B is None else torch.from_numpy(batch.weight_B).to(device())
        return self._loss(self._logits(batch), label_BT.to(device()), offsets_G1.to(device()), weight_B)

    def prepare(self, batch: RankingBatch) -> StepBatch:
        """The batch with the rows that the model reads of it."""
        bags = jagged({feature: batch.bags[feature] for feature in self._model.features})
        return StepBatch.of(tables_of(self._model), bags, batch)

    def serving_logits(self, batch: RankingBatch) -> Float32:
        """Logits (B, T) as they would serve. Every rank computes all of them: a lookup is for all ranks to make."""
        self._model.eval()
        with torch.no_grad():
            logit_BT: Float32 = self._logits(batch).cpu().numpy()
        self._model.train()
        return logit_BT

    def _logits(self, batch: RankingBatch) -> Tensor:
        logit_BT: Tensor = self._model(torch.from_numpy(batch.dense_BF).to(device()), jagged(batch.bags))
        return logit_BT


@dataclass(frozen=True)
class RankerSource:
    """This rank's batches of whole requests."""

    data: RankingData
    fit: RankerFitConfig
    seed: int
    nobody_F: Float32

    @property
    def num_steps(self) -> int:
        """Of an epoch."""
        return self.data.num_batches(self._per_rank, dist.get_world_size())

    @property
    def num_rows(self) -> int:
        """Candidates of all requests."""
        return len(self.data.label_NT)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[RankingBatch]:
        """Those of an epoch from `first_step` on."""
        found = self.data.batches(
            self._per_rank,
            rank=dist.get_rank(),
            num_ranks=dist.get_world_size(),
            seed=self.seed,
            epoch=epoch,
            negative_share=self.fit.negative_share,
            hidden_share=self.fit.hidden_share,
            nobody_F=self.nobody_F,
            hidden_records=self.fit.hidden_records,
        )
        return islice(found, first_step, None)

    @property
    def _per_rank(self) -> int:
        return max(1, self.fit.requests_per_batch // dist.get_world_size())


def ranker_loop(config: dict[str, Any]) -> None:
    """Trains on the requests in `data`; the model and its calibration lie in `folder` then.

    Args:
        config: `data` (path), `fit` (RankerFitConfig), `model` (DlrmConfig), `seed`, `folder`.
    """
    torch.set_num_threads(1)
    fit_config = RankerFitConfig.parse(config["fit"], "ranker.fit")
    model_config = DlrmConfig.parse(config["model"], "ranker.model")
    folder, seed = Path(config["folder"]), int(config["seed"])
    training, held_out = ranker_data(Path(config["data"]), fit_config, model_config, seed)
    nobody_F = of_nobody(model_config.dense_features)
    torch.manual_seed(seed)
    tables = ShardedTables(dlrm_specs(model_config), fit_config.sharding)
    model = Dlrm(model_config, tables)
    model.set_normalisation(training.without_records(nobody_F, fit_config.hidden_records, seed).dense_NF)
    model.set_prior(training.label_NT)
    loss = RankerLoss(model, fit_config)
    distributed = distribute(
        Objective(model, loss), tables, fit_config.sharding, fit_config.optimizer, initial_rows(seed), fit_config.precision
    )  # fmt: skip
    report_progress({"plan": [plain(shard) for shard in distributed.plan]})
    fit = Fit(
        distributed,
        RankerSource(training, fit_config, seed, nobody_F),
        loss.prepare,
        fit_config,
        Checkpoints(folder / CHECKPOINTS / RESULT, fit_config.checkpoint, {"model": plain(model_config)}),
        fit_config.epochs,
        seed,
    )
    click = model_config.targets.index(CLICK)
    held_out_batch, strangers = held_out.batch(), held_out.without_records(nobody_F, 1.0, seed).batch()

    def evaluate() -> dict[str, float]:
        found = score_held_out(loss.serving_logits(held_out_batch)[:, click], held_out)
        if not np.isnan(nobody_F).all():
            unknown = score_held_out(loss.serving_logits(strangers)[:, click], held_out)
            found["held_out_ndcg@10_without_records"] = unknown["held_out_ndcg@10"]
        return found

    fit.run(evaluate, metric=None, report=report_progress)
    mixed = held_out.without_records(nobody_F, fit_config.hidden_records, seed)
    logit_NT = loss.serving_logits(mixed.batch())
    calibration = Calibration.fit_targets(logit_NT, held_out.label_NT, model_config.targets)
    result = folder / RESULT
    result.mkdir(exist_ok=True)
    export_model(result / "ranker.safetensors", model, tables)
    if dist.get_rank() == 0:
        write_json(result / "ranker.json", model_config.model_dump(mode="json"))
        write_json(result / "calibration.json", calibration.config_dict())


def ranker_data(
    path: Path, fit: RankerFitConfig, model: DlrmConfig, seed: int
) -> tuple[RankingData, RankingData]:
    """The requests to fit on, and those that are held out, as serving would see them: no positions, all negatives.

    Raises:
        DataError: The data lacks a target or a feature that the model is to have, or there are too few requests.
    """
    data = load_ranking_data(path).for_targets(model.targets)
    data.require(model.optional_features)
    training, held_out = data.split(fit.held_out_share, seed)
    training = training.with_clicks() if fit.loss == "listwise" else training
    return training, held_out.without_positions()


def score_held_out(logit_N: Float32, data: RankingData) -> dict[str, float]:
    """How well clicks are ordered, and how far their calibrated probabilities are from what happened.

    NDCG@10 among the candidates of the requests that have a click, those of one score by luck. The calibration error is that of each half of the
    requests under a calibration fitted on the other half; it is left out where a half lacks clicks, or all else.
    """
    luck_N = np.random.default_rng(0).random(len(logit_N))
    order_N = np.lexsort((luck_N, -logit_N, data.request_index))
    ranked = np.split(data.clicks[order_N].astype(np.float64), data.offsets_G1[1:-1])
    useful = [labels for labels in ranked if labels.any()]
    width = max(len(labels) for labels in ranked)
    label_GK = np.stack([np.pad(labels, (0, width - len(labels))) for labels in useful or ranked])
    ndcg = float(np.nanmean(metrics.ndcg(label_GK, label_GK, _DEPTH))) if useful else 0.0
    return {"held_out_ndcg@10": ndcg} | _calibration_error(logit_N, data.clicks, data.request_index % 2 == 0)


def _calibration_error(logit_N: Float32, label_N: Float32, half_N: Bool) -> dict[str, float]:
    if any(len(np.unique(label_N[half])) < 2 for half in (half_N, ~half_N)):
        return {}
    probability_N = np.empty_like(logit_N)
    for mine, other in ((half_N, ~half_N), (~half_N, half_N)):
        probability_N[mine] = Calibration.fit(logit_N[other], label_N[other])(logit_N[mine])
    return {"held_out_ece": metrics.expected_calibration_error(probability_N, label_N)}
