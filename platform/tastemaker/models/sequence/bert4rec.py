"""BERT4Rec [Sun et al. 2019]: attention that looks both ways fills in items that were hidden.

A history is followed by a hidden item, whose state says what comes next. Loss: cross-entropy over the catalogue at the hidden
items. Departure: dropout on attention's output (see `attention`).

Shape letters: V tokens, M hidden tokens, B sequences, L longest history, D dimension, I items.
"""

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.models.dropping import ByteDropout
from tastemaker.models.linear import Linear
from tastemaker.models.sequence.attention import Block
from tastemaker.models.sequence.encoder import INIT_STD, SequenceEncoder, draw_weights
from tastemaker.models.sequence.losses import LossConfig, linear_cross_entropy
from tastemaker.models.sequence.model import SequenceModel
from tastemaker.models.sequence.sasrec import AttentionConfig
from tastemaker.models.sequence.token_batch import TokenBatch, pack
from tastemaker.models.sequence.windows import Windows
from tastemaker.strict import Strict
from tastemaker.types import Int32, Int64


class Bert4RecConfig(AttentionConfig):
    """Shape of BERT4Rec, and how much of a history it hides."""

    hidden_share: float = Field(0.2, gt=0, lt=1, description="share of a window's items that are hidden")
    newest_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of windows of which the newest item alone is hidden, as when asked",
    )
    loss: LossConfig = Field(
        default_factory=LossConfig, description="cross-entropy over the catalogue, no other"
    )

    @model_validator(mode="after")
    def _has_its_loss(self) -> Self:
        if self.loss != LossConfig():
            raise ValueError("without another loss than cross-entropy over the catalogue")
        return self


class Bert4RecEncoder(SequenceEncoder):
    """Items, some of them hidden, and their places, through blocks that look both ways.

    States end in a one and items in an offset of their own, so that a product of the two has that offset.

    Args:
        num_items: Of the catalogue; row I of what is read stands for a hidden item.
        config: The shape.
    """

    def __init__(self, num_items: int, config: Bert4RecConfig) -> None:
        super().__init__(num_items, config.dim)
        dim = config.dim
        self.hidden_item, self.offset = (
            nn.Parameter(torch.empty(1, dim)),
            nn.Parameter(torch.empty(num_items, 1)),
        )
        self.ages = nn.Embedding(config.max_length + 1, dim)
        self._from_newest = config.places == "from_newest"
        self.blocks = nn.ModuleList(
            Block(
                dim,
                config.num_heads,
                config.hidden or 4 * dim,
                config.dropout,
                looks_ahead=True,
                activation="gelu",
            )
            for _ in range(config.num_blocks)
        )
        self.norm, self.out, self.out_norm = nn.LayerNorm(dim), Linear(dim, dim), nn.LayerNorm(dim)
        self.drop = ByteDropout(config.dropout)
        self.apply(draw_weights)
        if not self.offset.is_meta:
            nn.init.normal_(self.ages.weight, std=INIT_STD)
            nn.init.normal_(self.hidden_item, std=INIT_STD)
            nn.init.zeros_(self.offset)

    def item_table(self) -> Tensor:
        """See `SequenceEncoder`: (I, D + 1)."""
        return torch.cat([self.items.weight, self.offset], dim=1)

    def forward(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """See `SequenceEncoder`: (V, D + 1)."""
        return self.read_out(self._through(item_V, batch))

    def last(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """See `SequenceEncoder`."""
        *blocks, final = self.blocks
        value_VD = self._embedded(item_V, batch)
        for block in blocks:
            value_VD = block(value_VD, batch)
        assert isinstance(final, Block)
        return self.read_out(final.last(value_VD, batch))

    def states(self, item_V: Tensor, batch: TokenBatch, token_M: Tensor) -> Tensor:
        """States (M, D + 1) of some tokens."""
        return self.read_out(self._through(item_V, batch)[token_M])

    def read_out(self, value_XD: Tensor) -> Tensor:
        """From what blocks give to states."""
        state_XD = self.out_norm(functional.gelu(self.out(self.norm(value_XD))))
        return functional.pad(state_XD, (0, 1), value=1.0)

    def _through(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        value_VD = self._embedded(item_V, batch)
        for block in self.blocks:
            value_VD = block(value_VD, batch)
        return value_VD

    def _embedded(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        is_hidden_V = item_V == self.items.num_embeddings
        known_VD = self.items(item_V.masked_fill(is_hidden_V, 0))
        value_VD = torch.where(is_hidden_V[:, None], self.hidden_item, known_VD)
        return self.drop(value_VD + self.ages(batch.age_V if self._from_newest else batch.steps()))  # type: ignore[no-any-return]


class Bert4Rec(SequenceModel):
    """Scores are products of the state of a hidden item behind the history and the items."""

    kind: ClassVar[str] = "bert4rec"
    Config: ClassVar[type[Strict]] = Bert4RecConfig
    config: Bert4RecConfig
    encoder: Bert4RecEncoder

    @classmethod
    def make_encoder(cls, num_items: int, config: Bert4RecConfig) -> SequenceEncoder:
        """See `SequenceModel`."""
        return Bert4RecEncoder(num_items, config)

    def loss(self, windows: Windows, rows_B: Int64, generator: np.random.Generator) -> Tensor:
        """See `SequenceModel.loss`."""
        begin_B, length_B = windows.begin_W[rows_B], windows.length_W[rows_B] + 1  # the newest too
        batch = TokenBatch.of(begin_B, length_B, self._device)
        target_V = self._items(windows.item_N, batch.token_V)
        token_M = torch.from_numpy(self._hidden(batch, generator)).to(self._device)
        item_V = target_V.index_fill(0, token_M, self.num_items)
        state_MD = self.encoder.states(item_V, batch, token_M)
        if self.config.fit.precision == "bf16":
            state_MD = state_MD.bfloat16()
        return linear_cross_entropy(state_MD, self.encoder.item_table(), target_V[token_M])

    def _hidden(self, batch: TokenBatch, generator: np.random.Generator) -> Int64:
        """Tokens (M,) to hide, at least one: a share of each window's, or its newest alone."""
        length_B, age_V = batch.length_B.cpu().numpy(), batch.age_V.cpu().numpy()
        newest_alone_V = np.repeat(generator.random(len(length_B)) < self.config.newest_share, length_B)
        drawn_V = generator.random(len(age_V)) < self.config.hidden_share
        token_M = np.flatnonzero(np.where(newest_alone_V, age_V == 0, drawn_V))
        return token_M if len(token_M) else np.array([len(age_V) - 1], np.int64)

    def _packed(self, histories: Sequence[Int32]) -> tuple[Tensor, TokenBatch]:
        hidden = np.array([self.num_items], np.int32)
        asked = [np.concatenate((history_L, hidden)) for history_L in histories]
        flat, batch = pack(asked, self.config.max_length + 1, self._device)
        return self._items(flat, batch.token_V), batch
