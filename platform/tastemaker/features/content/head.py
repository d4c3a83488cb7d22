"""A head that projects content vectors; what it learns from is not known here (`models.cold.contrastive`).

Shape letters: N items, R raw dimension, H hidden units, D projected dimension.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from tastemaker.errors import CompatibilityError
from tastemaker.features.content.words import unit
from tastemaker.types import Float32

HEAD: Final = ("head.skip", "head.hidden", "head.bias", "head.out")
"""Tensors of a head: (R, D), (R, H), (H,), (H, D)."""


class ProjectionHead:
    """A linear map and a hidden layer beside it: unit(x skip + relu(x hidden + bias) out). Zeros stay zeros.

    Args:
        tensors: Those of `HEAD`, others are passed over.
        raw_dim: R.
        dim: D.
    """

    def __init__(self, tensors: Mapping[str, np.ndarray], raw_dim: int, dim: int) -> None:
        skip_RD, hidden_RH, bias_H, out_HD = (np.asarray(tensors[name], np.float32) for name in HEAD)
        shapes = tuple(part.shape for part in (skip_RD, hidden_RH, bias_H, out_HD))
        if shapes != ((raw_dim, dim), (raw_dim, len(bias_H)), (len(bias_H),), (len(bias_H), dim)):
            raise CompatibilityError(
                "projection head of the content space",
                value=shapes,
                limit=f"from {raw_dim} to {dim}",
                mend="train again",
            )
        self._skip_RD, self._hidden_RH, self._bias_H, self._out_HD = skip_RD, hidden_RH, bias_H, out_HD

    def __call__(self, raw_NR: Float32) -> Float32:
        """Unit vectors (N, D)."""
        hidden_NH = np.maximum(raw_NR @ self._hidden_RH + self._bias_H, 0)
        found_ND = raw_NR @ self._skip_RD + hidden_NH @ self._out_HD
        found_ND[~raw_NR.any(axis=1)] = 0
        return unit(found_ND)
