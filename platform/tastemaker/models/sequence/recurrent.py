"""Models that read a history one item at a time: GRU4Rec [Hidasi et al. 2016] and an LSTM session encoder.

Departures from GRU4Rec: sequences begin anew in each batch instead of running on through it, the loss is chosen like that of
the other models, and items are scored by the table that they are read from [Tan et al. 2016].

Shape letters: V tokens, D dimension, H width of the recurrent state.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tastemaker.models.dropping import ByteDropout
from tastemaker.models.linear import Linear
from tastemaker.models.sequence.encoder import SequenceEncoder
from tastemaker.models.sequence.model import NextItemModel, SequenceConfig
from tastemaker.models.sequence.token_batch import TokenBatch
from tastemaker.strict import Strict
from tastemaker.types import Int64

_LEAST_TOGETHER = 16


class RecurrentConfig(SequenceConfig):
    """Shape of a recurrent model."""

    hidden: int = Field(128, ge=1, description="width of the recurrent state")
    num_layers: int = Field(1, ge=1, description="recurrent layers")


class RecurrentEncoder(SequenceEncoder):
    """Items through recurrent layers, and back to the items' dimension.

    Args:
        num_items: Of the catalogue.
        config: The shape.
        cell: Of the layers.
    """

    def __init__(self, num_items: int, config: RecurrentConfig, cell: Literal["gru", "lstm"]) -> None:
        super().__init__(num_items, config.dim)
        kind = nn.GRU if cell == "gru" else nn.LSTM
        self.recurrent = kind(config.dim, config.hidden, config.num_layers)
        self.out = Linear(config.hidden, config.dim)
        self.drop = ByteDropout(config.dropout)
        for name, weight in self.recurrent.named_parameters():
            if not weight.is_meta:
                nn.init.xavier_uniform_(weight) if "weight" in name else nn.init.zeros_(weight)

    def forward(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """See `SequenceEncoder`."""
        length_B = batch.length_B.cpu().numpy()
        sequence_V = torch.repeat_interleave(batch.length_B)
        nums = _alike(length_B)
        tokens = np.add.reduceat(length_B, np.cumsum(nums) - nums).tolist()
        value_VD, first, found = self.drop(self.items(item_V)), 0, []
        for num, value, step, sequence in zip(
            nums.tolist(),
            *(torch.split(part, tokens) for part in (value_VD, batch.steps(), sequence_V)),
            strict=True,
        ):
            longest = int(length_B[first])
            place = step * num + sequence - first
            beside = value.new_zeros(longest * num, value.shape[1]).index_copy(0, place, value)
            state, _ = self.recurrent(beside.view(longest, num, -1))
            found.append(state.flatten(0, 1).index_select(0, place))
            first += num
        return self.out(torch.cat(found))  # type: ignore[no-any-return]


def _alike(length_B: Int64) -> Int64:
    """How many sequences, longest first, go through the layers together: those of over half the length of the longest.

    At least some do, as products of a few rows take as long. Torch's own packed sequences take time that grows with the
    square of the length in the way back.
    """
    nums, first = [], 0
    while first < len(length_B):
        alike = int(np.searchsorted(-length_B[first:], -length_B[first] / 2))
        nums.append(min(max(alike, _LEAST_TOGETHER), len(length_B) - first))
        first += nums[-1]
    return np.array(nums, np.int64)


class Gru4Rec(NextItemModel):
    """A gated recurrent unit over the history."""

    kind: ClassVar[str] = "gru4rec"
    Config: ClassVar[type[Strict]] = RecurrentConfig

    @classmethod
    def make_encoder(cls, num_items: int, config: RecurrentConfig) -> SequenceEncoder:
        """See `SequenceModel`."""
        return RecurrentEncoder(num_items, config, "gru")


class LstmSessions(NextItemModel):
    """Long short-term memory over the history [Hochreiter & Schmidhuber 1997]."""

    kind: ClassVar[str] = "lstm"
    Config: ClassVar[type[Strict]] = RecurrentConfig

    @classmethod
    def make_encoder(cls, num_items: int, config: RecurrentConfig) -> SequenceEncoder:
        """See `SequenceModel`."""
        return RecurrentEncoder(num_items, config, "lstm")
