"""What many people took: of all time, lately, and within a segment such as a tag.

Serves whoever has no history, and is the baseline that every model must beat.

Shape letters: N interactions, I catalogue, S segments.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from pydantic import Field

from tastemaker.config import Strict
from tastemaker.errors import CompatibilityError
from tastemaker.types import Float32, Int32, Int64

_DAY_MS = 86_400_000.0


class PopularityConfig(Strict):
    """What a popularity model is, beside its counts."""

    num_items: int = Field(ge=1, description="items of the catalogue")
    trend_half_life_days: float = Field(
        30.0, gt=0, description="age at which an interaction counts half in trending"
    )
    as_of_ms: int = Field(0, ge=0, description="time to which trending was decayed: the newest interaction")
    segments: tuple[str, ...] = Field((), description="names of segments, key=value of a request's context")


class Popularity:
    """Counts per item, of all time and decayed to `as_of_ms`, with each segment's items."""

    def __init__(
        self, config: PopularityConfig, counts_I: Float32, trending_I: Float32, members_SI: np.ndarray
    ) -> None:
        expected = (config.num_items,), (config.num_items,), (len(config.segments), config.num_items)
        if (counts_I.shape, trending_I.shape, members_SI.shape) != expected:
            raise CompatibilityError(
                "popularity counts", value=(counts_I.shape, trending_I.shape, members_SI.shape),
                limit=expected,
                mend="use the counts that were fitted with this config",
            )  # fmt: skip
        self.config = config
        self.counts_I: Float32 = counts_I.astype(np.float32, copy=False)
        self.trending_I: Float32 = trending_I.astype(np.float32, copy=False)
        self.members_SI = members_SI.astype(bool, copy=False)
        self._row = {name: row for row, name in enumerate(config.segments)}
        self._popular_I = _unit(self.counts_I)
        self._lately_I: Float32 = (_unit(self.trending_I) + self._popular_I) * np.float32(0.5)

    def popular(self) -> Float32:
        """Scores (I,) in 0..1: the share of the most popular item's count."""
        return self._popular_I

    def trending(self) -> Float32:
        """Scores (I,) in 0..1: half decayed count, half count of all time, each as a share of the largest.

        The second half keeps a catalogue with few recent events from resting on a handful of them.
        """
        return self._lately_I

    def in_context(self, context: Mapping[str, str]) -> Float32:
        """Trending scores (I,), raised by 1 for items in a segment that the context names.

        Names of no known segment are ignored.
        """
        rows = [self._row[name] for key, value in context.items() if (name := f"{key}={value}") in self._row]
        if not rows:
            return self._lately_I
        raised_I: Float32 = self._lately_I + self.members_SI[rows].any(axis=0).astype(np.float32)
        return raised_I

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """Counts, decayed counts and segment membership (0 or 1)."""
        members = self.members_SI.astype(np.uint8)
        return {"counts": self.counts_I, "trending": self.trending_I, "members": members}

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe.

        Raises:
            CompatibilityError: Config and counts are of different catalogues.
        """
        parsed = PopularityConfig.parse(config, "popularity model")
        return cls(parsed, tensors["counts"], tensors["trending"], tensors["members"])


def _unit(count_I: Float32) -> Float32:
    largest = float(count_I.max(initial=0.0))
    share_I: Float32 = count_I / np.float32(largest or 1.0)
    return share_I


def fit_popularity(
    item_index: Int32,
    timestamp_ms: Int64,
    num_items: int,
    *,
    tags: Sequence[Sequence[str]] | None = None,
    trend_half_life_days: float = 30.0,
) -> Popularity:
    """Popularity of N interactions.

    Args:
        item_index: Rows of items, (N,).
        timestamp_ms: When, (N,); trending is as of the newest of them.
        num_items: Items of the catalogue.
        tags: Tags per item; each tag becomes the segment `tag=…`.
        trend_half_life_days: See `PopularityConfig`.
    """
    as_of_ms = int(timestamp_ms.max(initial=0))
    decay_N = np.exp2((timestamp_ms - as_of_ms) / (trend_half_life_days * _DAY_MS))
    names = sorted({tag for item_tags in tags or () for tag in item_tags})
    row = {name: at for at, name in enumerate(names)}
    members_SI = np.zeros((len(names), num_items), bool)
    for item, item_tags in enumerate(tags or ()):
        members_SI[[row[tag] for tag in item_tags], item] = True
    config = PopularityConfig(
        num_items=num_items, trend_half_life_days=trend_half_life_days, as_of_ms=as_of_ms,
        segments=tuple(f"tag={name}" for name in names),
    )  # fmt: skip
    return Popularity(
        config,
        np.bincount(item_index, minlength=num_items).astype(np.float32),
        np.bincount(item_index, decay_N, num_items).astype(np.float32),
        members_SI,
    )
