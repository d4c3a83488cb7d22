"""Items that people put at a place. They are the last word: nothing moves a pinned item.

Shape letters: K candidates, S sources.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tastemaker.stages.business_rules import Pin
from tastemaker.stages.filtering import permitted
from tastemaker.stages.matching import ItemMatcher
from tastemaker.types import Candidates, Int32, Query


def pinned(query: Query, slate: Candidates, matcher: ItemMatcher, pins: Sequence[Pin]) -> Candidates:
    """The slate with the pinned items at their ranks; others keep their order around them.

    Their source masks say that they are pinned, see `overlay.PINNED`. An item named by id that the slate lacks is added, unless
    a hard rule forbids it; it has no other source, the slate's lowest score, and no features, so that the answer has none. Of pins that want one place the first has it, the next the place
    behind. A place beyond the list is its end.
    """
    if not pins:
        return slate
    found = [_found(query, slate, matcher, pin) for pin in pins]
    rows = np.concatenate(found)
    slate = _with(slate, rows[~np.isin(rows, slate.item_index)])
    place_of = {row: place for place, row in enumerate(slate.item_index.tolist())}
    fixed: dict[int, int] = {}
    for pin, mine in zip(pins, found, strict=True):
        rank = pin.rank - 1
        for row in mine.tolist():
            if place_of[row] in fixed.values():
                continue
            while rank in fixed:
                rank += 1
            fixed[rank] = place_of[row]
    return _at(slate, fixed)


def _found(query: Query, slate: Candidates, matcher: ItemMatcher, pin: Pin) -> Int32:
    """Rows that a pin is about, at most as many as it places."""
    if pin.match.item_ids:
        named = matcher.rows(pin.match)
        found = named[matcher.among(pin.match, named, query.now_ms) & permitted(query, named)]
    else:
        found = slate.item_index[matcher.among(pin.match, slate.item_index, query.now_ms)]
    return found[: pin.most]


def _with(slate: Candidates, rows: Int32) -> Candidates:
    if not len(rows):
        return slate
    rows, num = np.unique(rows).astype(np.int32), len(np.unique(rows))
    score_KS = np.full((num, slate.source_score_KS.shape[1]), np.nan, np.float32)
    lowest = np.full(num, slate.score.min(initial=np.inf) if len(slate) else 0.0, np.float32)
    both = slate.and_then(Candidates(rows, lowest, np.zeros(num, np.uint32), score_KS))
    if slate.propensity is None:
        return both
    return replace(both, propensity=np.concatenate([slate.propensity, np.ones(num, np.float32)]))


def _at(slate: Candidates, fixed: dict[int, int]) -> Candidates:
    """The candidates, those of `fixed` (place among them by rank) at their ranks."""
    others = iter(np.delete(np.arange(len(slate)), list(fixed.values())).tolist())
    order = [fixed[rank] if rank in fixed else next(others, -1) for rank in range(len(slate))]
    order = [place for place in order if place >= 0] + [fixed[r] for r in sorted(fixed) if r >= len(slate)]
    moved = slate.take(order)
    is_pinned = np.isin(order, list(fixed.values()))
    moved.source_mask[is_pinned] |= np.uint32(1 << (slate.source_score_KS.shape[1] + 1))
    if moved.propensity is not None:
        moved.propensity[is_pinned] = 1.0
    return moved
