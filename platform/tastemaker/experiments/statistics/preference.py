"""Which of two rankers people prefer, told by the winners of many interleaved lists (`experiments.interleaving`).

Shape letters: R lists, U units.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tastemaker.errors import NothingYetError
from tastemaker.experiments.interleaving import Team
from tastemaker.experiments.statistics.influence import Difference, Influence, difference
from tastemaker.experiments.statistics.ratios import Units, UnitTotals, ratio_influence
from tastemaker.experiments.statistics.sequential import Boundary, Looks, cumulative_totals
from tastemaker.types import Float64, Int64

PLANNED_EFFECT: Final = 0.1
"""Preference at which the always valid interval is tightest: one ranker wins 55 of 100 decided lists."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the lists say.

    `preference` is the share of lists that ranker 1 won less the share that ranker 0 won: from -1, everybody prefers ranker 0, to 1.
    `low` and `high` are its interval for one look, `valid_low` and `valid_high` that which holds at every look. `p_value` and
    `always_valid_p_value` are of no preference.
    """

    num_lists: int
    num_units: int
    wins: tuple[int, int]
    ties: int
    preference: float
    standard_error: float
    low: float
    high: float
    p_value: float
    valid_low: float
    valid_high: float
    always_valid_p_value: float

    @property
    def preferred(self) -> Team | None:
        """The ranker that is preferred, however often one has looked; None where that is open."""
        return 1 if self.valid_low > 0 else 0 if self.valid_high < 0 else None


def verdict(
    unit_R: Sequence[str],
    winner_R: Sequence[Team | None],
    level: float = 0.95,
    effect: float = PLANNED_EFFECT,
) -> Verdict:
    """Which ranker is preferred, with intervals clustered by unit: who sees many lists has many alike.

    Args:
        unit_R: Who got the list.
        winner_R: Its winner; None is a tie.
        level: Of the intervals.
        effect: Preference that is worth finding, to be said before the first look.

    Raises:
        NothingYetError: There are fewer than two units.
    """
    score_R = np.array([0.0 if one is None else 2.0 * one - 1.0 for one in winner_R])
    return verdicts(unit_R, score_R, np.zeros(len(score_R), np.int64), [1], level, effect)[-1]


def verdicts(
    unit_R: Units,
    score_R: Float64,
    time_R: Int64,
    ends: Sequence[int],
    level: float = 0.95,
    effect: float = PLANNED_EFFECT,
) -> list[Verdict]:
    """The verdict at each look that has two units: on all lists before each of `ends`, which ascend.

    The preference is a ratio of sums over units, score by lists, with the delta method's variance [Deng, Knoblich & Lu 2018]. Its
    intervals hold at all looks together, also of units that return, see `sequential`.

    Args:
        unit_R: Who got the list.
        score_R: 1 where ranker 1 won it, -1 where ranker 0 did, 0 for a tie.
        time_R: When, on the clock of `ends`.
        ends: Of the looks.
        level: Of the intervals.
        effect: As for `verdict`.

    Raises:
        NothingYetError: There are fewer than two units.
    """
    boundary = Boundary.for_effect(effect, level)
    looks, found = Looks(boundary, 0, 1, relative=False), []
    of_one, ones_R = np.zeros(len(score_R), np.int64), np.ones(len(score_R))
    for end, totals in zip(
        ends, cumulative_totals(unit_R, of_one, score_R, ones_R, 1, time_R, ends), strict=True
    ):
        if np.count_nonzero(totals.denominator_UV) >= 2:
            found.append(_verdict(totals, score_R[time_R < end], looks, level))
    if not found:
        raise NothingYetError(
            "units that saw interleaved lists",
            value=len({*unit_R}),
            limit="at least 2",
            mend="wait for traffic",
        )
    return found


def _verdict(totals: UnitTotals, score_R: Float64, looks: Looks, level: float) -> Verdict:
    influence = _against_none(totals)
    now, valid = difference(influence, 0, 1, level), looks.look(influence)
    assert isinstance(valid, Difference)
    knows_spread = now.standard_error > 0
    return Verdict(
        num_lists=len(score_R),
        num_units=int(influence.units_V[1]),
        wins=(int((score_R < 0).sum()), int((score_R > 0).sum())),
        ties=int((score_R == 0).sum()),
        preference=now.value,
        standard_error=now.standard_error,
        low=max(-1.0, now.low) if knows_spread else -1.0,
        high=min(1.0, now.high) if knows_spread else 1.0,
        p_value=now.p_value if knows_spread else 1.0,
        valid_low=max(-1.0, valid.low),
        valid_high=min(1.0, valid.high),
        always_valid_p_value=valid.p_value,
    )


def _against_none(totals: UnitTotals) -> Influence:
    """The preference as a second variant beside a first that is 0 for certain."""
    own = ratio_influence(totals)
    return Influence(
        np.array([0.0, own.value_V[0]]),
        np.column_stack([np.zeros(len(own.influence_UV)), own.influence_UV[:, 0]]),
        np.repeat(own.units_V, 2),
    )
