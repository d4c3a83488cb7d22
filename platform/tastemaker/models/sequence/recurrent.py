"""Models that read a history one item at a time: GRU4Rec [Hidasi et al. 2016] and an LSTM session encoder.

Departures from GRU4Rec: sequences begin anew in each batch instead of running on through it, the loss is chosen like that of
the other models, and items are scored by the table that they are read from [Tan et al. 2016].

Shape letters: V tokens, D dimension, H width of the recurrent state.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from tastemaker.models.sequence.dropping import ByteDropout
from tastemaker.models.sequence.encoder import SequenceEncoder
from tastemaker.models.sequence.model import NextItemModel, SequenceConfig
from tastemaker.models.sequence.token_batch import TokenBatch
from tastemaker.strict import Strict


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
        self.out = nn.Linear(config.hidden, config.dim)
        self.drop = ByteDropout(config.dropout)
        for name, weight in self.recurrent.named_parameters():
            if not weight.is_meta:
                nn.init.xavier_uniform_(weight) if "weight" in name else nn.init.zeros_(weight)

    def forward(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """See `SequenceEncoder`."""
        step_V = torch.repeat_interleave(batch.length_B, batch.length_B) - 1 - batch.age_V
        turn_V = torch.argsort(step_V, stable=True)  # all first tokens, then all second ones
        widths = torch.bincount(step_V).cpu()
        value_VD = self.drop(self.items(item_V))
        found, _ = self.recurrent(PackedSequence(value_VD[turn_V], widths))
        state_VH = torch.empty_like(found.data).index_copy(0, turn_V, found.data)
        return self.out(state_VH)  # type: ignore[no-any-return]


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
