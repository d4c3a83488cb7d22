"""What an encoder of sequences gives, whatever stands inside: a state for each token, from the same table that is scored by.

Shape letters: V tokens, B sequences, D dimension, I items.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from tastemaker.models.sequence.token_batch import TokenBatch

INIT_STD = 0.02


class SequenceEncoder(nn.Module, ABC):
    """States of tokens. Inference is thread-safe.

    Args:
        num_items: I.
        dim: D.
    """

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__()
        self.items = nn.Embedding(num_items, dim, _weight=_drawn(num_items, dim))

    @abstractmethod
    def forward(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """States (V, D) of all tokens; `item_V` is the item of each."""

    def last(self, item_V: Tensor, batch: TokenBatch) -> Tensor:
        """States (B, D) of each sequence's newest token, in the batch's order."""
        return self.forward(item_V, batch)[batch.last_B]

    def item_table(self) -> Tensor:
        """(I, D) what states are multiplied by."""
        return self.items.weight


def _drawn(num_rows: int, dim: int) -> Tensor:
    """A table's first values; on the device meta nothing is drawn, for which torch would import its compiler."""
    table = torch.empty(num_rows, dim)
    return table if table.is_meta else table.normal_(std=INIT_STD)


def draw_weights(module: nn.Module) -> None:
    """Linear layers start normal with the tables' deviation and without offsets."""
    if isinstance(module, nn.Linear) and not module.weight.is_meta:
        nn.init.normal_(module.weight, std=INIT_STD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
