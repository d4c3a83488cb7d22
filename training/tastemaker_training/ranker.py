"""The ranker's training loop, as every rank runs it.

Shape letters: N candidates of all requests, B of one batch, F dense features, G requests.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tastemaker.evaluation import metrics
from tastemaker.features.ranking_data import RankingBatch, RankingData
from tastemaker.home import write_json
from tastemaker.models.calibration import Calibration
from tastemaker.models.dlrm import Dlrm, DlrmConfig, LossKind, dlrm_specs, ranking_loss
from tastemaker.models.tables import jagged
from tastemaker.types import Float32
from tastemaker_training.artifacts import save_model
from tastemaker_training.fit_config import RankerFitConfig
from tastemaker_training.ranking_file import load_ranking_data
from tastemaker_training.reporting import rank_and_size, report_files, report_progress
from tastemaker_training.sharding import ShardedTables, distribute, initial_rows, plain_state

RESULT = "ranker"
"""Folder of the result in a run's folder: `ranker.*` and `calibration.json`."""
_DEPTH = 10


class RankerObjective(nn.Module):
    """The ranker's loss as a module, so that DDP sees one forward pass."""

    def __init__(self, model: Dlrm, loss: LossKind) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: RankingBatch) -> Tensor:
        """Mean loss of a batch."""
        label_B, offsets_G1 = torch.from_numpy(batch.label_B), torch.from_numpy(batch.offsets_G1)
        return ranking_loss(self.logits(batch), label_B, offsets_G1, self.loss)

    def logits(self, batch: RankingBatch) -> Tensor:
        """Logits (B,) of a batch's candidates."""
        logit_B: Tensor = self.model(torch.from_numpy(batch.dense_BF), jagged(batch.bags))
        return logit_B


def ranker_loop(config: dict[str, Any]) -> None:
    """Trains on the requests in `data`; rank 0 hands over the model and its calibration.

    Args:
        config: `data` (path), `fit` (RankerFitConfig), `model` (DlrmConfig), `seed`.
    """
    rank, num_ranks = rank_and_size()
    torch.set_num_threads(1)
    fit = RankerFitConfig.parse(config["fit"], "ranker.fit")
    seed: int = config["seed"]
    training, held_out = load_ranking_data(Path(config["data"])).split(fit.held_out_share, seed)
    torch.manual_seed(seed)
    model_config = DlrmConfig.parse(config["model"], "ranker.model")
    tables = ShardedTables(dlrm_specs(model_config))
    model = Dlrm(model_config, tables)
    model.set_normalisation(training.dense_NF)
    model.set_prior(float(training.label_N.mean()))
    objective = RankerObjective(model, fit.loss)
    distributed = distribute(objective, tables, fit.sharding, fit.optimizer, initial_rows(seed))
    torch.manual_seed(seed + 1 + rank)  # dropout differs between ranks
    per_rank = max(1, fit.requests_per_batch // num_ranks)
    total = fit.epochs * training.num_batches(per_rank, num_ranks)
    held_out_batch, step = held_out.batch(range(len(held_out))), 0
    for epoch in range(fit.epochs):
        model.train()
        losses = []
        for batch in training.batches(per_rank, rank=rank, num_ranks=num_ranks, seed=seed, epoch=epoch):
            distributed.scale_learning_rates(1.0 - step / total)
            losses.append(distributed.step(distributed.module(batch)))
            step += 1
        logit_N = _held_out_logits(objective, held_out_batch)
        report_progress({"epoch": epoch + 1, "loss": float(np.mean(losses))} | _score(logit_N, held_out))
    state = plain_state(model, tables)

    def write(folder: Path) -> None:
        save_model(folder, "ranker", Dlrm.from_state(model_config.model_dump(mode="json"), state))
        calibration = Calibration.fit(logit_N, held_out.label_N)
        write_json(folder / "calibration.json", calibration.config_dict())

    report_files(RESULT, {"plan": [vars(shard) for shard in distributed.plan]}, write)


def _held_out_logits(objective: RankerObjective, batch: RankingBatch) -> Float32:
    """Every rank computes all of them: a lookup is for all ranks to make."""
    objective.eval()
    with torch.no_grad():
        logit_N: Float32 = objective.logits(batch).numpy()
    return logit_N


def _score(logit_N: Float32, data: RankingData) -> dict[str, float]:
    """NDCG@10 among the candidates of the requests that have a positive."""
    order_N = np.lexsort((-logit_N, np.repeat(np.arange(len(data)), np.diff(data.offsets_G1))))
    ranked = np.split(data.label_N[order_N].astype(np.float64), data.offsets_G1[1:-1])
    useful = [labels for labels in ranked if labels.any()]
    width = max(len(labels) for labels in ranked)
    label_GK = np.stack([np.pad(labels, (0, width - len(labels))) for labels in useful or ranked])
    ndcg = float(np.nanmean(metrics.ndcg(label_GK, label_GK, _DEPTH))) if useful else 0.0
    return {"held_out_ndcg@10": ndcg}
