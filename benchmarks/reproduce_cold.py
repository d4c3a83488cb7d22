"""Cold items and cold people of MovieLens: no published figures, models beside each other over seeds.

What counts is a rating of 4 or more. Items: those of a tenth are taken out of the log, drawn by chance or those that came into it last,
and lists are asked for by the users who took them, among all items and among the cold alone; of the other items a tenth of each
user's rows is held out beside, to see what a model does to them. People: a fifth of the users is taken out, and asks with the
first one to five of their items, attributes given. MovieLens-100k takes minutes; MovieLens-1M, an hour and more, is run when it is named.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from reproduce_cold_splits import COLD_SHARE, TUNED_SEED, cold_items, cold_users, log
from turns import Effort, Part

from tastemaker.evaluation import metrics
from tastemaker.features.content import space
from tastemaker.features.content.minilm import encode as encode_by_minilm
from tastemaker.models import zoo
from tastemaker.models.log import Askers, Filters
from tastemaker.models.recommender import Recommender

SEEDS: Final = (0, 1, 2)
_NAMES: Final = {"ml-100k": "MovieLens-100k", "ml-1m": "MovieLens-1M"}
_K: Final = 20
_MINILM: Final[dict[str, Any]] = {"encoder": "minilm", "dim": 384}
_PROJECTED: Final[dict[str, Any]] = {"projection": "contrastive"}
_ALS: Final[Mapping[str, Any]] = {"kind": "als", "config": {"dim": 64, "alpha": 1.0, "regularization": 0.1}}
ITEM_MODELS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "popular": ("popular", {}),
    "als": ("als", _ALS["config"]),
    "content-knn": ("content-knn", {}),
    "content-knn, minilm": ("content-knn", {"content": _MINILM}),
    "content-knn, projected": ("content-knn", {"content": _PROJECTED}),
    "dropoutnet on als": ("dropoutnet", {"base": _ALS}),
    "dropoutnet on als, minilm": ("dropoutnet", {"base": _ALS, "content": _MINILM}),
    "dropoutnet on als, cold_scale 1": ("dropoutnet", {"base": _ALS, "cold_scale": 1.0}),
}
USER_MODELS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "popular": ("popular", {}),
    "item-knn": ("item-knn", {"num_neighbours": 200}),
    "ease": ("ease", {"l2": 700.0}),
    "als": ("als", _ALS["config"]),
    "dropoutnet on als": ("dropoutnet", {"base": _ALS}),
    "melu": ("melu", {}),
    "melu, not adapted": ("melu", {"steps": 0}),
}
WARM_MARGIN: Final = 0.97
"""Least share of its base's NDCG@20 on warm items that a DropoutNet may have."""


def _reached(
    model: Recommender, askers: Askers, targets: Sequence[np.ndarray], filters: Filters
) -> tuple[float, float]:
    """Recall@20 and NDCG@20, means over those who have a target."""
    some = np.array([len(items) > 0 for items in targets])
    asked = askers.without(np.flatnonzero(~some))[1]
    wanted = [items for items in targets if len(items)]
    item_BK, _ = model.recommend(asked, _K, filters)
    relevance_BK = metrics.relevance(item_BK, wanted)
    size_B = np.array([len(items) for items in wanted])
    recall_B = metrics.recall(relevance_BK, size_B, _K)
    ndcg_B = metrics.ndcg(relevance_BK, metrics.ideal_grades(wanted), _K)
    return float(np.mean(recall_B)), float(np.mean(ndcg_B))


def _settings(kind: str, config: Mapping[str, Any], seed: int, effort: Effort) -> dict[str, Any]:
    """With the seed of what has one; a quick run has one pass."""
    found = dict(config)
    if kind in ("dropoutnet", "melu"):
        found |= {"seed": seed} | ({"fit": {"epochs": 1}} if effort.divide > 1 else {})
    projected = dict(found.get("content", {}))
    if projected.get("projection"):
        projected["contrastive"] = {"seed": seed} | ({"steps": 20} if effort.divide > 1 else {})
        found["content"] = projected
    return found


def items_100k(effort: Effort) -> Part:
    """Cold items of MovieLens-100k."""
    return _items("ml-100k", effort)


def items_1m(effort: Effort) -> Part:
    """Cold items of MovieLens-1M."""
    return _items("ml-1m", effort)


def users_100k(effort: Effort) -> Part:
    """Cold people of MovieLens-100k."""
    return _users("ml-100k", effort)


def users_1m(effort: Effort) -> Part:
    """Cold people of MovieLens-1M."""
    return _users("ml-1m", effort)


