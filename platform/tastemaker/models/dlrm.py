"""The ranker: a small DLRM [Naumov et al. 2019] and the losses that it is trained with.

Dense features pass a bottom MLP into the embeddings' space; all pairs of vectors give their dot product; a top MLP turns
these and the bottom's output into a logit. Departure from the paper: the standardised dense features also reach the
logit through one linear layer (`wide`), since with thousands of positives, not billions, most of the signal is linear in
the sources' scores.

Shape letters: B candidates of all requests of a batch, F dense features, D dimension, V vectors that interact,
P pairs of them, G requests (groups).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.config import Strict
from tastemaker.errors import CompatibilityError
from tastemaker.models.tables import Jagged, PlainTables, Tables, TableSpec
from tastemaker.models.tables import jagged as jagged  # noqa: PLC0414 (training imports it from here)
from tastemaker.types import Float32

LossKind = Literal["listwise", "pointwise"]
_LARGEST_DEVIATION = 5.0


class DlrmConfig(Strict):
    """Shape of the ranker."""

    dense_features: tuple[str, ...] = Field(min_length=1, description="names of the dense features, in order")
    num_tags: int = Field(ge=1, description="rows of the table of tags")
    num_years: int = Field(ge=1, description="rows of the table of year buckets")
    num_categories: int = Field(ge=1, description="rows of the table of categories")
    embedding_dim: int = Field(8, ge=1, description="dimension of embeddings and of the bottom MLP's output")
    bottom_hidden: tuple[int, ...] = Field((32,), description="hidden widths of the bottom MLP")
    top_hidden: tuple[int, ...] = Field((32,), description="hidden widths of the top MLP")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of hidden units dropped in training")


def dlrm_specs(config: DlrmConfig) -> list[TableSpec]:
    """The ranker's tables; the candidate's bag and the recent history's bag read the same rows."""
    sizes = {"tags": config.num_tags, "years": config.num_years, "categories": config.num_categories}
    return [
        TableSpec(
            name=name, num_rows=rows, dim=config.embedding_dim, features=(f"item_{name}", f"recent_{name}")
        )
        for name, rows in sizes.items()
    ]


