"""Sequences of unequal length in one batch, laid end to end, so that no arithmetic is spent on padding.

Layers that read one token at a time see the tokens alone. Attention needs sequences side by side: the longest lie first, so
that those of one length follow each other and are seen side by side where they lie.

Shape letters: V tokens, B sequences, G sequences of a group, L their length, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tastemaker.types import Int32, Int64


@dataclass(frozen=True, slots=True)
class Group:
    """`num` sequences of `length` tokens each, one behind the other."""

    num: int
    length: int


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A batch of sequences, none empty, the longest first.

    `token_V` says where each token lies in the flat array that it was packed from, `age_V` how many of its sequence are
    newer; `sequence_B` which of the given sequences each is.
    """

    token_V: Tensor
    age_V: Tensor
    length_B: Tensor
    last_B: Tensor
    sequence_B: Int64
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, begin_B: Int64, length_B: Int64, device: torch.device | str = "cpu") -> "TokenBatch":
        """Ranges of a flat array as a batch; lengths are above 0."""
        sequence_B = np.argsort(-length_B, kind="stable")
        begin_B, length_B = begin_B[sequence_B], length_B[sequence_B]
        first_B = np.cumsum(length_B) - length_B
        step_V = np.arange(int(length_B.sum())) - np.repeat(first_B, length_B)
        parts = (
            np.repeat(begin_B, length_B) + step_V,
            np.repeat(length_B, length_B) - 1 - step_V,
            length_B,
            first_B + length_B - 1,
        )
        token_V, age_V, lengths, last_B = (torch.from_numpy(part).to(device) for part in parts)
        return cls(token_V, age_V, lengths, last_B, sequence_B, _groups(length_B))

    def steps(self) -> Tensor:
        """(V,) how many of its sequence are older than each token."""
        return torch.repeat_interleave(self.length_B, self.length_B) - 1 - self.age_V

    def grouped(self, value_VD: Tensor) -> list[Tensor]:
        """Each group's part (G, L, D) of what tokens have."""
        parts = torch.split(value_VD, [group.num * group.length for group in self.groups])
        return [
            part.view(group.num, group.length, -1) for part, group in zip(parts, self.groups, strict=True)
        ]


def pack(
    histories: Sequence[Int32], max_length: int, device: torch.device | str = "cpu"
) -> tuple[Int32, TokenBatch]:
    """The newest items of histories, none empty, as one flat array and the batch that lies in it."""
    newest = [history_L[-max_length:] for history_L in histories]
    length_B = np.array([len(history_L) for history_L in newest], np.int64)
    return np.concatenate(newest), TokenBatch.of(np.cumsum(length_B) - length_B, length_B, device)


def _groups(length_B: Int64) -> tuple[Group, ...]:
    """Groups of sequences that are sorted by length, longest first."""
    length_G, num_G = np.unique(length_B, return_counts=True)
    return tuple(
        Group(num, length) for num, length in zip(num_G[::-1].tolist(), length_G[::-1].tolist(), strict=True)
    )
