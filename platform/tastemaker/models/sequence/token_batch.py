"""Sequences of unequal length in one batch, laid end to end, so that little arithmetic is spent on padding.

Layers that read one token at a time see the tokens alone. Attention and recurrence need sequences side by side: for these
the tokens are moved to places in groups of like length, and back.

Shape letters: V tokens, B sequences, P places, G sequences of a group, L its length, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tastemaker.types import Int32, Int64

_LEAST_FILLED = 0.75
"""A group's shortest sequence over its longest, at least."""


@dataclass(frozen=True, slots=True)
class Group:
    """`num` sequences side by side, from sequence `first` on, at `length` places each."""

    first: int
    num: int
    length: int


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """A batch of sequences, none empty, the longest first.

    `token_V` says where each token lies in the flat array that it was packed from, `age_V` how many of its sequence are
    newer; `sequence_B` which of the given sequences each is. A padded place holds its sequence's newest token again,
    behind it, where nothing that looks back can see it.
    """

    token_V: Tensor
    age_V: Tensor
    length_B: Tensor
    last_B: Tensor
    sequence_B: Int64
    source_P: Tensor
    place_V: Tensor
    groups: tuple[Group, ...]

    @classmethod
    def of(cls, begin_B: Int64, length_B: Int64, device: torch.device | str = "cpu") -> "TokenBatch":
        """Ranges of a flat array as a batch; lengths are above 0."""
        sequence_B = np.argsort(-length_B, kind="stable")
        begin_B, length_B = begin_B[sequence_B], length_B[sequence_B]
        first_B = np.cumsum(length_B) - length_B
        step_V = np.arange(int(length_B.sum())) - np.repeat(first_B, length_B)
        groups = _groups(length_B)
        width_B = np.repeat([group.length for group in groups], [group.num for group in groups])
        origin_B = np.cumsum(width_B) - width_B
        step_P = np.arange(int(width_B.sum())) - np.repeat(origin_B, width_B)
        source_P = np.repeat(first_B, width_B) + np.minimum(step_P, np.repeat(length_B, width_B) - 1)
        parts = (
            np.repeat(begin_B, length_B) + step_V,
            np.repeat(length_B, length_B) - 1 - step_V,
            length_B,
            first_B + length_B - 1,
        )
        token_V, age_V, lengths, last_B = (torch.from_numpy(part).to(device) for part in parts)
        source, place = (
            torch.from_numpy(part).to(device) for part in (source_P, np.repeat(origin_B, length_B) + step_V)
        )
        return cls(token_V, age_V, lengths, last_B, sequence_B, source, place, groups)

    def side_by_side(self, value_VD: Tensor) -> Tensor:
        """Tokens' values at their places (P, D)."""
        moved: Tensor = _ToPlaces.apply(value_VD, self.source_P, self.place_V)  # type: ignore[no-untyped-call]
        return moved

    def end_to_end(self, value_PD: Tensor) -> Tensor:
        """What stands at the tokens' places (V, D)."""
        moved: Tensor = _FromPlaces.apply(value_PD, self.place_V)  # type: ignore[no-untyped-call]
        return moved

    def grouped(self, value_PD: Tensor) -> list[Tensor]:
        """Each group's part (G, L, D) of what stands at places."""
        parts = torch.split(value_PD, [group.num * group.length for group in self.groups])
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
    groups, first = [], 0
    while first < len(length_B):
        longest = int(length_B[first])
        end = int(np.searchsorted(-length_B, -_LEAST_FILLED * longest, side="right"))
        groups.append(Group(first, end - first, longest))
        first = end
    return tuple(groups)


class _ToPlaces(torch.autograd.Function):
    """Tokens to places. Padded places give no gradient back: nothing that counts has read them."""

    @staticmethod
    def forward(ctx: Any, value_VD: Tensor, source_P: Tensor, place_V: Tensor) -> Tensor:
        ctx.save_for_backward(place_V)
        return value_VD.index_select(0, source_P)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None, None]:
        (place_V,) = ctx.saved_tensors
        return grad[0].index_select(0, place_V), None, None


class _FromPlaces(torch.autograd.Function):
    """Places to tokens; the gradient of padded places is zero."""

    @staticmethod
    def forward(ctx: Any, value_PD: Tensor, place_V: Tensor) -> Tensor:
        ctx.save_for_backward(place_V)
        ctx.num_places = len(value_PD)
        return value_PD.index_select(0, place_V)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        (place_V,) = ctx.saved_tensors
        grad_VD = grad[0]
        grad_PD = grad_VD.new_zeros((ctx.num_places, *grad_VD.shape[1:]))
        return grad_PD.index_copy_(0, place_V, grad_VD), None
