"""What many people took: of all time, lately, and within a segment such as a tag.

Serves whoever has no history, and is the baseline that every model must beat.

Segments are of items, such as a tag; groups are of those who took them, such as an age band, a device or a time of day.

Shape letters: N interactions, I catalogue, S segments, G groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

import numpy as np
from pydantic import Field

from tastemaker.errors import CompatibilityError
from tastemaker.features.context import HOURS, hours_of
from tastemaker.models.segments import Segments
from tastemaker.strict import Strict
from tastemaker.types import Float32, Float64, Int32, Int64

_DAY_MS = 86_400_000.0
SEPARATOR: Final = "|"
"""Between several values of one key of a context."""


class PopularityConfig(Strict):
    """What a popularity model is, beside its counts."""

    num_items: int = Field(ge=1, description="items of the catalogue")
    trend_half_life_days: float = Field(
        30.0, gt=0, description="age at which an interaction counts half in trending"
    )
    as_of_ms: int = Field(0, ge=0, description="time to which trending was decayed: the newest interaction")
    segments: tuple[str, ...] = Field((), description="names of segments, key=value of a request's context")
    groups: tuple[str, ...] = Field((), description="names of groups, key=value of a request's context")


class Popularity:
    """Counts per item, of all time and decayed to `as_of_ms`, with each segment's items and each group's shares.

    `segments` may be a matrix (S, I) of where an item is in a segment.
    `group_GI` are shares of the largest in 0..1, as `popular_groups` fits them; unset where the config names no groups.
    """

    def __init__(
        self,
        config: PopularityConfig,
        counts_I: Float32,
        trending_I: Float32,
        segments: Segments | np.ndarray,
        group_GI: Float32 | None = None,
    ) -> None:
        num_items = config.num_items
        group_GI = np.zeros((0, num_items), np.float32) if group_GI is None else group_GI
        expected = (
            (num_items,),
            (num_items,),
            (len(config.segments), num_items),
            (len(config.groups), num_items),
        )
        if isinstance(segments, np.ndarray):
            segments = Segments.from_matrix(segments)
        shapes = (
            counts_I.shape,
            trending_I.shape,
            (len(segments), segments.num_items),
            group_GI.shape,
        )
        if shapes != expected:
            raise CompatibilityError(
                "popularity counts", value=shapes, limit=expected,
                mend="use the counts that were fitted with this config",
            )  # fmt: skip
        self.config = config
        self.counts_I: Float32 = counts_I.astype(np.float32, copy=False)
        self.trending_I: Float32 = trending_I.astype(np.float32, copy=False)
        self.segments = segments
        self.group_GI: Float32 = group_GI.astype(np.float32, copy=False)
        self._row = {name: row for row, name in enumerate(config.segments)}
        self._group_row = {name: row for row, name in enumerate(config.groups)}
        self._has_hours = any(name.startswith(f"{HOURS}=") for name in config.groups)
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

        Where it names groups, half of the score is what is popular among them, before it is raised. Names of no known
        segment or group are ignored; a value may name several, as in `comedy|drama`.
        """
        return self.in_class(self.class_of(context))

    def class_of(self, context: Mapping[str, str]) -> tuple[str, ...]:
        """The known segments and groups that a context names, in order: all that its scores depend on.

        A request's local time names its part of the day.
        """
        named = {f"{key}={value}" for key, values in context.items() for value in values.split(SEPARATOR)}
        if self._has_hours and (hours := hours_of(context)):
            named.add(f"{HOURS}={hours}")
        return tuple(sorted(name for name in named if name in self._group_row or name in self._row))

    def in_class(self, names: Sequence[str]) -> Float32:
        """Scores (I,) in contexts of a class, see `in_context`."""
        return self._scored(slice(None), names)

    def score(self, rows_K: Int32, context: Mapping[str, str]) -> Float32:
        """Scores (K,) of some items, see `in_context`, at the price of these alone."""
        return self._scored(rows_K, self.class_of(context))

    def _scored(self, rows: Int32 | slice, names: Sequence[str]) -> Float32:
        score_K = self._lately_I[rows]
        if groups := [self._group_row[name] for name in names if name in self._group_row]:
            among_K = np.sum([self.group_GI[group][rows] for group in groups], axis=0) / np.float32(
                len(groups)
            )
            score_K = ((score_K + among_K) * np.float32(0.5)).astype(np.float32)
        if segments := [self._row[name] for name in names if name in self._row]:
            is_member_K = self.segments.any_of(segments, None if isinstance(rows, slice) else rows)
            score_K = score_K + is_member_K.astype(np.float32)
        return score_K

    def with_groups(self, names: Sequence[str], group_GI: Float32) -> "Popularity":
        """The same with these groups in place of its own."""
        config = self.config.model_copy(update={"groups": tuple(names)})
        return type(self)(config, self.counts_I, self.trending_I, self.segments, group_GI)

    def padded(self, num_items: int) -> "Popularity":
        """The same with further items, the last the newest, that nobody took and that are in no segment.

        Where nobody took anything the order is that of newness, see `newest_first`, and goes on with them.
        """
        num_more = num_items - self.config.num_items
        counts, trending = (np.pad(count_I, (0, num_more)) for count_I in (self.counts_I, self.trending_I))
        if not self.counts_I.any():
            trending[self.config.num_items :] = trending.max(initial=0) + 1 + np.arange(num_more)
        config = self.config.model_copy(update={"num_items": num_items})
        groups = np.pad(self.group_GI, ((0, 0), (0, num_more)))
        return type(self)(config, counts, trending, self.segments.grown(num_items), groups)

    def config_dict(self) -> dict[str, Any]:
        """What `from_state` needs beside the tensors; JSON."""
        return self.config.model_dump(mode="json")

    def tensors(self) -> dict[str, np.ndarray]:
        """Counts, decayed counts, the segments' items as lists, and groups' shares where there are groups."""
        found: dict[str, np.ndarray] = {
            "counts": self.counts_I,
            "trending": self.trending_I,
            "segment_offsets": self.segments.offsets_S1,
            "segment_rows": self.segments.row_V,
        }
        if self.config.groups:
            found["groups"] = self.group_GI
        return found

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        """The model that `config_dict` and `tensors` describe; segments may lie there as a matrix, as they once did.

        Raises:
            CompatibilityError: Config and counts are of different catalogues.
        """
        parsed = PopularityConfig.parse(config, "popularity model")
        segments: Segments | np.ndarray
        if "members" in tensors:
            segments = tensors["members"]
        else:
            offsets, rows = tensors["segment_offsets"], tensors["segment_rows"]
            segments = Segments(parsed.num_items, offsets, rows)
        return cls(parsed, tensors["counts"], tensors["trending"], segments, tensors.get("groups"))


