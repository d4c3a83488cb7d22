"""Fair exposure: groups of items that get at least, or at most, a stated share of the places, however far down one looks.

Shape letters: N candidates, M head that is reordered.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from tastemaker.stages.matching import ItemMatcher, Match
from tastemaker.stages.rerankers.seen import Seen, with_rest
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int64, Query

_ROUNDING = 1e-9
"""Of a share times a number of places: 0.07 * 100 is no more than 7."""


class Floor(Strict):
    """A group's least share."""

    match: Match = Field(description="the group, for example items that few took")
    share: float = Field(gt=0, le=1, description="of the places, at least")


class Ceiling(Strict):
    """A group's greatest share."""

    match: Match = Field(description="the group, for example what is sponsored")
    share: float = Field(ge=0, lt=1, description="of the places, at most; 0 puts the group behind all others")


class ExposureConfig(Strict):
    """Least and greatest shares of exposure [Geyik et al. 2019, Alg. 1]."""

    floors: tuple[Floor, ...] = Field(
        (), max_length=20, description="groups with a least share; an item may be of several"
    )
    ceilings: tuple[Ceiling, ...] = Field(
        (), max_length=20, description="groups with a greatest share; where a floor asks for more, it holds"
    )
    head: int = Field(100, ge=1, le=500, description="best-ranked candidates that may come up")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not (self.floors or self.ceilings):
            raise ValueError("at least one floor or ceiling")
        return self


class Group(NamedTuple):
    """Which of the candidates (M,) are of a group, and its share."""

    share: float
    member_M: Bool

    def least(self, num: int) -> int:
        """Of the first `num` places, by a floor."""
        return math.floor(self.share * num + _ROUNDING)

    def most(self, num: int) -> int:
        """Of the first `num` places, by a ceiling."""
        return math.ceil(self.share * num - _ROUNDING)


def exposure(query: Query, seen: Seen, matcher: ItemMatcher, config: ExposureConfig) -> Int64:
    """The order (N,) of the list under the floors and ceilings."""
    rows_M = seen.rows_N[: config.head]
    floors, ceilings = (
        [Group(bound.share, matcher.among(bound.match, rows_M, query.now_ms)) for bound in bounds]
        for bounds in (config.floors, config.ceilings)
    )
    return with_rest(shared_out(len(rows_M), floors, ceilings, seen.keep_top), len(seen))


def shared_out(num: int, floors: Sequence[Group], ceilings: Sequence[Group], keep_top: int) -> Int64:
    """The order (M,) under the bounds of the groups, in whatever first places.

    Of the first n places, for every n, at least floor(share * n) go to a group with a floor, and at most ceil(share * n) to one
    with a ceiling.

    A place at which a group would fall short goes to the best of that group, of several the one that lacks most; else to the
    best of all, those of full groups left out. Full groups get a place where nothing else is left for it, and a group without
    items left lacks nothing. The first `keep_top` stay; what they lack or have too much of is made up behind them.

    Args:
        num: Candidates, M.
        floors: Groups with a least share.
        ceilings: Groups with a greatest share.
        keep_top: First places that stay.

    >>> last_two, first_two = np.array([0, 0, 0, 1, 1], bool), np.array([1, 1, 0, 0, 0], bool)
    >>> shared_out(5, [Group(0.5, last_two)], [], keep_top=0).tolist()
    [0, 3, 1, 4, 2]
    >>> shared_out(5, [], [Group(0.25, first_two)], keep_top=0).tolist()  # one of the first four
    [0, 2, 3, 4, 1]
    """
    left_M = np.ones(num, bool)
    floor_counts, ceiling_counts = [0] * len(floors), [0] * len(ceilings)
    order = []
    for n in range(1, num + 1):
        best = int(left_M.argmax())
        if n > keep_top:
            short = [group.least(n) - count for group, count in zip(floors, floor_counts, strict=True)]
            full = [g for g, group in enumerate(ceilings) if ceiling_counts[g] >= group.most(n)]
            best = _best(left_M, floors, short, [ceilings[g].member_M for g in full])
        order.append(best)
        left_M[best] = False
        for groups, counts in ((floors, floor_counts), (ceilings, ceiling_counts)):
            for g, group in enumerate(groups):
                counts[g] += int(group.member_M[best])
    return np.array(order, np.int64)


def _best(left_M: Bool, floors: Sequence[Group], short: Sequence[int], full: Sequence[Bool]) -> int:
    """Who comes next of those that are left, where groups lack so many places and other groups are full."""
    free_M = left_M.copy()
    for member_M in full:
        free_M &= ~member_M
    for g in sorted(range(len(floors)), key=lambda g: -short[g]):
        if short[g] <= 0:
            break
        for among_M in (free_M, left_M):
            if (wanted_M := among_M & floors[g].member_M).any():
                return int(wanted_M.argmax())
    return int((free_M if free_M.any() else left_M).argmax())