class Dlrm(nn.Module):
    """Logits of candidates. Inference is thread-safe under `eval()`.

    Args:
        config: The shape.
        tables: An `nn.Module` that looks up the features of `dlrm_specs(config)`; unset keeps plain tables.
    """

    mean_F: Tensor
    scale_F: Tensor
    pairs_2P: Tensor

    def __init__(self, config: DlrmConfig, tables: Tables | None = None) -> None:
        super().__init__()
        self.config = config
        specs = dlrm_specs(config)
        self.tables: Tables = PlainTables(specs) if tables is None else tables
        self.features = tuple(feature for spec in specs for feature in spec.features)
        num_dense, num_vectors = len(config.dense_features), len(self.features) + 1
        pairs = torch.tril_indices(num_vectors, num_vectors, offset=-1)
        self.bottom = _mlp((num_dense, *config.bottom_hidden, config.embedding_dim), config.dropout)
        self.top = _mlp((pairs.shape[1] + config.embedding_dim, *config.top_hidden, 1), config.dropout)
        self.wide = nn.Linear(num_dense, 1)
        self.register_buffer("pairs_2P", pairs, persistent=False)
        self.register_buffer("mean_F", torch.zeros(num_dense))
        self.register_buffer("scale_F", torch.ones(num_dense))
        nn.init.zeros_(self.wide.weight)

    def set_normalisation(self, dense_NF: Float32) -> None:
        """Takes each dense feature's mean and deviation from the training data; a constant one keeps scale 1."""
        mean, deviation = dense_NF.mean(0, dtype=np.float64), dense_NF.std(0, dtype=np.float64)
        self.mean_F.copy_(torch.from_numpy(mean))
        self.scale_F.copy_(torch.from_numpy(np.where(deviation > 1e-6, deviation, 1.0)))

    def set_prior(self, positive_share: float) -> None:
        """Starts the logits at the share of positives in the training data, which the pointwise loss needs."""
        with torch.no_grad():
            self.wide.bias.fill_(float(np.log(positive_share / (1.0 - positive_share))))

    def forward(self, dense_BF: Tensor, bags: Mapping[str, Jagged]) -> Tensor:
        """Logits (B,). Features further than 5 deviations from the mean count as 5."""
        dense_BF = ((dense_BF - self.mean_F) / self.scale_F).clamp(-_LARGEST_DEVIATION, _LARGEST_DEVIATION)
        bottom_BD = self.bottom(dense_BF)
        looked_up = self.tables.lookup({feature: bags[feature] for feature in self.features})
        vectors_BVD = torch.stack([bottom_BD, *(looked_up[feature] for feature in self.features)], dim=1)
        top_BX = torch.cat([bottom_BD, self.interact(vectors_BVD)], dim=1)
        logit_B: Tensor = (self.top(top_BX) + self.wide(dense_BF)).squeeze(1)
        return logit_B

    def interact(self, vectors_BVD: Tensor) -> Tensor:
        """Dot products (B, P) of each pair of vectors, in the order (1,0), (2,0), (2,1), (3,0) and so on."""
        dots_BVV = torch.bmm(vectors_BVD, vectors_BVD.transpose(1, 2))
        return dots_BVV[:, self.pairs_2P[0], self.pairs_2P[1]]

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and normalisation by name; tables under `tables.embedding_bags.T.weight`."""
        return {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe, ready for inference.

        Raises:
            CompatibilityError: The tensors are not of this shape.
        """
        model = cls(DlrmConfig.parse(config, "ranker"))
        try:
            model.load_state_dict(
                {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
            )
        except RuntimeError as error:
            raise CompatibilityError(
                "ranker's weights",
                value=str(error).splitlines()[-1].strip(),
                mend="use the weights trained with this config",
            ) from error
        return model.eval()


def _mlp(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them, none after the last."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def ranking_loss(logit_B: Tensor, label_B: Tensor, offsets: Tensor, kind: LossKind) -> Tensor:
    """Mean loss of a batch of whole requests.

    Args:
        logit_B: From the model.
        label_B: 1 for what the user took, else 0.
        offsets: Where each request begins in the batch and, last, where padding begins; int64 (G + 1,).
        kind: `listwise`: `listwise_loss`; `pointwise`: binary cross-entropy, each candidate counting alike.
    """
    logit_B, label_B = logit_B[: int(offsets[-1])], label_B[: int(offsets[-1])]
    if kind == "pointwise":
        return functional.binary_cross_entropy_with_logits(logit_B, label_B)
    return listwise_loss(logit_B, label_B, offsets)


def listwise_loss(logit_B: Tensor, label_B: Tensor, offsets: Tensor) -> Tensor:
    """Softmax cross-entropy within each request [Cao et al. 2007, ListNet top-one], mean over all positives.

    -1/n sum over positives i of log(exp(s_i) / sum_{j in i's request} exp(s_j)). Every positive counts alike, so a
    request with more of them counts more. Requests without a positive count nothing; without any at all the loss is 0.

    >>> scores, labels = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    >>> round(listwise_loss(scores, labels, torch.tensor([0, 2, 4])).item(), 4)  # ln 2
    0.6931
    """
    num_groups = len(offsets) - 1
    group_B = torch.repeat_interleave(torch.arange(num_groups, device=logit_B.device), torch.diff(offsets))
    largest_G = torch.full((num_groups,), -torch.inf, device=logit_B.device)
    largest_G = largest_G.scatter_reduce(0, group_B, logit_B.detach(), "amax")
    shifted_B = logit_B - largest_G[group_B]
    total_G = torch.zeros(num_groups, device=logit_B.device).index_add(0, group_B, shifted_B.exp())
    log_share_B = shifted_B - total_G.log()[group_B]
    return -(label_B * log_share_B).sum() / label_B.sum().clamp_min(1.0)
