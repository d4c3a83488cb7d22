"""Baselines that are the same for everybody: what was taken most often, what lately, and what with a weight that decays.

They are MostPop, RecentPop and DecayPop of [Ji, Sun, Zhang, Li 2020, A Re-visit of the Popularity Baseline in Recommender Systems].
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.models.log import Askers, Log
from tastemaker.models.popularity import fit_popularity
from tastemaker.models.recommender import Recommender
from tastemaker.strict import Strict
from tastemaker.types import Float32

_DAY_MS = 86_400_000


class PopularConfig(Strict):
    """Nothing to set."""


class RecentConfig(Strict):
    """How far back it looks."""

    days: float = Field(30.0, gt=0, description="before the newest row of the log")


class TrendingConfig(Strict):
    """How fast the past is forgotten."""

    half_life_days: float = Field(30.0, gt=0, description="age at which a row counts half")


class _Everybody(Recommender):
    """One score for each item, whoever asks."""

    needs_history = False

    def __init__(self, config: Strict, score_I: Float32) -> None:
        self.config, self.num_items = config, len(score_I)
        self._score_I = score_I

    def scores(self, askers: Askers) -> Float32:
        """See `Recommender.scores`."""
        return np.tile(self._score_I, (len(askers), 1))

    def tensors(self) -> dict[str, np.ndarray]:
        """See `Recommender.tensors`."""
        return {"scores": self._score_I}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Recommender.from_state`."""
        score_I = tensors["scores"]
        if score_I.ndim != 1:
            raise CompatibilityError("scores of a baseline", value=score_I.shape, limit="(items,)")
        return cls(cls.Config.parse(config, f"model {cls.kind}"), score_I)


class Popular(_Everybody):
    """How often each item was taken."""

    kind = "popular"
    Config: ClassVar[type[Strict]] = PopularConfig

    @classmethod
    def fit(cls, log: Log, config: PopularConfig) -> Self:
        """See `Recommender.fit`."""
        return cls(config, np.bincount(log.item_N, minlength=log.num_items).astype(np.float32))


class Recent(_Everybody):
    """How often each item was taken in the last days; of those that were not, the more popular of all time comes first."""

    kind = "recent"
    Config: ClassVar[type[Strict]] = RecentConfig

    @classmethod
    def fit(cls, log: Log, config: RecentConfig) -> Self:
        """See `Recommender.fit`."""
        count_I = np.bincount(log.item_N, minlength=log.num_items)
        since_ms = log.timestamp_ms_N.max(initial=0) - config.days * _DAY_MS
        lately_I = np.bincount(log.item_N[log.timestamp_ms_N >= since_ms], minlength=log.num_items)
        return cls(config, (lately_I + count_I / (count_I.sum() + 1)).astype(np.float32))


class Trending(_Everybody):
    """How often each item was taken, what is a half-life older counting half."""

    kind = "trending"
    Config: ClassVar[type[Strict]] = TrendingConfig

    @classmethod
    def fit(cls, log: Log, config: TrendingConfig) -> Self:
        """See `Recommender.fit`."""
        found = fit_popularity(
            log.item_N, log.timestamp_ms_N, log.num_items, trend_half_life_days=config.half_life_days
        )
        return cls(config, found.trending_I)
