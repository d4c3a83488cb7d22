"""What is popular among users of a group, such as women from 25 to 34, on a device, or at an hour.

A group with few users says little, so that its counts are shrunk towards those of the whole; one with fewer than a
minimum is none at all.

Shape letters: N interactions, U users, I catalogue, G groups.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from tastemaker.strict import Strict
from tastemaker.types import Float32, Int32, Int64


class GroupsConfig(Strict):
    """Which groups count, and how much."""

    min_users: int = Field(20, ge=1, description="users without whom a group is none")
    prior: float = Field(500.0, gt=0, description="interactions of the whole that a group's are mixed with")
    utc_offset_hours: float | None = Field(
        None,
        ge=-12,
        le=14,
        description="how far most users' clocks are ahead of UTC, for what is popular by the time of day; empty: it is not told",
    )


def fit_groups(
    item_index: Int32,
    user_index: Int32 | Int64,
    group_N: Sequence[str | None],
    num_items: int,
    config: GroupsConfig,
) -> tuple[list[str], Float32]:
    """Groups' names in order, and their popularity (G, I) as shares of the largest, in 0..1.

    With n_gi interactions of a group with an item, n_g with all, and the item's share p_i of all interactions, the
    popularity is (n_gi + prior * p_i) / (n_g + prior), over its largest. Two of three took item 0; the group "b" of one
    user, who took item 1, is mixed with the whole:

    >>> items, users = np.array([0, 0, 1], np.int32), np.array([0, 1, 2], np.int32)
    >>> config = GroupsConfig(min_users=1, prior=3.0)
    >>> names, share_GI = fit_groups(items, users, ["a", "a", "b"], 2, config)
    >>> names, share_GI.tolist()  # b: (0 + 3 * 2/3, 1 + 3 * 1/3) is (2, 2)
    (['a', 'b'], [[1.0, 0.25], [1.0, 1.0]])

    Args:
        item_index: Rows of items, (N,).
        user_index: Who, (N,).
        group_N: The group of each interaction, (N,); None where it is in none.
        num_items: Items of the catalogue.
        config: What counts.
    """
    whole_I = np.bincount(item_index, minlength=num_items) / max(len(item_index), 1)
    groups = np.array([name or "" for name in group_N], np.str_)
    names: list[str] = []
    shares: list[Float32] = []
    for name in sorted(set(groups.tolist()) - {""}):
        is_in_N = groups == name
        if len(np.unique(user_index[is_in_N])) < config.min_users:
            continue
        mixed_I = np.bincount(item_index[is_in_N], minlength=num_items) + config.prior * whole_I
        names.append(name)
        shares.append((mixed_I / mixed_I.max()).astype(np.float32))
    return names, np.stack(shares) if shares else np.zeros((0, num_items), np.float32)
