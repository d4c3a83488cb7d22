"""Which of two rankers people prefer, told from lists that hold both rankers' picks: team-draft interleaving.

Every list is a comparison of its own, in the same mind at the same moment, so that what differs between people does not
blur it: far fewer lists are needed than where each person gets one ranker's list [Chapelle, Joachims, Radlinski & Yue 2012]. It says which is
preferred, not by how many clicks: an A/B test says that.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tastemaker.errors import ExperimentError
from tastemaker.experiments.hashing import bucket
from tastemaker.experiments.statistics.influence import estimate, two_sided
from tastemaker.experiments.statistics.ratios import UnitTotals, ratio_influence
from tastemaker.experiments.statistics.sequential import Boundary
from tastemaker.types import Float64, Int64

Team = Literal[0, 1]
PLANNED_EFFECT = 0.1
"""Preference at which the always valid interval is tightest: one ranker wins 55 of 100 decided lists."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A list of both rankers' items: `team[n]` is whose pick stands at place n, None where it is nobody's."""

    items: tuple[int, ...]
    team: tuple[Team | None, ...]


def team_draft(first: Sequence[int], second: Sequence[int], k: int, salt: str, request_id: str) -> Draft:
    """Both rankings drawn into one as captains choose teams [Radlinski, Kurup & Joachims 2008, algorithm 2].

    While both have items, the captain of the smaller team, or where they are even a coin, adds the highest item of their ranking that
    is not in the list yet. Places are thus fair to both, pair by pair. When one ranking is used up, the other fills
    the rest for nobody: those places are of no team, as the shorter ranking could not answer them.

    Args:
        first: Items of ranker 0, best first, each once.
        second: Those of ranker 1.
        k: Length of the list; shorter where both rankings hold fewer items.
        salt: Makes this experiment's coins its own.
        request_id: Decides the coins: the same request gets the same list again.

    >>> draft = team_draft([1, 2, 3], [3, 1, 4], 4, "s", "r1")
    >>> draft.items, draft.team
    ((3, 1, 4, 2), (1, 0, 1, None))
    """
    items: list[int] = []
    team: list[Team | None] = []
    taken: set[int] = set()
    while len(items) < k:
        left = [next((item for item in ranking if item not in taken), None) for ranking in (first, second)]
        captain = None if None in left else _captain(team, bucket(salt, f"{request_id}:{len(items)}", "coin"))
        picked = (
            left[captain] if captain is not None else next((one for one in left if one is not None), None)
        )
        if picked is None:
            break
        items.append(picked)
        taken.add(picked)
        team.append(captain)
    return Draft(tuple(items), tuple(team))


def _captain(team: Sequence[Team | None], coin: float) -> Team:
    """Whose turn it is: the smaller team's, or where they are even as the coin falls."""
    apart = team.count(0) - team.count(1)
    return (1 if coin >= 0.5 else 0) if apart == 0 else (1 if apart > 0 else 0)


def winner(draft: Draft, clicked: Collection[int]) -> Team | None:
    """The ranker whose picks got more clicks; None where both got as many, or none.

    Args:
        draft: The list that was shown.
        clicked: Places that were clicked, each once.

    Raises:
        ExperimentError: A place is not in the list.

    >>> draft = Draft((7, 8, 9), (0, 1, 0))
    >>> winner(draft, {0, 2}), winner(draft, {1}), winner(draft, {0, 1}), winner(draft, set())
    (0, 1, None, None)
    """
    if strange := [place for place in clicked if not 0 <= place < len(draft.team)]:
        raise ExperimentError(
            "clicked place of an interleaved list", value=strange[0], limit=f"0 to {len(draft.team) - 1}"
        )
    picked = [draft.team[place] for place in set(clicked)]
    first, second = picked.count(0), picked.count(1)
    return None if first == second else (1 if second > first else 0)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the lists say.

    `preference` is the share of lists that ranker 1 won less the share that ranker 0 won: from -1, everybody prefers ranker 0, to 1.
    `low` and `high` are its interval for one look, `valid_low` and `valid_high` that which holds at every look. `p_value` and
    `always_valid_p_value` are of no preference.
    """

    num_lists: int
    wins: tuple[int, int]
    ties: int
    preference: float
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

    The preference is a ratio of sums over units, score by lists, with the delta method's variance.

    Args:
        unit_R: Who got the list.
        winner_R: Its winner; None is a tie.
        level: Of the intervals.
        effect: Preference that is worth finding, to be said before the first look.

    Raises:
        ExperimentError: There are fewer than two units.
    """
    score_R = np.array([0.0 if one is None else 2.0 * one - 1.0 for one in winner_R])
    units, place_R = np.unique(np.asarray(unit_R, dtype=object).astype(str), return_inverse=True)
    if len(units) < 2:
        raise ExperimentError(
            "units that saw interleaved lists", value=len(units), limit="at least 2", mend="wait for traffic"
        )
    found = estimate(ratio_influence(_totals(score_R, place_R, len(units))), 0, level)
    boundary = Boundary.for_effect(effect, level)
    margin = boundary.margin(found.standard_error)
    return Verdict(
        num_lists=len(score_R),
        wins=(int((score_R < 0).sum()), int((score_R > 0).sum())),
        ties=int((score_R == 0).sum()),
        preference=found.value,
        low=found.low,
        high=found.high,
        p_value=two_sided(found.value, found.standard_error),
        valid_low=max(-1.0, found.value - margin),
        valid_high=min(1.0, found.value + margin),
        always_valid_p_value=boundary.p_value(found.value, found.standard_error),
    )


def _totals(score_R: Float64, place_R: Int64, num_units: int) -> UnitTotals:
    lists_U = np.bincount(place_R, minlength=num_units).astype(np.float64)
    score_U = np.bincount(place_R, weights=score_R, minlength=num_units).astype(np.float64)
    return UnitTotals(score_U[:, None], lists_U[:, None])
