"""Fair exposure: groups of items that get at least a stated share of the places, however far down one looks.

Shape letters: N candidates, M head that is reordered.
"""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from tastemaker.config import Strict
from tastemaker.stages.matching import ItemMatcher, Match
from tastemaker.stages.rerankers.seen import Seen, with_rest
from tastemaker.types import Bool, Int64, Query


class Floor(Strict):
    """A group's least share."""

    match: Match = Field(description="the group, for example items that few took")
    share: float = Field(gt=0, le=1, description="of the places, at least")


class ExposureConfig(Strict):
    """Least shares of exposure [Geyik et al. 2019, Alg. 1, the lower bounds]."""

    floors: tuple[Floor, ...] = Field(
        min_length=1, max_length=20, description="groups; an item may be of several"
    )
    head: int = Field(100, ge=1, le=500, description="best-ranked candidates that may come up")


def exposure(query: Query, seen: Seen, matcher: ItemMatcher, config: ExposureConfig) -> Int64:
    """The order (N,) of the list under the floors."""
    rows_M = seen.rows_N[: config.head]
    masks = [matcher.among(floor.match, rows_M, query.now_ms) for floor in config.floors]
    head_M = floored([floor.share for floor in config.floors], masks, seen.keep_top)
    return with_rest(head_M, len(seen))


def floored(shares: Sequence[float], group_M: Sequence[Bool], keep_top: int) -> Int64:
    """The order (M,) in which of the first n places at least floor(share * n) go to each group, for every n.

    A place whose group would fall short goes to the best of that group, of several the one that lacks most; else to the best
    of all. A group without items left lacks nothing. The first `keep_top` stay, and what they lack is made up behind them.

    >>> floored([0.5], [np.array([False, False, False, True, True])], keep_top=0).tolist()
    [0, 3, 1, 4, 2]
    """
    waiting = [[place for place, is_of in enumerate(mask.tolist()) if is_of] for mask in group_M]
    num = len(group_M[0])
    left = np.ones(num, bool)
    counts = [0] * len(shares)
    order = []
    for n in range(1, num + 1):
        lacking = {
            g: missing
            for g, share in enumerate(shares)
            if (missing := math.floor(share * n + 1e-9) - counts[g]) > 0 and waiting[g]
        }
        best = int(left.argmax())
        if n > keep_top and lacking:
            best = waiting[max(lacking, key=lacking.__getitem__)][0]
        order.append(best)
        left[best] = False
        for g, mine in enumerate(waiting):
            if group_M[g][best]:
                counts[g] += 1
                mine.remove(best)
    return np.array(order, np.int64)
