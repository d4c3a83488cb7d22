"""Deep interest network: what of a user's history matters depends on the candidate.

Shape letters: B rows, V vectors of a row, D dimension, H values of all histories end to end.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from tastemaker.errors import ConfigError
from tastemaker.models.ctr.network import DeepConfig, NetworkModel
from tastemaker.models.ctr.vectors import Batch, FieldVectors, Network
from tastemaker.models.dropping import ByteDropout
from tastemaker.models.layers import mlp
from tastemaker.strict import Strict


class DinConfig(DeepConfig):
    """DIN."""

    history: str = Field(
        "history", description="field of many values that attention weighs, `like` the candidate's"
    )
    hidden: tuple[int, ...] = Field((128, 64), min_length=1, description="widths of the perceptron's layers")
    attention_hidden: tuple[int, ...] = Field(
        (36,), description="hidden widths of the attention's perceptron"
    )


class DinNetwork(Network):
    """A perceptron over the vectors, the history's among them as the candidate sees it."""

    def __init__(self, vectors: FieldVectors, config: DinConfig) -> None:
        super().__init__()
        names = vectors.fields.names
        like = next((many.like for many in vectors.fields.multi if many.name == config.history), None)
        if like is None:
            limit = "a field of many values that is like one of one value"
            raise ConfigError("history of a DIN", value=config.history, limit=limit, mend="name such a field")
        self.vectors, self._history = vectors, config.history
        self.read_singly = frozenset({config.history})
        self._candidate_at, self._history_at = names.index(like), names.index(config.history)
        self.attention = mlp((4 * config.dim, *config.attention_hidden, 1), 0.0)
        self.dropout = ByteDropout(config.dropout)
        self.deep = mlp((vectors.num_vectors * config.dim, *config.hidden, 1), config.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """(B,)."""
        vector_BVD, _ = self.vectors(batch)
        parts = list(vector_BVD.unbind(1))
        parts[self._history_at] = self.interest(batch, parts[self._candidate_at])
        logit_B: Tensor = self.deep(self.dropout(torch.cat(parts, 1)))[:, 0]
        return logit_B + self.vectors.bias

    def interest(self, batch: Batch, candidate_BD: Tensor) -> Tensor:
        """(B, D) sum of a(h, c) h over the history [Zhou et al. 2018, Eq. 3]; nothing is spent on padding."""
        bags = batch.bags[self._history]
        value_HD = self.vectors.rows_of(bags.row_V, batch)[:, : candidate_BD.shape[1]]
        owner_H = torch.repeat_interleave(torch.arange(len(candidate_BD)), bags.length_B)
        candidate_HD = candidate_BD[owner_H]
        seen_HX = torch.cat([value_HD, candidate_HD, value_HD - candidate_HD, value_HD * candidate_HD], 1)
        weighed_HD = self.attention(seen_HX) * value_HD
        return torch.zeros_like(candidate_BD).index_add(0, owner_H, weighed_HD)


class Din(NetworkModel):
    """DIN [Zhou et al. 2018]: weights are not normalised, so that how much interest there is counts. Departure: ReLU for Dice."""

    kind = "din"
    Config: ClassVar[type[Strict]] = DinConfig

    @staticmethod
    def network(vectors: FieldVectors, config: Any) -> Network:
        """See `NetworkModel.network`."""
        return DinNetwork(vectors, config)
