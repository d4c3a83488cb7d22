"""What comes behind all others, whatever its relevance: repeated titles, and what was shown as often as it may be.

Shape letters: K candidates.
"""

from typing import Literal

import numpy as np
from pydantic import Field

from tastemaker.features.user_state import state_in
from tastemaker.stages.rerankers.seen import RerankingItems
from tastemaker.stages.signals import RowOf
from tastemaker.strict import Strict
from tastemaker.types import Bool, Int32, Int64, Query

_DAY_MS = 86_400_000.0


class DedupeConfig(Strict):
    """Which items say the same: the best of them stays, the others come behind."""

    by: tuple[Literal["title", "franchise"], ...] = Field(
        ("title",), min_length=1, description="equal titles but for case and blanks; one franchise"
    )


class FrequencyCapConfig(Strict):
    """How often a user is shown an item that they do not take."""

    most: int = Field(5, ge=1, le=1000, description="impressions; one a week before the last counts a third")
    window_days: float = Field(
        7.0, gt=0, le=365, description="since the last impression; then the item is free again"
    )


def repeats(items: RerankingItems, rows_K: Int32, config: DedupeConfig) -> Bool:
    """Which candidates (K, best first) say what one before them says."""
    repeats_K: Bool = np.zeros(len(rows_K), bool)
    if items.traits is None:
        return repeats_K
    if "franchise" in config.by:
        franchise_K = items.franchise(rows_K).astype(np.int64)
        repeats_K |= _later(franchise_K) & (franchise_K >= 0)
    if "title" in config.by:
        repeats_K |= _later(items.traits.title_key_I[rows_K])
    return repeats_K


def _later(key_K: Int64) -> Bool:
    later_K: Bool = np.ones(len(key_K), bool)
    later_K[np.unique(key_K, return_index=True)[1]] = False
    return later_K


def over_cap(query: Query, rows_K: Int32, row_of: RowOf, config: FrequencyCapConfig) -> Bool | None:
    """Which candidates (K,) the user was shown as often as they may be; None where none was.

    Items of the history were taken, and have no cap.

    Raises:
        CompatibilityError: The user's record is of another release.
    """
    if not query.record:
        return None
    since_ms = query.now_ms - config.window_days * _DAY_MS
    full = {
        row
        for item_id, shown in state_in(query.record).shown.items()
        if shown.last_ms > since_ms
        and round(shown.times) >= config.most
        and (row := row_of(item_id)) is not None
    }
    full -= set(query.history_L.tolist())
    if not full:
        return None
    over_K: Bool = np.fromiter((row in full for row in rows_K.tolist()), bool, len(rows_K))
    return over_K if over_K.any() else None
