"""NeuMF: a product of factors and a network over others, side by side.

Shape letters: U users, I items, B askers or pairs of a batch, D dimension of the product, E of the network's embeddings, H hidden.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import CompatibilityError, DataError
from tastemaker.models.factors.sampling import Untaken
from tastemaker.models.factors.strangers import HistoryMap
from tastemaker.models.factors.user_rows import UserRows
from tastemaker.models.log import Askers, Log
from tastemaker.strict import Strict
from tastemaker.types import Float32

if TYPE_CHECKING:
    import torch

_BLOCK_PAIRS = 2**16


class NeuMfConfig(Strict):
    """NeuMF."""

    LATER: ClassVar = frozenset({"decay"})

    product_dim: int = Field(64, ge=0, description="factors of the product; 0: the network stands alone")
    network_dim: int = Field(
        64, ge=1, description="embeddings that the network reads, of a user and of an item"
    )
    hidden: tuple[int, ...] = Field((64, 32, 16), min_length=1, description="widths of the network's layers")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of a layer's inputs dropped in training")
    num_negatives: int = Field(1, ge=1, description="items not taken, for each that was")
    epochs: int = Field(20, ge=1, description="passes over the log")
    batch_size: int = Field(2048, ge=1, description="pairs of a step, negatives not counted")
    learning_rate: float = Field(0.001, gt=0, description="step size of Adam")
    decay: Literal["none", "linear"] = Field(
        "none", description="whether the step size falls, evenly to nothing at the end of all epochs"
    )
    weight_decay: float = Field(0.0, ge=0, description="of Adam")
    seed: int = Field(0, ge=0, description="start of the weights, the order of rows and the negatives")


class NeuMf(UserRows):
    """score = h [p q ; network(u, i)], learned as a classifier of taken and not taken [He et al. 2017, Eq. 12].

    Both parts are learned together, from random weights. Scores are log-odds.
    """

    kind = "neumf"
    Config: ClassVar[type[Strict]] = NeuMfConfig

    def __init__(
        self,
        config: Strict,
        user_UE: Float32,
        item_ID: Float32,
        strangers: HistoryMap,
        layers: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__(config, user_UE, item_ID, strangers)
        assert isinstance(config, NeuMfConfig)
        self._config, self._layers = config, dict(layers)
        width = config.product_dim + config.network_dim
        if item_ID.shape[1] != width or user_UE.shape[1] != width:
            raise CompatibilityError("embeddings of a NeuMF", value=item_ID.shape[1], limit=width)

    @classmethod
    def fit(cls, log: Log, config: NeuMfConfig) -> Self:
        """See `Recommender.fit`.

        Raises:
            DataError: The log is empty.
        """
        *_, model = cls.after_each_epoch(log, config)
        return model

    @classmethod
    def after_each_epoch(cls, log: Log, config: NeuMfConfig) -> Iterator[Self]:
        """The model as it is after each epoch of a fit, for whoever knows when to stop.

        Raises:
            DataError: The log is empty.
        """
        if not len(log):
            raise DataError("the log of a NeuMF is empty", mend="import events")
        losses: tuple[float, ...] = ()
        for learned, loss in _learn(log, config):
            users, items = learned.pop("users"), learned.pop("items")
            model = cls.learned(config, log, users, items, layers=learned)
            model.losses = losses = (*losses, loss)
            yield model

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        import torch

        weights = {name: torch.from_numpy(np.asarray(value)) for name, value in self._layers.items()}
        user_BE = torch.from_numpy(self._users(askers))
        item_IE = torch.from_numpy(self._item_ID)
        step = max(1, _BLOCK_PAIRS // max(1, self.num_items))
        with torch.inference_mode():
            parts = [
                _all_pairs(weights, user_BE[at : at + step], item_IE, self._config)
                for at in range(0, len(askers), step)
            ]
            return np.concatenate(
                [*(part.numpy() for part in parts), np.empty((0, self.num_items), np.float32)]
            )

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return super().tensors() | {f"layer.{name}": value for name, value in self._layers.items()}

    @classmethod
    def _more(cls, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
        layers = {
            name.removeprefix("layer."): value for name, value in tensors.items() if name.startswith("layer.")
        }
        return {"layers": layers}


def _all_pairs(
    weights: "Mapping[str, torch.Tensor]",
    user_BE: "torch.Tensor",
    item_IE: "torch.Tensor",
    config: NeuMfConfig,
) -> "torch.Tensor":
    """(B, I) of every user with every item; what the first layer makes of each is made once."""
    split, width = config.product_dim, config.network_dim
    first = weights["0.weight"]
    of_user_BH = user_BE[:, split:] @ first[:, :width].T + weights["0.bias"]
    of_item_IH = item_IE[:, split:] @ first[:, width:].T
    hidden = (of_user_BH[:, None] + of_item_IH[None]).relu_()
    for layer in range(1, len(config.hidden)):
        hidden = (hidden @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]).relu_()
    out = weights["out.weight"][0]
    product_BI = (user_BE[:, :split] * out[:split]) @ item_IE[:, :split].T
    return product_BI + hidden @ out[split:] + weights["out.bias"]


def _learn(log: Log, config: NeuMfConfig) -> Iterator[tuple[dict[str, np.ndarray], float]]:
    """All weights by name, copied, and the mean cross-entropy, of each epoch."""
    import torch

    from tastemaker.models.dropping import ByteDropout
    from tastemaker.models.seeding import seeded

    draws = np.random.default_rng(config.seed)
    weights = {
        name: torch.from_numpy(value).requires_grad_() for name, value in _start(log, config, draws).items()
    }
    optimizer = torch.optim.Adam(
        list(weights.values()), config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    dropout, untaken = ByteDropout(config.dropout), Untaken(log)
    for epoch in range(config.epochs):
        with seeded(config.seed, epoch):
            loss = _epoch(epoch, weights, log, config, draws, untaken, optimizer, dropout)
        yield {name: value.detach().numpy().copy() for name, value in weights.items()}, loss


def _epoch(
    number: int,
    weights: "Mapping[str, torch.Tensor]",
    log: Log,
    config: NeuMfConfig,
    draws: np.random.Generator,
    untaken: Untaken,
    optimizer: "torch.optim.Optimizer",
    dropout: "torch.nn.Module",
) -> float:
    """One pass, counted from 0; the mean loss."""
    import torch

    order, total = draws.permutation(len(log)), 0.0
    for at in range(0, len(log), config.batch_size):
        rows = order[at : at + config.batch_size]
        user_B = np.tile(log.user_N[rows], 1 + config.num_negatives).astype(np.int64)
        negative_B = untaken.draw(user_B[len(rows) :], draws)
        item_B = np.concatenate([log.item_N[rows], negative_B]).astype(np.int64)
        label_B = torch.zeros(len(user_B))
        label_B[: len(rows)] = 1.0
        optimizer.zero_grad()
        if config.decay == "linear":
            optimizer.param_groups[0]["lr"] = config.learning_rate * (
                1 - (number + at / len(log)) / config.epochs
            )
        logit_B = _pairs(weights, torch.from_numpy(user_B), torch.from_numpy(item_B), config, dropout)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit_B, label_B)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += float(loss.detach()) * len(rows)
    return total / len(log)


def _pairs(
    weights: "Mapping[str, torch.Tensor]",
    user_B: "torch.Tensor",
    item_B: "torch.Tensor",
    config: NeuMfConfig,
    dropout: "torch.nn.Module",
) -> "torch.Tensor":
    """(B,) log-odds of pairs, with dropout."""
    import torch

    user_BE = torch.nn.functional.embedding(user_B, weights["users"])
    item_BE = torch.nn.functional.embedding(item_B, weights["items"])
    split = config.product_dim
    hidden = torch.cat([user_BE[:, split:], item_BE[:, split:]], 1)
    for layer in range(len(config.hidden)):
        hidden = torch.relu(dropout(hidden) @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"])
    both = torch.cat([user_BE[:, :split] * item_BE[:, :split], hidden], 1)
    return both @ weights["out.weight"][0] + weights["out.bias"]


def _start(log: Log, config: NeuMfConfig, draws: np.random.Generator) -> dict[str, Float32]:
    """Embeddings of standard deviation 0.01, layers by Glorot's rule."""
    width = config.product_dim + config.network_dim
    found = {
        name: draws.normal(0, 0.01, (size, width)).astype(np.float32)
        for name, size in {"users": log.num_users, "items": log.num_items}.items()
    }
    widths = (2 * config.network_dim, *config.hidden)
    shapes = {f"{layer}": (widths[layer + 1], widths[layer]) for layer in range(len(config.hidden))}
    shapes["out"] = (1, config.product_dim + config.hidden[-1])
    for name, shape in shapes.items():
        deviation = np.sqrt(2 / sum(shape))
        found[f"{name}.weight"] = draws.normal(0, deviation, shape).astype(np.float32)
        found[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return found
