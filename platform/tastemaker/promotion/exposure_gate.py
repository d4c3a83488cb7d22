"""The gate that looks at who gets seen: the long tail and each category keep their share of the lists, near enough."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from tastemaker.bundle.reader import Bundle
from tastemaker.promotion.compared import compared
from tastemaker.promotion.gate import Case, GateResult, passed_if
from tastemaker.types import Bool, Int64

HEAD: Final = 0.8
FEWEST_SLOTS: Final = 100
"""A group with fewer slots under the champion is not looked at."""
TAIL: Final = "long tail"


def exposure(case: Case) -> GateResult:
    """No group of items loses more than the tolerated part of the share of slots that it has under the champion."""
    name = "exposure"
    found = compared(case)
    if isinstance(found, str):
        return GateResult(name=name, outcome="not applicable", reason=found)
    mine, other = found.ours.exposure, found.theirs.exposure
    if mine is None or other is None:
        why = "the bundles do not keep what they list"
        return GateResult(name=name, outcome="not applicable", reason=why)
    ours, theirs = (_by_item(one, "lists", case.candidate.item_ids) for one in (mine, other))
    groups = {
        group: (ours[rows].sum() / max(ours.sum(), 1), theirs[rows].sum() / theirs.sum())
        for group, rows in _groups(case.candidate, mine).items()
        if theirs[rows].sum() >= FEWEST_SLOTS
    }
    if not groups:
        why = f"no group of items has {FEWEST_SLOTS} slots under the champion"
        return GateResult(name=name, outcome="not applicable", reason=why)
    worst = min(groups, key=lambda group: groups[group][0] / groups[group][1])
    value, champion = (float(share) for share in groups[worst])
    limit = (1 - case.limits.exposure_loss) * champion
    return GateResult(
        name=name,
        outcome=passed_if(value >= limit),
        value=value,
        limit=limit,
        reason=f"worst of {len(groups)}: {worst}, {value:.1%} of the slots; under the champion {champion:.1%}",
        numbers={group: float(mine) for group, (mine, _) in groups.items()},
    )


def is_tail(num_users_I: Int64) -> Bool:
    """(I,) whether an item is outside the short head: the most popular items that have 80% of all users' items.

    The long tail of [Abdollahpouri, Burke & Mobasher 2017].

    >>> is_tail(np.array([1, 8, 1])).tolist()
    [True, False, True]
    """
    order_I = np.argsort(-num_users_I, kind="stable")
    before_I = np.concatenate([[0], np.cumsum(num_users_I[order_I])[:-1]])
    found_I = np.empty(len(num_users_I), bool)
    found_I[order_I] = before_I >= HEAD * num_users_I.sum()
    return found_I


def _groups(bundle: Bundle, listed: pa.Table) -> dict[str, Bool]:
    """Which items are in each group."""
    items: Any = bundle.table("items.parquet")
    found = {TAIL: is_tail(_by_item(listed, "users", bundle.item_ids))}
    if "category" in items.column_names:
        category_I = np.array([value or "" for value in items["category"].to_pylist()], object)
        found |= {f"category {value}": category_I == value for value in sorted(set(category_I)) if value}
    return found


def _by_item(table: pa.Table, column: str, item_ids: Sequence[str]) -> Int64:
    """A column in the order of `item_ids`; 0 for items that it lacks."""
    known = dict(zip(table["item_id"].to_pylist(), table[column].to_pylist(), strict=True))
    return np.array([known.get(item_id, 0) for item_id in item_ids], np.int64)
