"""Impression fatigue: what a user was shown often and did not take sinks, a little with each time.

How often an item was shown is a decayed count of the user's record, see `features.user_state.Shown`: it fades within weeks,
and the item rises again.

Shape letters: K candidates.
"""

import numpy as np
from pydantic import Field

from tastemaker.features.user_state import state_in
from tastemaker.stages.signals import RowOf
from tastemaker.strict import Strict
from tastemaker.types import Float64, Int32, Query


class FatigueConfig(Strict):
    """What it costs to have been shown; in relevance, which is 1 for the best candidate and 0 for the last of the head."""

    free: float = Field(
        2.0, ge=0, description="impressions that cost nothing; one of a week ago counts a third"
    )
    strength: float = Field(0.05, ge=0, le=1, description="relevance that each further impression costs")
    most: float = Field(0.5, ge=0, le=1, description="most relevance that impressions cost")


def fatigue(query: Query, item_index: Int32, row_of: RowOf, config: FatigueConfig) -> Float64 | None:
    """What the user's impressions cost each candidate, (K,); None where they cost nothing.

    That is strength * (times shown - free), from 0 to `most`. Items of the history were taken, and cost nothing.

    Args:
        query: Whose record counts; without one, nothing was shown.
        item_index: The candidates', (K,).
        row_of: Of the catalogue of `item_index`.
        config: See there.

    Raises:
        CompatibilityError: The record is of another release.
    """
    if not query.record:
        return None
    costs = {
        row: cost
        for item_id, shown in state_in(query.record).shown.items()
        if shown.times > config.free  # which only falls with time
        and (cost := config.strength * (shown.at(query.now_ms) - config.free)) > 0
        and (row := row_of(item_id)) is not None
    }
    for row in query.history_L.tolist():
        costs.pop(row, None)
    if not costs:
        return None
    cost_K = np.array([costs.get(row, 0.0) for row in item_index.tolist()], np.float64)
    return np.minimum(cost_K, config.most) if cost_K.any() else None
