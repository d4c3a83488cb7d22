"""How a click model's network is fitted: Adam, and the epoch that validation likes best."""

import copy
import logging
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tastemaker.errors import DataError, TrainingError
from tastemaker.models.ctr.fields import Rows
from tastemaker.models.ctr.losses import ClickLoss, PropensityConfig, worth
from tastemaker.models.ctr.model import Labelled, Progress, Watch
from tastemaker.models.ctr.vectors import Network
from tastemaker.models.seeding import seeded
from tastemaker.strict import Strict
from tastemaker.types import Float32

_PREDICTED_ROWS = 2**14
log = logging.getLogger(__name__)


class ClickFitConfig(Strict):
    """Adam over all parameters."""

    LATER: ClassVar = frozenset({"propensity"})

    epochs: int = Field(30, ge=1, description="passes over the rows, at most")
    patience: int = Field(3, ge=1, description="validations without a better AUC that end the fit")
    batch_size: int = Field(4096, ge=1, description="rows of a step")
    learning_rate: float = Field(0.005, gt=0, description="step size")
    embedding_l2: float = Field(
        0.0,
        ge=0,
        description="weight of half the squared norm of what a row looked up for its fields of one value, in the loss",
    )
    propensity: PropensityConfig = Field(
        PropensityConfig(), description="what propensities correct, where rows have them"
    )
    lazy_above_rows: int = Field(
        500_000, ge=0, description="larger tables move only the rows that a step looked up"
    )


def fit_network(
    network: Network,
    learned: Labelled,
    validation: Labelled | None,
    config: ClickFitConfig,
    seed: int,
    watch: Watch | None = None,
) -> list[float]:
    """Fits in place; each epoch's mean loss. With validation rows the best epoch's weights stay, see `losses.worth`.

    Raises:
        DataError: There are no rows.
        TrainingError: The loss is not a number.
    """
    if not len(learned):
        raise DataError("a click model has no rows to learn from", mend="import events")
    optimizers = _optimizers(network, config)
    loss, losses = ClickLoss.of(learned, config.propensity), list[float]()
    best, best_worth, stale = None, -np.inf, 0
    for epoch in range(config.epochs):
        losses.append(_epoch(network, learned, optimizers, config, loss, (seed, epoch)))
        if validation is not None:
            reached = _worth(network, validation, config.propensity)
            log.info("epoch %d: loss %.4f, validation %.4f", epoch + 1, losses[-1], reached)
            if reached > best_worth:
                best, best_worth, stale = copy.deepcopy(network.state_dict()), reached, 0
            else:
                stale += 1
        if watch is not None:
            watch(Progress((epoch + 1) / config.epochs, _scores_of(network, best), losses[-1]))
        if stale >= config.patience:
            break
    if best is not None:
        network.load_state_dict(best)
    network.eval()
    return losses


def _optimizers(network: Network, config: ClickFitConfig) -> list[torch.optim.Optimizer]:
    if not network.vectors.sparse:
        return [torch.optim.Adam(network.parameters(), config.learning_rate, fused=True)]
    table = network.vectors.table
    dense = [parameter for parameter in network.parameters() if parameter is not table]
    return [
        torch.optim.SparseAdam([table], config.learning_rate),
        torch.optim.Adam(dense, config.learning_rate, fused=True),
    ]


def _epoch(
    network: Network,
    learned: Labelled,
    optimizers: list[torch.optim.Optimizer],
    config: ClickFitConfig,
    loss_of: ClickLoss,
    seed: tuple[int, int],
) -> float:
    network.train()
    order, total = np.random.default_rng(seed).permutation(len(learned)), 0.0
    with seeded(*seed):
        for some in _batches(order, config.batch_size):
            loss = _loss(network, learned.take(some), config, loss_of)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            for optimizer in optimizers:
                optimizer.step()
            total += float(loss.detach()) * len(some)
    if not np.isfinite(total):
        raise TrainingError("loss of a click model", value=total, mend="lower learning_rate")
    return total / len(learned)


def _batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """The last takes a rest of one row, which normalisation by batch could not use."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1:
        cuts.pop()
    return np.split(order, cuts)


def _loss(network: Network, batch: Labelled, config: ClickFitConfig, loss_of: ClickLoss) -> Tensor:
    made = network.vectors.batch(batch.rows)
    loss = loss_of(network(made), batch)
    if config.embedding_l2:
        looked_up = functional.embedding(made.row_BC, network.vectors.table, sparse=network.vectors.sparse)
        loss = loss + config.embedding_l2 * looked_up.square().sum() / (2 * len(batch))
    penalty = network.penalty()
    return loss if penalty is None else loss + penalty


def _worth(network: Network, validation: Labelled, config: PropensityConfig) -> float:
    """Of the validation rows, which must have both labels."""
    if len(np.unique(validation.label_N)) < 2:
        raise DataError("validation rows of a click model", value="one label", limit="both labels")
    network.eval()
    return worth(log_odds(network, validation.rows), validation, config)


def _scores_of(network: Network, kept: Mapping[str, Tensor] | None) -> Callable[[Rows], Float32]:
    """Log-odds by the weights that are kept, or the network's own where these are None; it has its own again after each call."""

    def scores(rows: Rows) -> Float32:
        network.eval()
        if kept is None:
            return log_odds(network, rows)
        own = copy.deepcopy(network.state_dict())
        try:
            network.load_state_dict(kept)
            return log_odds(network, rows)
        finally:
            network.load_state_dict(own)

    return scores


def predicted(network: Network, rows: Rows) -> Float32:
    """(N,) probabilities of a network in evaluation."""
    return torch.sigmoid(torch.from_numpy(log_odds(network, rows))).numpy()


def log_odds(network: Network, rows: Rows) -> Float32:
    """(N,) log-odds of a network in evaluation."""
    parts = [np.empty(0, np.float32)]
    with torch.inference_mode():
        for begin in range(0, len(rows), _PREDICTED_ROWS):
            some = rows.take(np.arange(begin, min(begin + _PREDICTED_ROWS, len(rows))))
            parts.append(network(network.vectors.batch(some)).numpy())
    return np.concatenate(parts)
