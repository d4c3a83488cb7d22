"""Blocks of self-attention over a batch of sequences.

Departure from SASRec and BERT4Rec: dropout falls on what attention gives and not on its weights, which the fused kernel
does not hold.

Shape letters: V tokens, B sequences, G sequences of a group, L their length, H heads, C width of a head, D = H C.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tastemaker.models.dropping import ByteDropout
from tastemaker.models.linear import Linear
from tastemaker.models.sequence.token_batch import TokenBatch


class SelfAttention(nn.Module):
    """Attention among the tokens of a sequence.

    Args:
        dim: D.
        num_heads: H, which divides D.
        looks_ahead: Whether a token sees those that came after it.
    """

    def __init__(self, dim: int, num_heads: int, *, looks_ahead: bool) -> None:
        super().__init__()
        self._dim, self._num_heads, self._looks_ahead = dim, num_heads, looks_ahead
        self.read = Linear(dim, 3 * dim)
        self.out = Linear(dim, dim)

    def forward(self, value_VD: Tensor, batch: TokenBatch) -> Tensor:
        """What all tokens (V, D) gather."""
        found, read_VX = [], _widened(self.read(value_VD))
        with torch.autocast("cpu", enabled=False):
            for read_GLX in batch.grouped(read_VX):
                query, key, value = self._heads(read_GLX).unbind(0)
                gathered_GHLC = functional.scaled_dot_product_attention(
                    query, key, value, is_causal=not self._looks_ahead
                )
                found.append(gathered_GHLC.transpose(1, 2).reshape(-1, self._dim))
        gathered_VD: Tensor = self.out(torch.cat(found))
        return gathered_VD

    def last(self, value_VD: Tensor, batch: TokenBatch) -> Tensor:
        """What each sequence's newest token gathers (B, D)."""
        dim = self._dim
        asks_BD = functional.linear(value_VD[batch.last_B], self.read.weight[:dim], self.read.bias[:dim])
        answers_VX = functional.linear(value_VD, self.read.weight[dim:], self.read.bias[dim:])
        found = []
        asks = torch.split(asks_BD, [group.num for group in batch.groups])
        for asks_GD, answers_GLX in zip(asks, batch.grouped(answers_VX), strict=True):
            key, value = self._heads(answers_GLX).unbind(0)
            (query,) = self._heads(asks_GD[:, None]).unbind(0)
            gathered_GH1C = functional.scaled_dot_product_attention(query, key, value)
            found.append(gathered_GH1C.reshape(-1, dim))
        gathered_BD: Tensor = self.out(torch.cat(found))
        return gathered_BD

    def _heads(self, read_GLX: Tensor) -> Tensor:
        """(X / D, G, H, L, C)."""
        num, length, width = read_GLX.shape
        parts = width // self._dim
        return read_GLX.view(num, length, parts, self._num_heads, -1).permute(2, 0, 3, 1, 4)


def _widened(value: Tensor) -> Tensor:
    """In float32 where a CPU would attend in bfloat16, which takes it half as long again."""
    return value.float() if value.dtype == torch.bfloat16 and value.device.type == "cpu" else value


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)) [Kang & McAuley 2018, Sec. III-B].

    Args:
        dim: D.
        num_heads: Of the attention.
        hidden: Width of the feed-forward layer.
        dropout: Share of units dropped behind attention and within and behind the feed-forward layer.
        looks_ahead: See `SelfAttention`.
        activation: Of the feed-forward layer.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden: int,
        dropout: float,
        *,
        looks_ahead: bool = False,
        activation: Literal["relu", "gelu"] = "relu",
    ) -> None:
        super().__init__()
        self.attention_norm, self.forward_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, num_heads, looks_ahead=looks_ahead)
        self.widen, self.narrow = Linear(dim, hidden), Linear(hidden, dim)
        self.drop = ByteDropout(dropout)
        self._activation = functional.relu if activation == "relu" else functional.gelu

    def forward(self, value_VD: Tensor, batch: TokenBatch) -> Tensor:
        """All tokens (V, D) a block further."""
        return self._fed(value_VD + self.drop(self.attention(self.attention_norm(value_VD), batch)))

    def last(self, value_VD: Tensor, batch: TokenBatch) -> Tensor:
        """The newest tokens (B, D) a block further."""
        gathered_BD = self.attention.last(self.attention_norm(value_VD), batch)
        return self._fed(value_VD[batch.last_B] + self.drop(gathered_BD))

    def _fed(self, value_VD: Tensor) -> Tensor:
        hidden = self.drop(self._activation(self.widen(self.forward_norm(value_VD))))
        fed_VD: Tensor = value_VD + self.drop(self.narrow(hidden))
        return fed_VD
