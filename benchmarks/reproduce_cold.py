"""Cold items and cold people of MovieLens: no published figures, models beside each other over seeds.

What counts is a rating of 4 or more. Items: those of a tenth are taken out of the log, drawn by chance or those that came into it last,
and lists are asked for by the users who took them, among all items and among the cold alone; of the other items a tenth of each
user's rows is held out beside, to see what a model does to them. People: a fifth of the users is taken out, and asks with the
first one to five of their items, attributes given. MovieLens-100k takes minutes; MovieLens-1M, an hour and more, is run when it is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from pyarrow import csv
from reproduce_data import Ratings, folder, ratings
from turns import Effort, Part

from tastemaker.data.schema import ITEMS_SCHEMA
from tastemaker.evaluation import metrics
from tastemaker.features.content import space
from tastemaker.features.content.minilm import encode as encode_by_minilm
from tastemaker.models import zoo
from tastemaker.models.log import Askers, Filters, Log
from tastemaker.models.recommender import Recommender
from tastemaker.users.profile import age_band

SEEDS: Final = (0, 1, 2)
TUNED_SEED: Final = 100
"""Of the splits on which settings were chosen."""
_NAMES: Final = {"ml-100k": "MovieLens-100k", "ml-1m": "MovieLens-1M"}
_K: Final = 20
_LIKED: Final = 4.0
_LEAST: Final = 5
_COLD: Final = 0.1
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


@dataclass(frozen=True)
class ColdItems:
    """What is learned from; whom to ask; and what they took of cold and of warm items."""

    train: Log
    cold_I: np.ndarray
    cold_targets: Sequence[np.ndarray]
    warm_targets: Sequence[np.ndarray]


@dataclass(frozen=True)
class ColdUsers:
    """What is learned from, and what the others took, in order of time, with what is known of them."""

    train: Log
    histories: Sequence[np.ndarray]
    attributes: pa.Table


@cache
def log(data: str) -> Log:
    """Ratings of 4 and more of items and users with five of them; ml-100k or ml-1m."""
    found = ratings(data)
    found = found.where(found.rating_N >= _LIKED).core(_LEAST)
    whole = found.log()
    order_I = np.random.default_rng(0).permutation(whole.num_items)  # ids of ml-100k tell what is popular
    found = replace(found, item_ids=[found.item_ids[item] for item in order_I])
    return Log.of(
        whole.user_N, np.argsort(order_I)[whole.item_N], num_users=whole.num_users, num_items=whole.num_items,
        timestamp_ms_N=whole.timestamp_ms_N, items=_movies(data, found), users=_people(data, found),
    )  # fmt: skip


def _movies(data: str, found: Ratings) -> pa.Table:
    """Titles; genres and the year as tags."""
    table, ids = _file(data, "item", found.item_ids), found.item_ids
    genres = table["genre"] if "genre" in table else table["class"]
    years = [str(year).partition(".")[0] for year in table["release_year"]]
    tags = [
        [*str(words).split(), *([f"year {year}"] if year.isdigit() else ())]
        for words, year in zip(genres, years, strict=True)
    ]
    columns: list[list[Any]] = [
        ids,
        [str(title) for title in table["movie_title"]],
        [""] * len(ids),
        tags,
        [None] * len(ids),
    ]
    return pa.table(dict(zip(ITEMS_SCHEMA.names, columns, strict=True)), schema=ITEMS_SCHEMA)


def _people(data: str, found: Ratings) -> pa.Table:
    """Age band, gender and occupation as words."""
    table = _file(data, "user", found.user_ids)
    told = {name: [str(value) for value in table[name]] for name in ("gender", "occupation")}
    return pa.table({"age_band": [age_band(int(age)) for age in table["age"]], **told})


def _file(data: str, what: str, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of the file of users or items, a row for each id."""
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    table = csv.read_csv(folder(data) / f"{data}.{what}", parse_options=options)
    table = table.rename_columns([column.partition(":")[0] for column in table.column_names])
    at = {str(value): row for row, value in enumerate(table.column(f"{what}_id").to_pylist())}
    order = [at[one] for one in ids]
    return {name: table.column(name).to_numpy(zero_copy_only=False)[order] for name in table.column_names}


def cold_items(data: str, seed: int, *, newest: bool) -> ColdItems:
    """A tenth of the items, by chance or those first taken last, and of the rest a tenth of each user's rows."""
    whole, draws = log(data), np.random.default_rng(seed)
    cold_I = _newest(whole) if newest else _drawn(whole, draws, seed)
    is_cold_N = cold_I[whole.item_N]
    warm_test_N = ~is_cold_N & (draws.random(len(whole)) < _COLD)
    train = _rows(whole, ~is_cold_N & ~warm_test_N)
    return ColdItems(train, cold_I, _of_users(whole, is_cold_N), _of_users(whole, warm_test_N))


def _newest(whole: Log) -> np.ndarray:
    """(I,) the tenth of the items that was first taken last: the same for all seeds."""
    first_ms_I = np.full(whole.num_items, np.iinfo(np.int64).max)
    np.minimum.at(first_ms_I, whole.item_N, whole.timestamp_ms_N)
    cold_I = np.zeros(whole.num_items, bool)
    cold_I[np.argsort(first_ms_I, kind="stable")[-int(_COLD * whole.num_items) :]] = True
    return cold_I


def _drawn(whole: Log, draws: np.random.Generator, seed: int) -> np.ndarray:
    """(I,) a tenth of the items by chance, none of which was cold in the split that settings were chosen on."""
    order_I = draws.permutation(whole.num_items)
    if seed != TUNED_SEED:
        tuned_I = _drawn(whole, np.random.default_rng(TUNED_SEED), TUNED_SEED)
        order_I = order_I[~tuned_I[order_I]]
    cold_I = np.zeros(whole.num_items, bool)
    cold_I[order_I[-int(_COLD * whole.num_items) :]] = True
    return cold_I


def cold_users(data: str, seed: int) -> ColdUsers:
    """A fifth of the users, by chance, is not learned from."""
    whole, draws = log(data), np.random.default_rng(seed)
    out_U = draws.random(whole.num_users) < 0.2
    users = np.flatnonzero(out_U)
    known = Askers.known(whole, users.astype(np.int32))
    assert known.attributes is not None
    return ColdUsers(_rows(whole, ~out_U[whole.user_N]), known.histories, known.attributes)


def _rows(whole: Log, kept_N: np.ndarray) -> Log:
    return Log.of(
        whole.user_N[kept_N], whole.item_N[kept_N], num_users=whole.num_users, num_items=whole.num_items,
        timestamp_ms_N=whole.timestamp_ms_N[kept_N], items=whole.items, users=whole.users,
    )  # fmt: skip


def _of_users(whole: Log, kept_N: np.ndarray) -> list[np.ndarray]:
    return _rows(whole, kept_N).histories()


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
    num_cold = int(_COLD * log(data).num_items)
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
