"""SASRec [Kang & McAuley 2018]: self-attention that looks back, one next item for each token.

Its loss makes it SASRec (`bce`, one negative), gSASRec (`bce`, many, calibrated [Petrov & Macdonald 2023]) or SASRec with
cross-entropy (`softmax` [Klenitskiy & Vasilev 2023]).

Shape letters: V tokens, B sequences, L longest history, D dimension.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from tastemaker.models.dropping import ByteDropout
from tastemaker.models.sequence.attention import Block
from tastemaker.models.sequence.encoder import INIT_STD, SequenceEncoder, draw_weights
from tastemaker.models.sequence.model import NextItemModel, SequenceConfig
from tastemaker.models.sequence.token_batch import TokenBatch
from tastemaker.strict import Strict


class AttentionConfig(SequenceConfig):
    """Shape of a model of attention."""

    LATER: ClassVar = frozenset({"places"})

    num_blocks: int = Field(2, ge=1, description="blocks of attention and feed-forward layer")
    num_heads: int = Field(1, ge=1, description="heads of the attention")
    hidden: int | None = Field(None, ge=1, description="width of the feed-forward layer; empty: dim")
    places: Literal["from_newest", "from_oldest"] = Field(
        "from_newest", description="end of what is read from which items' places are counted"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError(f"dim that is a multiple of num_heads, {self.num_heads}")
        return self


class SasRecEncoder(SequenceEncoder):
    """Items and their places, through blocks that look back.

    Args:
        num_items: Of the catalogue.
        config: The shape.
    """

    def __init__(self, num_items: int, config: AttentionConfig) -> None:
        super().__init__(num_items, config.dim)
        self.ages = nn.Embedding(config.max_length, config.dim)
        hidden = config.hidden or config.dim
        self.blocks = nn.ModuleList(
            Block(config.dim, config.num_heads, hidden, config.dropout) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(config.dim)
        self.drop = ByteDropout(config.dropout)
        self._scale, self._from_newest = config.dim**0.5, config.places == "from_newest"
        self.apply(draw_weights)
        if not self.ages.weight.is_meta:
            nn.init.normal_(self.ages.weight, std=INIT_STD)

    def forward(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """See `SequenceEncoder`."""
        value_VD = self._read(item_V, batch)
        for block in self.blocks:
            value_VD = block(value_VD, batch)
        return self.norm(value_VD)  # type: ignore[no-any-return]

    def last(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """See `SequenceEncoder`."""
        *blocks, final = self.blocks
        value_VD = self._read(item_V, batch)
        for block in blocks:
            value_VD = block(value_VD, batch)
        assert isinstance(final, Block)
        return self.norm(final.last(value_VD, batch))  # type: ignore[no-any-return]

    def _read(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        place_V = batch.age_V if self._from_newest else batch.steps()
        return self.drop(self.items(item_V) * self._scale + self.ages(place_V))  # type: ignore[no-any-return]


class SasRec(NextItemModel):
    """Scores are products of the newest token's state and the items."""

    kind: ClassVar[str] = "sasrec"
    Config: ClassVar[type[Strict]] = AttentionConfig

    @classmethod
    def make_encoder(cls, num_items: int, config: AttentionConfig) -> SequenceEncoder:
        """See `SequenceModel`."""
        return SasRecEncoder(num_items, config)
