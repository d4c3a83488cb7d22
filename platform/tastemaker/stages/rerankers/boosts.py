"""What raises items whoever asks: that they are new, or that few have taken them.

Shape letters: K candidates, I catalogue.
"""

import numpy as np
from pydantic import Field

from tastemaker.features.traits import ItemTraits
from tastemaker.strict import Strict
from tastemaker.types import Float64, Int32

_DAY_MS = 86_400_000.0


class FreshnessConfig(Strict):
    """What it is worth to be a new release; in relevance, which is 1 for the best candidate and 0 for the head's last."""

    strength: float = Field(0.1, ge=0, le=1, description="added to what comes to be at this moment")
    half_life_days: float = Field(14.0, gt=0, description="age at which half of it is left")


class LongTailConfig(Strict):
    """What it is worth to be known to few; in relevance."""

    strength: float = Field(
        0.05, ge=0, le=1, description="added to what nobody took; nothing to what most took"
    )


def freshness(traits: ItemTraits, rows_K: Int32, now_ms: int, config: FreshnessConfig) -> Float64:
    """What each item (K,) gains: strength * 2 ** (-age / half-life), 0 where its age is unknown."""
    age_days_K = np.maximum(now_ms - traits.created_ms_I[rows_K], 0) / _DAY_MS
    gain_K: Float64 = np.nan_to_num(config.strength * np.exp2(-age_days_K / config.half_life_days), nan=0.0)
    return gain_K


def long_tail(traits: ItemTraits, rows_K: Int32, config: LongTailConfig) -> Float64:
    """What each item (K,) gains: strength times the share of the catalogue that was taken at least as often."""
    gain_K: Float64 = config.strength * (1.0 - traits.num_less[rows_K] / len(traits))
    return gain_K
