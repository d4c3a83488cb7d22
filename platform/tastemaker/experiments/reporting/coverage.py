"""Which share of the catalogue a variant shows, made comparable between variants that showed lists unequally often.

Shape letters: R decisions, S places of their lists, I items, V variants, U units, G groups of units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import special

from tastemaker.errors import ExperimentError
from tastemaker.experiments.reporting.narrow import wide
from tastemaker.experiments.reporting.observations import Observations
from tastemaker.experiments.statistics.influence import Influence, critical_value
from tastemaker.types import Bool, Float64, Int64

_NUM_GROUPS: Final = 20
_NEVER_SEEN: Final = 3.0
"""What may be expected at most, at 95%, of a thing that did not happen: exp(-3) is .05 [Hanley & Lippman-Hand 1983]."""


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


def least_variance(units_I: Int64, part: float) -> float:
    """Variance, in items squared, that the number of distinct items has at the least, whatever resampling says of it.

    Resampling cannot lose an item that is seen by many, nor find one that was not seen: where all that can be shown was, it gives
    an interval of no width. But another time an item that few saw would have been missed: seen by Poisson(l) units in all, it counts among the distinct
    of a `part` m of the units with variance exp(-l m (2 - m)) - exp(-2 l m) (m = 1: exp(-l) (1 - exp(-l))), of which this is the mean for l ~
    Gamma(u + 1, 1), the posterior of u units under a flat prior. And of what nobody saw up to three items may be expected (`_NEVER_SEEN`),
    where there is any: then the variance is at least that of an interval that reaches so far.

    By hand: an item that one unit saw, all units wanted: 1/2^2 - 1/3^2 = 5/36.

    >>> round(36 * least_variance(np.array([1]), 1.0), 12)
    5.0
    >>> round(least_variance(np.array([1, 0]), 1.0) ** 0.5 * 1.96, 3)
    3.0
    """
    more = units_I[units_I > 0] + 1.0
    missed = float(((1 + part * (2 - part)) ** -more - (1 + 2 * part) ** -more).sum())
    hidden = part * _NEVER_SEEN / critical_value(0.95) if (units_I == 0).any() else 0.0
    return max(missed, hidden**2)


def coverage(seen: Observations, num_variants: int, num_items: int) -> Influence:
    """Share of `num_items` that each variant shows in as many places as the variant with the fewest has.

    Units fall into 20 groups. The influence of a group is what its absence takes away (delete-a-group jackknife [Kott 2001]);
    a unit has an equal part of its group's, so that the squares add up to the jackknife's variance. What that lacks to `least_variance` is
    a last row for each variant, of no unit.

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
    group_R = seen.rows.unit_R % _NUM_GROUPS
    part_GV = [_shown(seen, group_R == g, num_variants, num_items) for g in range(_NUM_GROUPS)]
    whole_V = [_together([part_V[v] for part_V in part_GV]) for v in range(num_variants)]
    value_V, influence_GV, lacking_V = covered(whole_V, part_GV)
    group_U = np.arange(len(seen.units)) % _NUM_GROUPS
    size_G = np.bincount(group_U, minlength=_NUM_GROUPS)
    influence_UV = influence_GV[group_U] / np.sqrt(size_G[group_U])[:, None]
    return Influence(
        value_V / num_items,
        np.vstack([influence_UV, np.diag(np.sqrt(lacking_V))]) / num_items,
        np.array([one.num_units for one in whole_V]),
    )


def covered(whole_V: Sequence[Shown], part_GV: Sequence[Sequence[Shown]]) -> tuple[Float64, Float64, Float64]:
    """Distinct items by variant at as many places (V,), what each group's absence takes away (G, V), and the variance that this lacks (V,).

    Raises:
        ExperimentError: A variant has shown nothing.
    """
    value_V = _distinct(whole_V)
    left_GV = np.array(
        [
            _distinct([whole.without(part) for whole, part in zip(whole_V, part_V, strict=True)])
            for part_V in part_GV
        ]
    )
    influence_GV = -(left_GV - left_GV.mean(axis=0)) * np.sqrt((len(part_GV) - 1) / len(part_GV))
    fewest = min(whole.num_places for whole in whole_V)
    least_V = np.array([least_variance(whole.units_I, fewest / whole.num_places) for whole in whole_V])
    return value_V, influence_GV, np.maximum(0.0, least_V - (influence_GV**2).sum(axis=0))


def _distinct(shown_V: Sequence[Shown]) -> Float64:
    """Distinct items that each variant shows in as many places as the one with the fewest; of its units, so many as have those."""
    fewest = min(shown.num_places for shown in shown_V)
    if fewest == 0:
        raise ExperimentError("a variant has shown no list", mend="wait for traffic")
    return np.array(
        [
            expected_distinct(one.units_I, one.num_units, one.num_units * fewest / one.num_places)
            for one in shown_V
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


def _together(parts: Sequence[Shown]) -> Shown:
    return Shown(
        np.sum([one.units_I for one in parts], axis=0),
        sum(one.num_units for one in parts),
        sum(one.num_places for one in parts),
    )
