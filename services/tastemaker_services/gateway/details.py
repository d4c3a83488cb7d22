"""What an explained answer says of each of its items beyond what all answers say.

Shape letters: K items of the list, F features.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from tastemaker.stages.explain import rank_of
from tastemaker.types import Candidates
from tastemaker_services.gateway.face import BundleFace

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
        ranks = {stage: rank_of(row, candidates.item_index) for stage, candidates in seen.items()}
        item["ranks"] = {stage: rank for stage, rank in ranks.items() if rank is not None}
        if telling:
            item["features"] = telling[place]


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