def _unit(count_I: Float32) -> Float32:
    largest = float(count_I.max(initial=0.0))
    share_I: Float32 = count_I / np.float32(largest or 1.0)
    return share_I


def newest_first(
    created_at_ms: Float64,
    *,
    tags: Sequence[Sequence[str]] | None = None,
    categories: Sequence[str | None] | None = None,
) -> Popularity:
    """The order of a catalogue from which nothing was taken: the newest items first, those of unknown age last.

    Args:
        created_at_ms: When each item came to be, (I,); NaN where unknown.
        tags: See `fit_popularity`.
        categories: See `fit_popularity`.
    """
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    empty = fit_popularity(*nobody, len(created_at_ms), tags=tags, categories=categories)
    known_I = ~np.isnan(created_at_ms)
    place_I = np.zeros(len(created_at_ms), np.float32)
    _, place_I[known_I] = np.unique(created_at_ms[known_I], return_inverse=True)
    place_I[known_I] += 1
    return Popularity(empty.config, empty.counts_I, place_I, empty.segments)


def fit_popularity(
    item_index: Int32,
    timestamp_ms: Int64,
    num_items: int,
    *,
    tags: Sequence[Sequence[str]] | None = None,
    categories: Sequence[str | None] | None = None,
    trend_half_life_days: float = 30.0,
) -> Popularity:
    """Popularity of N interactions.

    Args:
        item_index: Rows of items, (N,).
        timestamp_ms: When, (N,); trending is as of the newest of them.
        num_items: Items of the catalogue.
        tags: Tags per item; each tag becomes the segment `tag=…`.
        categories: The category of each item; each becomes the segment `category=…`.
        trend_half_life_days: See `PopularityConfig`.
    """
    as_of_ms = int(timestamp_ms.max(initial=0))
    decay_N = np.exp2((timestamp_ms - as_of_ms) / (trend_half_life_days * _DAY_MS))
    members: dict[str, list[int]] = {}
    for item, item_tags in enumerate(tags or ()):
        for tag in item_tags:
            members.setdefault(f"tag={tag}", []).append(item)
    for item, category in enumerate(categories or ()):
        if category:
            members.setdefault(f"category={category}", []).append(item)
    names = sorted(members)
    config = PopularityConfig(
        num_items=num_items, trend_half_life_days=trend_half_life_days, as_of_ms=as_of_ms,
        segments=tuple(names),
    )  # fmt: skip
    return Popularity(
        config,
        np.bincount(item_index, minlength=num_items).astype(np.float32),
        np.bincount(item_index, decay_N, num_items).astype(np.float32),
        Segments.of(num_items, [members[name] for name in names]),
    )
