"""Rating prediction: RMSE over five random folds, beside the table of Surprise.

Guesses are clipped to 1 to 5, as Surprise does. A figure may be .004 worse than the published one.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, Final

import numpy as np
from reproduce_data import ratings
from reproduction import Reproduction
from turns import Effort

from tastemaker.models import zoo
from tastemaker.models.log import Askers, Log
from tastemaker.models.recommender import Recommender

ALLOWED: Final = 0.004
_FOLDS: Final = 5
PUBLISHED: Final[Mapping[str, Mapping[str, float]]] = {
    "ml-100k": {"svd": 0.934, "svdpp": 0.919, "nmf": 0.963, "rating-knn": 0.931},
    "ml-1m": {"svd": 0.873, "svdpp": 0.862},
}
# Chosen on a tenth of the first fold's training part.
SETTINGS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "ml-100k": {
        "svd": {},
        "svdpp": {"regularization": 0.15},
        "nmf": {"dim": 15, "epochs": 50, "regularization": 0.06},
        "rating-knn": {"of": "users", "similarity": "msd", "around": "baseline", "num_neighbours": 40},
        "als-explicit": {"regularization": 0.12},
    },
    "ml-1m": {"svd": {"regularization": 0.08}, "svdpp": {"regularization": 0.08}},
}


def folds(name: str, seed: int = 0) -> Iterator[tuple[Log, np.ndarray, np.ndarray, np.ndarray]]:
    """Training log, and users, items and ratings to guess, of each fold."""
    found = ratings(name)
    order = np.random.default_rng(seed).permutation(len(found))
    for held in np.array_split(order, _FOLDS):
        kept_N = np.ones(len(found), np.bool_)
        kept_N[held] = False
        yield found.log(np.flatnonzero(kept_N)), found.user_N[held], found.item_N[held], found.rating_N[held]


def rmse(model: Recommender, log: Log, user_M: np.ndarray, item_M: np.ndarray, rating_M: np.ndarray) -> float:
    """Of the ratings that were held out."""
    order = np.argsort(user_M, kind="stable")
    bounds = np.searchsorted(user_M[order], np.arange(log.num_users + 1))
    items = [item_M[order[a:b]] for a, b in pairwise(bounds)]
    guess_M = np.clip(np.concatenate(model.score(Askers.known(log), items)), 1, 5)
    return float(np.sqrt(np.mean((guess_M - rating_M[order]) ** 2)))


def ml_100k(effort: Effort) -> Reproduction:
    """All models of ratings."""
    return _measured("ml-100k", effort)


def ml_1m(effort: Effort) -> Reproduction:
    """SVD and SVD++."""
    return _measured("ml-1m", effort)


def _measured(name: str, effort: Effort) -> Reproduction:
    part = Reproduction(f"{name.upper()}, rating prediction, five folds")
    for kind, settings in SETTINGS[name].items():
        found = []
        for place, (log, *held) in enumerate(folds(name)):
            if effort.divide > 1 and place:
                break
            model = part.timed(kind, lambda g=log, k=kind, s=settings: zoo.fit(k, g, s))
            found.append(rmse(model, log, *held))
        published = PUBLISHED[name].get(kind)
        limit = None if published is None else published + ALLOWED
        part.add(kind, "RMSE", found, published, limit, better="lower")
    return part
