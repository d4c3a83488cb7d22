"""Deep & Cross, both versions: layers that multiply what they have with what came in, beside a perceptron.

Shape letters: B rows, V vectors, D dimension, X = V D.
"""

from itertools import pairwise
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from tastemaker.models.ctr.network import DeepConfig, NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network
from tastemaker.models.dropping import ByteDropout
from tastemaker.models.linear import Linear
from tastemaker.strict import Strict


class CrossConfig(DeepConfig):
    """Deep & Cross."""

    hidden: tuple[int, ...] = Field((256, 256), min_length=1, description="widths of the perceptron's layers")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of units dropped in training")
    num_crosses: int = Field(2, ge=1, description="cross layers")
    cross_penalty: float = Field(
        0.0, ge=0, description="weight of the sum of the cross layers' norms in the loss"
    )


class CrossNetwork(Network):
    """logit = w [cross(x); deep(x)] of the vectors laid end to end, x."""

    def __init__(self, vectors: FieldVectors, config: CrossConfig, *, full: bool) -> None:
        super().__init__()
        self.vectors, self._penalty, self._full = vectors, config.cross_penalty, full
        width = vectors.num_vectors * config.dim
        self.crosses = nn.ModuleList(
            Linear(width, width if full else 1, bias=False) for _ in range(config.num_crosses)
        )
        self.shifts = nn.Parameter(torch.zeros(config.num_crosses, width))
        self.deep = _normalised((width, *config.hidden), config.dropout)
        self.out = Linear(width + config.hidden[-1], 1)
        for cross in self.crosses:
            nn.init.xavier_normal_(cross.get_parameter("weight"))

    def cross(self, x_BX: Tensor) -> Tensor:
        """(B, X): x_(l+1) = x_0 * (W_l x_l + b_l) + x_l, or with a vector for W_l x_0 (w_l x_l) + b_l + x_l."""
        found_BX = x_BX
        for layer, shift_X in zip(self.crosses, self.shifts, strict=True):
            by = layer(found_BX)
            crossed_BX = x_BX * (by + shift_X) if self._full else x_BX * by + shift_X
            found_BX = crossed_BX + found_BX
        return found_BX

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        vector_BVD, _ = self.vectors(batch)
        x_BX = vector_BVD.flatten(1)
        logit_B: Tensor = self.out(torch.cat([self.cross(x_BX), self.deep(x_BX)], 1))[:, 0]
        return logit_B + self.vectors.bias

    def penalty(self) -> Tensor | None:
        """The norms of the layers' weights: whole layers are switched off [Yuan & Lin 2006]."""
        if not self._penalty:
            return None
        return (
            self._penalty
            * torch.stack([cross.get_parameter("weight").norm() for cross in self.crosses]).sum()
        )


class Dcn(NetworkModel):
    """DCN [Wang et al. 2017]: a cross layer has a vector of weights."""

    kind = "dcn"
    Config: ClassVar[type[Strict]] = CrossConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return CrossNetwork(vectors, config, full=False)


class DcnV2(NetworkModel):
    """DCN-V2 [Wang et al. 2021], parallel, without low-rank experts: a cross layer has a matrix of weights."""

    kind = "dcn-v2"
    Config: ClassVar[type[Strict]] = CrossConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return CrossNetwork(vectors, config, full=True)


def _normalised(widths: tuple[int, ...], dropout: float) -> nn.Sequential:
    """A perceptron whose layers are normalised by batch."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [ByteDropout(dropout), Linear(width, following), nn.BatchNorm1d(following), nn.ReLU()]
    return nn.Sequential(*layers)
