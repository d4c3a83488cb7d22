"""Dropout that draws eight units from one random number: on a CPU torch's own draws cost as much as a layer's product."""

import torch
from torch import Tensor, nn

_STEPS = 256


class ByteDropout(nn.Module):
    """Zeroes each unit with probability round(256 p) / 256, at most 255 / 256, and scales the others so that the mean stays.

    Args:
        p: Share of units that are dropped; below 1/512 none are.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        assert 0 <= p <= 1, p
        self._dropped = min(round(p * _STEPS), _STEPS - 1)

    def forward(self, value: Tensor) -> Tensor:
        """The value, as it is where the module does not train."""
        if not self.training or not self._dropped:
            return value
        drawn = torch.empty((value.numel() + 7) // 8, dtype=torch.int64, device=value.device)
        byte = drawn.random_(-(2**63), None).view(torch.uint8)[: value.numel()].view(value.shape)
        scale = _STEPS / (_STEPS - self._dropped)
        # 1 where a byte is `_dropped` or more, else 0: a comparison takes a CPU three times as long.
        stays = byte.to(value.dtype).sub_(self._dropped - 1).clamp_(0, 1)
        return value * stays.mul_(scale)
