"""Which share of the catalogue a variant shows, made comparable between variants that showed lists unequally often.

Shape letters: R decisions, S places of their lists, I items, V variants, G groups of units.
"""

from typing import Final

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.reporting.narrow import wide
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.statistics.influence import Influence
from tastemaker.types import Bool, Float64, Int64

_NUM_GROUPS: Final = 20


def expected_distinct(shown_I: Int64, num_places: int) -> float:
    """How many distinct items `num_places` places hold that are drawn from all places without replacement.

    Rarefaction [Hurlbert 1971]: the sum over items of 1 - C(N - n_i, n) / C(N, n), with N places in all, n_i of them item i's.

    By hand: item x in two places and y in one, two places drawn of the three: x is missed never, y in 1 of 3 draws.

    >>> round(expected_distinct(np.array([2, 1]), 2), 12)
    1.666666666667
    """
    shown = shown_I[shown_I > 0].astype(np.float64)
    total = shown.sum()
    fits = total - shown >= num_places
    log_missed = special.gammaln(total - shown[fits] + 1) - special.gammaln(
        total - shown[fits] - num_places + 1
    )
    log_missed -= special.gammaln(total + 1) - special.gammaln(total - num_places + 1)
    return float(len(shown) - np.exp(log_missed).sum())


def coverage(seen: Observations, num_variants: int, num_items: int) -> Influence:
    """Share of `num_items` that each variant shows in as many places as the variant with the fewest has.

    Units fall into 20 groups. The influence of a group is what its absence takes away (delete-a-group jackknife [Kott 2001]);
    a unit has an equal part of its group's, so that the squares add up to the jackknife's variance.

    Raises:
        ExperimentError: A variant has shown nothing, or there are too few units for groups.
    """
    if len(seen.units) < _NUM_GROUPS:
        raise ExperimentError(
            "units that were shown lists",
            value=len(seen.units),
            limit=f"at least {_NUM_GROUPS}",
            mend="wait for traffic",
        )
    group_U = np.arange(len(seen.units)) % _NUM_GROUPS
    group_R = seen.rows.unit_R % _NUM_GROUPS
    every_VI = np.zeros((num_variants, len(seen.lists.items)), np.int64)
    for g in range(_NUM_GROUPS):
        every_VI += _shown(seen, group_R == g, num_variants)
    whole_V = _shares(every_VI, num_items)
    left_GV = np.array(
        [_shares(every_VI - _shown(seen, group_R == g, num_variants), num_items) for g in range(_NUM_GROUPS)]
    )
    influence_GV = -(left_GV - left_GV.mean(axis=0)) * np.sqrt((_NUM_GROUPS - 1) / _NUM_GROUPS)
    size_G = np.bincount(group_U, minlength=_NUM_GROUPS)
    return Influence(
        whole_V, influence_GV[group_U] / np.sqrt(size_G[group_U])[:, None], _units(seen, num_variants)
    )


def _shown(seen: Observations, mine_R: Bool, num_variants: int) -> Int64:
    """How often each variant showed each item in some decisions. Shape (V, I)."""
    num_items = len(seen.lists.items)
    item_S, lengths = seen.lists.items_of(seen.rows.list_R[mine_R])
    variant_S = np.repeat(wide(seen.rows.variant_R[mine_R]), lengths)
    counts = np.bincount(variant_S * num_items + item_S, minlength=num_variants * num_items)
    return counts.reshape(num_variants, num_items)


def _shares(shown_VI: Int64, num_items: int) -> Float64:
    places = int(shown_VI.sum(axis=1).min())
    if places == 0:
        raise ExperimentError("a variant has shown no list", mend="wait for traffic")
    return np.array([expected_distinct(shown_I, places) / num_items for shown_I in shown_VI])


def _units(seen: Observations, num_variants: int) -> Int64:
    pairs = np.unique(seen.unit_R * num_variants + seen.rows.variant_R)
    return np.bincount(pairs % num_variants, minlength=num_variants)