def _found(data: str, how: str, effort: Effort) -> dict[str, list[list[tuple[float, float]]]]:
    """Of each model and seed, Recall@20 and NDCG@20 of cold items among all, of cold ones among the cold, of warm ones among all."""
    found: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in ITEM_MODELS}
    for seed in SEEDS[:1] if effort.divide > 1 else SEEDS:
        split = cold_items(data, seed, newest=how == "newest")
        askers = Askers.known(split.train)
        for name, (kind, config) in ITEM_MODELS.items():
            model = zoo.fit(kind, split.train, _settings(kind, config, seed, effort))
            found[name].append(
                [
                    _reached(model, askers, split.cold_targets, Filters()),
                    _reached(model, askers, split.cold_targets, Filters(allowed_I=split.cold_I)),
                    _reached(model, askers, split.warm_targets, Filters()),
                ]
            )
            print(f"  {how}, seed {seed}, {name}: {found[name][-1]}", flush=True)
    return found


def _items(data: str, effort: Effort) -> Part:
    """Items that nobody took yet, both ways of drawing them."""
    part = Part(
        f"Cold items of {_NAMES[data]}: Recall@20 / NDCG@20, means over seeds",
        (
            "model",
            "cold items",
            "cold, ranked among all",
            "cold, ranked among the cold",
            "warm, ranked among all",
        ),
    )
    for how in ("drawn", "newest"):
        with patch.object(space, "encode_by_minilm", lambda texts: _encoded(tuple(texts))):  # the same in all
            found = _found(data, how, effort)
        means = {name: np.mean(each, axis=0) for name, each in found.items()}
        for name, mean in means.items():
            part.rows.append((name, how, *(f"{recall:.4f} / {ndcg:.4f}" for recall, ndcg in mean)))
        part.figures[how] = found
        part.target(
            f"dropoutnet on als, {how}: NDCG@20 of warm items as a share of als's",
            means["dropoutnet on als"][2][1] / means["als"][2][1], WARM_MARGIN, "higher",
        )  # fmt: skip
        plain = max(means[name][1][1] for name in ("content-knn", "content-knn, minilm"))
        for name in ("dropoutnet on als", "content-knn, projected"):
            part.target(f"{name}, {how}: NDCG@20 among the cold as a multiple of the best content-knn's",
                        means[name][1][1] / plain, 1.0, "higher")  # fmt: skip
    num_cold = int(COLD_SHARE * log(data).num_items)
    part.notes.append(
        f"{num_cold} of {log(data).num_items} items are cold: a list by chance among them has a Recall@20 of {_K / num_cold:.4f}. Lists of models that "
        "cannot tell them apart (popular, als) are in the order of the catalogue, which is by chance. The temperature and the steps of the projection, and how often a "
        f"DropoutNet shows new items (`cold_exposure`), were chosen on splits of another seed ({TUNED_SEED}); all else is as it first was. What was cold in its draw is cold in none "
        "`drawn` here. The `newest` items are the same ones in all seeds, that one too: their figures are of one set of items, which those choices have seen, and seeds differ in the warm rows that are held "
        "out and in the models' luck."
    )
    return part


@cache
def _encoded(texts: tuple[str, ...]) -> np.ndarray:
    return encode_by_minilm(texts)


def _users(data: str, effort: Effort) -> Part:
    """People with one to five items."""
    part = Part(
        f"Cold people of {_NAMES[data]}: Recall@20 / NDCG@20 by how many items they have, means over seeds",
        ("model", *(f"{num} item{'s' * (num > 1)}" for num in range(1, 6))),
    )
    seeds = SEEDS[:1] if effort.divide > 1 else SEEDS
    found: dict[str, list[list[tuple[float, float]]]] = {name: [] for name in USER_MODELS}
    for seed in seeds:
        split = cold_users(data, seed)
        for name, (kind, config) in USER_MODELS.items():
            model = zoo.fit(kind, split.train, _settings(kind, config, seed, effort))
            found[name].append([])
            for num in range(1, 6):
                asked = Askers.strangers([history_L[:num] for history_L in split.histories], split.attributes)
                rest = [np.setdiff1d(history_L, history_L[:num]) for history_L in split.histories]
                found[name][-1].append(_reached(model, asked, rest, Filters()))
            print(f"  seed {seed}, {name}: {found[name][-1]}", flush=True)
    means = {name: np.mean(each, axis=0) for name, each in found.items()}
    for name, mean in means.items():
        part.rows.append((name, *(f"{recall:.4f} / {ndcg:.4f}" for recall, ndcg in mean)))
    part.figures["users"] = found
    part.target(
        "melu: least multiple over 1 to 5 items of the Recall@20 of popular",
        (means["melu"][:, 0] / means["popular"][:, 0]).min(), 1.0, "higher",
    )  # fmt: skip
    part.notes.append(
        "The first items by time; all others of the person are to be found, among all items of the catalogue."
    )
    return part
