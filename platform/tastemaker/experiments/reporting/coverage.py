"""Which share of the catalogue a variant shows, made comparable between variants that showed lists unequally often.

Shape letters: R decisions, S places of their lists, I items, V variants, U units, G groups of units.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.reporting.narrow import wide
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.statistics.influence import Influence, critical_value
from tastemaker.types import Bool, Float64, Int64

NUM_GROUPS: Final = 20


@dataclass(frozen=True, slots=True)
class Shown:
    """What a variant showed: `units_I` says to how many of its `num_units` units each item, in `num_places` places of lists."""

    units_I: Int64
    num_units: int
    num_places: int

    def without(self, part: "Shown") -> "Shown":
        """The same less some of its units."""
        return Shown(
            self.units_I - part.units_I, self.num_units - part.num_units, self.num_places - part.num_places
        )

    def with_(self, part: "Shown") -> "Shown":
        """The same and other units."""
        return Shown(
            self.units_I + part.units_I, self.num_units + part.num_units, self.num_places + part.num_places
        )


def expected_distinct(units_I: Int64, num_units: int, wanted: float) -> float:
    """How many distinct items `wanted` of the units see, drawn without replacement.

    Rarefaction by sampling unit [Hurlbert 1971; Gotelli & Colwell 2001]: the sum over items of 1 - C(H - u_i, h) / C(H, h), with H units,
    h of them wanted and u_i that saw item i. Units, not places, are drawn: a unit sees its favourites again and again, so that places drawn
    from many units hold more items than the same number of places of few. A broken `wanted` is read by the Gamma function.

    By hand: three units, all see x and one sees y, two are drawn: x is missed never, y in 1 of 3 draws.

    >>> round(expected_distinct(np.array([3, 1]), 3, 2), 12)
    1.666666666667
    """
    seen = units_I[units_I > 0].astype(np.float64)
    few = num_units - seen - wanted + 1 > 1e-9
    log_missed = special.gammaln(num_units - seen[few] + 1) - special.gammaln(
        num_units - seen[few] - wanted + 1
    )
    log_missed -= special.gammaln(num_units + 1) - special.gammaln(num_units - wanted + 1)
    return float(len(seen) - np.exp(log_missed).sum())


def least_variance(units_I: Int64, groups_I: Int64, part: float, level: float = 0.95) -> float:
    """Variance, in items squared, that the number of distinct items has at the least, whatever resampling says of it.

    A delete-a-group jackknife cannot lose an item that two groups or more saw, nor find one that was not seen: where all that can be shown
    was, it gives an interval of no width. But another time an item that few saw would have been missed: seen by Poisson(l) units in all, it
    counts among the distinct of a `part` m of the units with variance exp(-l m (2 - m)) - exp(-2 l m) (m = 1: exp(-l) (1 - exp(-l))), of
    which this is the mean for l ~ Gamma(u + 1, 1), the posterior of u units under a flat prior. Of items that one group alone saw the jackknife knows:
    lists have a fixed number of places, so that one item more is another less, and as if they came by themselves their variances would add up to
    several times what it is. And of what nobody saw -log(1 - `level`) items may be expected (three at 95%, the rule of three [Hanley & Lippman-Hand
    1983]), where there is any: then the variance is at least that of an interval that reaches so far.

    Args:
        units_I: How many units saw each item (I,).
        groups_I: How many groups of units did (I,).
        part: Of the units that are drawn.
        level: Of the interval that is made of it.

    By hand: an item that two units of two groups saw, all units wanted: 1/2^3 - 1/3^3 = 19/216.

    >>> round(216 * least_variance(np.array([2, 1]), np.array([2, 1]), 1.0), 12)
    19.0
    >>> round(least_variance(np.array([1, 0]), np.array([1, 0]), 1.0) ** 0.5 * 1.96, 3)
    2.996
    """
    more = units_I[groups_I > 1] + 1.0
    missed = float(((1 + part * (2 - part)) ** -more - (1 + 2 * part) ** -more).sum())
    hidden = -part * np.log1p(-level) / critical_value(level) if (units_I == 0).any() else 0.0
    return max(missed, float(hidden**2))


def coverage(seen: Observations, num_variants: int, num_items: int, level: float = 0.95) -> Influence:
    """Share of `num_items` that each variant shows in as many places as the variant with the fewest has.

    Units fall into 20 groups, those that met the same variant first into groups of the same size, up to one: which unit is in which group is no
    part of what is measured. The influence of a group is what its absence takes away (delete-a-group jackknife [Kott 2001]); a unit has an equal part
    of its group's, so that the squares add up to the jackknife's variance. What that lacks to `least_variance` is a last row for each variant, of
    no unit.

    Raises:
        ExperimentError: A variant has shown nothing, or to too few units for groups.
    """
    met_UV = np.zeros((len(seen.units), num_variants), np.bool_)
    met_UV[seen.rows.unit_R, seen.rows.variant_R] = True
    group_U = groups(seen)
    group_R = group_U[seen.rows.unit_R]
    value_V, influence_GV, variance_V, units_V = covered(
        lambda: (_shown(seen, group_R == g, num_variants, num_items) for g in range(NUM_GROUPS)), level
    )
    num_GV = np.zeros((NUM_GROUPS, num_variants))
    np.add.at(num_GV, group_U, met_UV)
    influence_UV = np.where(met_UV, (influence_GV / np.sqrt(np.maximum(num_GV, 1.0)))[group_U], 0.0)
    lacking_V = np.maximum(0.0, variance_V - (influence_UV**2).sum(axis=0))
    return Influence(
        value_V / num_items, np.vstack([influence_UV, np.diag(np.sqrt(lacking_V))]) / num_items, units_V
    )


def groups(seen: Observations) -> Int64:
    """In which group each unit is (U,): the units that met the same variant first take turns."""
    unit_N, first_N = np.unique(seen.rows.unit_R, return_index=True)
    variant_N = wide(seen.rows.variant_R[first_N])
    by_variant = np.argsort(variant_N, kind="stable")
    before_V = np.cumsum(np.bincount(variant_N)) - np.bincount(variant_N)
    rank_N = np.arange(len(unit_N)) - before_V[variant_N[by_variant]]
    group_U = np.zeros(len(seen.units), np.int64)  # of units that met none, too
    group_U[unit_N[by_variant]] = rank_N % NUM_GROUPS
    return group_U


def covered(
    parts: Callable[[], Iterable[Sequence[Shown]]], level: float = 0.95
) -> tuple[Float64, Float64, Float64, Int64]:
    """Distinct items by variant at as many places, and how sure they are.

    Args:
        parts: What each variant showed to each group of units, group by group; asked for twice, so that one group at a time is in memory.
        level: Of the intervals that are made of it.

    Returns:
        Distinct items (V,), what each group's absence takes away (G, V), the variance (V,), which is at least that of these, and units (V,).

    Raises:
        ExperimentError: A variant has shown nothing, or to fewer than 20 units.
    """
    whole_V, groups_VI, most_V = _together(parts())
    fewest = min(one.num_places for one in whole_V)
    units_V = np.array([one.num_units for one in whole_V])
    if fewest == 0:
        raise ExperimentError("a variant has shown no list", mend="wait for traffic")
    if units_V.min() < NUM_GROUPS:
        raise ExperimentError(
            "units that were shown lists of a variant",
            value=int(units_V.min()),
            limit=f"at least {NUM_GROUPS}",
            mend="wait for traffic",
        )
    wanted_V = np.array([one.num_units * fewest / one.num_places for one in whole_V])
    left_V = np.minimum(wanted_V, units_V - most_V)  # so many units are there whichever group is absent
    left_GV = np.array(
        [
            _distinct([w.without(p) for w, p in zip(whole_V, part_V, strict=True)], left_V)
            for part_V in parts()
        ]
    )
    influence_GV = -(left_GV - left_GV.mean(axis=0)) * np.sqrt(1 - 1 / len(left_GV))
    least_V = [
        least_variance(one.units_I, groups_I, wanted / one.num_units, level)
        for one, groups_I, wanted in zip(whole_V, groups_VI, wanted_V, strict=True)
    ]
    variance_V = np.maximum(np.array(least_V), (influence_GV**2).sum(axis=0))
    return _distinct(whole_V, wanted_V), influence_GV, variance_V, units_V


def _distinct(shown_V: Sequence[Shown], wanted_V: Float64) -> Float64:
    """Distinct items that so many units of each variant see."""
    return np.array(
        [
            expected_distinct(one.units_I, one.num_units, wanted)
            for one, wanted in zip(shown_V, wanted_V.tolist(), strict=True)
        ]
    )


def _shown(seen: Observations, mine_R: Bool, num_variants: int, num_items: int) -> list[Shown]:
    """What each variant showed in some decisions."""
    num_shown = len(seen.lists.items)
    item_S, lengths = seen.lists.items_of(seen.rows.list_R[mine_R])
    pair_R = wide(seen.rows.unit_R[mine_R]) * num_variants + wide(seen.rows.variant_R[mine_R])
    pair_S = np.repeat(pair_R, lengths)
    met = np.unique(pair_S * num_shown + item_S)  # a unit that a variant showed an item, once
    variant_M, item_M = met // num_shown % num_variants, met % num_shown
    units_VI = np.bincount(variant_M * num_shown + item_M, minlength=num_variants * num_shown)
    places_V = np.bincount(pair_S % num_variants, minlength=num_variants)
    units_V = np.bincount(np.unique(pair_S) % num_variants, minlength=num_variants)
    never = max(0, num_items - num_shown)
    return [
        Shown(np.pad(units_I, (0, min(never, 1))), int(units_V[v]), int(places_V[v]))
        for v, units_I in enumerate(units_VI.reshape(num_variants, num_shown))
    ]


def _together(parts: Iterable[Sequence[Shown]]) -> tuple[list[Shown], Int64, Int64]:
    """What each variant showed in all, to how many groups each item (V, I), and the units of each variant's largest group (V,)."""
    whole_V: list[Shown] = []
    groups_VI, most_V = np.zeros((0, 0), np.int64), np.zeros(0, np.int64)
    for part_V in parts:
        seen_VI = np.array([one.units_I > 0 for one in part_V], np.int64)
        units_V = np.array([one.num_units for one in part_V])
        if whole_V:
            whole_V = [one.with_(part) for one, part in zip(whole_V, part_V, strict=True)]
            groups_VI, most_V = groups_VI + seen_VI, np.maximum(most_V, units_V)
        else:
            whole_V, groups_VI, most_V = list(part_V), seen_VI, units_V
    return whole_V, groups_VI, most_V
