"""Dense layers of the ranker's top: an MLP, and the mixture of experts that stands in for it.

Shape letters: B candidates, X width of what goes in, E experts, H their width, T targets, V vectors, D dimension, P pairs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.models.dropping import ByteDropout
from tastemaker.models.linear import Linear
from tastemaker.strict import Strict


class ExpertsConfig(Strict):
    """Multi-gate mixture of experts [Ma et al. 2018]."""

    num: int = Field(4, ge=2, description="experts that all targets share")
    hidden: int = Field(32, ge=1, description="width of an expert")


class Experts(nn.Module):
    """Multi-gate mixture of experts: each target weighs the shared experts by a gate of its own [Ma et al. 2018, Sec. 4.2].

    Target t's output is head_t(sum over experts e of softmax(gate_t(x))_e * relu(expert_e(x))).

    Args:
        width: X.
        config: The experts.
        head_hidden: Hidden widths of each target's head.
        num_targets: T.
        dropout: Share of the heads' hidden units dropped in training.
    """

    def __init__(
        self, width: int, config: ExpertsConfig, head_hidden: Sequence[int], num_targets: int, dropout: float
    ) -> None:
        super().__init__()
        self._num = config.num
        self.experts = Linear(width, config.num * config.hidden)
        self.gates = Linear(width, num_targets * config.num)
        self.heads = nn.ModuleList(mlp((config.hidden, *head_hidden, 1), dropout) for _ in range(num_targets))

    def forward(self, x_BX: Tensor) -> Tensor:
        """Outputs (B, T)."""
        expert_BEH = functional.relu(self.experts(x_BX)).view(len(x_BX), self._num, -1)
        gate_BTE = torch.softmax(self.gates(x_BX).view(len(x_BX), -1, self._num), dim=2)
        mixed_BTH = torch.bmm(gate_BTE, expert_BEH)
        return torch.cat([head(mixed_BTH[:, t]) for t, head in enumerate(self.heads)], dim=1)


def mlp(widths: Sequence[int], dropout: float) -> nn.Sequential:
    """Linear layers with ReLU and dropout between them, none after the last."""
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [Linear(width, following), nn.ReLU(), ByteDropout(dropout)]
    return nn.Sequential(*layers[:-2])


def dot_products(vectors_BVD: Tensor, pairs_2P: Tensor) -> Tensor:
    """Dot products (B, P) of pairs of vectors, each given by its two places."""
    dots_BVV = torch.bmm(vectors_BVD, vectors_BVD.transpose(1, 2))
    return dots_BVV.flatten(1).index_select(1, pairs_2P[0] * dots_BVV.shape[2] + pairs_2P[1])
