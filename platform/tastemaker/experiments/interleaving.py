"""One list of two rankers' picks, and which of them its clicks speak for: team-draft interleaving. Not what many lists say (`statistics.preference`).

Every list is a comparison of its own, in the same mind at the same moment, so that what differs between people does not
blur it: far fewer lists are needed than where each person gets one ranker's list [Chapelle, Joachims, Radlinski & Yue 2012]. It says which is
preferred, not by how many clicks: an A/B test says that.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Self

from tastemaker.errors import ExperimentError
from tastemaker.experiments.hashing import bucket

Team = Literal[0, 1]
NOBODYS = -1
"""Team of a place in the decision log that is neither ranker's."""


@dataclass(frozen=True, slots=True)
class LoggedSide:
    """What made the list of one of the two variants: its bundle, and the text of its policy with the catalogue's rules."""

    bundle: str
    policy: str

    def logged(self) -> str:
        """JSON as the decision log keeps it.

        >>> LoggedSide("5b7d0a3c91e2", "").logged()
        '{"bundle":"5b7d0a3c91e2","policy":""}'
        """
        return json.dumps(asdict(self), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def of_logged(cls, text: str) -> Self:
        """What `logged` gave."""
        content = json.loads(text)
        return cls(content["bundle"], content["policy"])


def draft_salt(experiment: str, generation: int) -> str:
    """What makes the coins of one start of an experiment its own."""
    return f"{experiment}:{generation}"


@dataclass(frozen=True, slots=True)
class Draft:
    """A list of both rankers' items: `team[n]` is whose pick stands at place n, None where it is nobody's."""

    items: tuple[int, ...]
    team: tuple[Team | None, ...]


def team_draft(
    first: Sequence[int],
    second: Sequence[int],
    k: int,
    salt: str,
    request_id: str,
    *,
    nobodys: Collection[int] = (),
    fixed: Mapping[int, int] | None = None,
) -> Draft:
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
        nobodys: Items that no ranker is to have credit for, such as those that are shown to learn of them; whose turn it is has another.
        fixed: By place from 0, items that stand there whatever the rankings say, and are nobody's; each in a ranking.

    >>> draft = team_draft([1, 2, 3], [3, 1, 4], 4, "s", "r1")
    >>> draft.items, draft.team
    ((3, 1, 4, 2), (1, 0, 1, None))
    >>> draft = team_draft([1, 2, 3], [3, 1, 4], 4, "s", "r1", nobodys={1}, fixed={0: 4})
    >>> draft.items, draft.team
    ((4, 1, 3, 2), (None, None, 1, None))
    """
    places, pools = fixed or {}, (_Pool(first), _Pool(second))
    items: list[int] = []
    team: list[Team | None] = []
    taken = set(places.values())
    while len(items) < k:
        left = [pool.best(taken) for pool in pools]
        picked: int | None
        captain: Team | None
        if len(items) in places:
            picked, captain = places[len(items)], None
        elif None not in left:
            captain = _captain(team, bucket(salt, f"{request_id}:{len(items)}", "coin"))
            picked = left[captain]
        else:
            captain, picked = None, next((one for one in left if one is not None), None)
        if picked is None:  # what is fixed further down comes up
            items += [places[place] for place in sorted(places) if place >= len(items)][: k - len(items)]
            break
        items.append(picked)
        taken.add(picked)
        team.append(None if picked in nobodys else captain)
    return Draft(tuple(items), (*team, *[None] * (len(items) - len(team))))


class _Pool:
    """A ranking that is picked from, best first."""

    def __init__(self, ranking: Sequence[int]) -> None:
        self._ranking, self._at = ranking, 0

    def best(self, taken: Collection[int]) -> int | None:
        """Its highest item that is not taken; None where all are."""
        while self._at < len(self._ranking) and self._ranking[self._at] in taken:
            self._at += 1
        return self._ranking[self._at] if self._at < len(self._ranking) else None


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
