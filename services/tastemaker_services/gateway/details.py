"""What an explained answer says of each of its items beyond what all answers say.

Shape letters: K items of the list, F features.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tastemaker.experiments.interleaving import NOBODYS
from tastemaker.stages.explain import rank_of
from tastemaker.types import Candidates
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.queries import Question

MOST_FEATURES: Final = 10


def add_details(
    items: list[dict[str, Any]], face: BundleFace, slate: Candidates, seen: Mapping[str, Candidates]
) -> None:
    """Adds to the items of an answer their rank after each stage that answered, and their most telling features.

    Args:
        items: Of the answer's body, in the order of `slate`.
        face: Of the bundle that answered.
        slate: The answer.
        seen: What each stage answered, by its name; nothing for a list that was made before.
    """
    telling = telling_features(slate, face.feature_names)
    for place, (item, row) in enumerate(zip(items, slate.item_index.tolist(), strict=True)):
        item["ranks"] = _ranks(row, seen)
        if telling:
            item["features"] = telling[place]


def add_teams(items: list[dict[str, Any]], slate: Candidates, question: Question) -> None:
    """Adds to the items of a list of two variants' picks whose each is, its rank in both variants' own lists, and after its own variant's stages.

    Args:
        items: Of the answer's body, in the order of `slate`.
        slate: The answer, with teams.
        question: With both sides and their slates.
    """
    interleaved, sides = question.assigned.interleaved, question.sides
    if interleaved is None or slate.team is None:
        return
    names = [team.variant for team in interleaved.teams]
    for item, team in zip(items, slate.team.tolist(), strict=True):
        rows = [side.pin.face.row_of(item["item_id"]) for side in sides]
        own_ranks: dict[str, int] = {}
        for name, row, side in zip(names, rows, sides, strict=True):
            own_ranks |= _ranks(row, {} if side.slate is None else {name: side.slate})
        own = max(team, 0)  # the control's, where it is nobody's
        item["team"] = None if team == NOBODYS else names[team]
        item["team_ranks"] = own_ranks
        item["ranks"] = _ranks(rows[own], sides[own].seen or {})


def _ranks(row: int | None, seen: Mapping[str, Candidates]) -> dict[str, int]:
    """An item's rank in what each stage answered; without those that did not have it."""
    found = {} if row is None else {name: rank_of(row, each.item_index) for name, each in seen.items()}
    return {name: rank for name, rank in found.items() if rank is not None}


def telling_features(slate: Candidates, names: tuple[str, ...]) -> list[dict[str, float]]:
    """Of each item, the features that set it apart most: furthest from the list's mean, in the list's deviations.

    Features in which all items are alike tell nothing; [] where features were not kept.
    """
    value_KF = slate.features_KF
    if value_KF is None or not len(slate):
        return []
    deviation_F = value_KF.std(axis=0)
    apart_KF = np.abs(value_KF - value_KF.mean(axis=0)) / np.where(deviation_F > 0, deviation_F, np.inf)
    found = []
    for value_F, apart_F in zip(value_KF, apart_KF, strict=True):
        order = np.argsort(-apart_F, kind="stable")[:MOST_FEATURES]
        found.append({names[f]: float(value_F[f]) for f in order if apart_F[f] > 0})
    return found
