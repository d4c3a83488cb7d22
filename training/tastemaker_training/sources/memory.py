"""Models that are solved for rather than trained: baselines of every comparison, and sources of the pipeline.

Each is fitted twice: on train, for validation and the ranker's data, and on train with validation, for test and
release. Half-lives of the query history are chosen on validation.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from tastemaker.data.schema import Column, Dataset
from tastemaker.data.splits import Histories, Split
from tastemaker.evaluation.offline import Recommend, evaluate
from tastemaker.home import write_json
from tastemaker.models.als import Als, fit_als
from tastemaker.models.item_item import ItemItem, fit_ease, fit_item_knn
from tastemaker.models.popularity import Popularity, PopularityConfig, fit_popularity
from tastemaker.stages.nearest import AlsSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.popular import PopularSource
from tastemaker.stages.source import Source, top_allowed
from tastemaker.stages.trending import TrendingSource
from tastemaker.terminal import progress
from tastemaker.types import Float32, Int32, Query
from tastemaker_training.artifacts import Stateful, load_model, save_model
from tastemaker_training.plan.recipe import MemoryConfig
from tastemaker_training.sources.user_groups import with_groups

FITS = ("train", "refit")
"""Folders of the two fits: on train, and on train with validation."""
_CHOSEN = "half_lives.json"
_READ_BY_RECENCY = ("item_knn", "ease", "als")


@dataclass(frozen=True)
class Memory:
    """One fit of them all. The `recent_` ones weigh the history by a half-life, the others all of it alike."""

    popularity: Popularity
    item_knn: ItemItem
    recent_item_knn: ItemItem
    ease: ItemItem
    recent_ease: ItemItem
    als: Als
    recent_als: Als

    def baselines(self) -> dict[str, Source]:
        """Those that are as good a baseline as they serve, under the names of the offline table."""
        return {
            "popularity": PopularSource("popularity", _of_all_time(self.popularity)),
            "item-kNN": ItemItemSource("item-kNN", self.item_knn),
            "item-kNN, recency": ItemItemSource("item-kNN, recency", self.recent_item_knn),
            "ALS": AlsSource("ALS", self.als),
            "ALS, recency": AlsSource("ALS, recency", self.recent_als),
        }

    def sources(self) -> dict[str, Source]:
        """Those that a pipeline may name."""
        popular = PopularSource("popular", self.popularity)
        return {
            "ease": ItemItemSource("ease", self.recent_ease),
            "knn": ItemItemSource("knn", self.recent_item_knn),
            "als": AlsSource("als", self.recent_als),
            "popular": popular,
            "trending": TrendingSource("trending", popular),
        }


def fit_memory(
    dataset: Dataset, split: Split, config: MemoryConfig, folder: Path, group_U: Sequence[str | None]
) -> None:
    """Fits everything twice and writes it, with the chosen half-lives, into `folder`; `group_U` are users' groups."""
    with progress("fitting baselines", 4 * len(FITS)) as advance:
        for name, histories in zip(FITS, (split.train, split.train_validation), strict=True):
            for model_name, model in _fits(dataset, histories, config, group_U):
                save_model(folder / name, model_name, model)
                advance(1)
    recent = {name: _half_life(folder, name, split, config, dataset.num_items) for name in _READ_BY_RECENCY}
    write_json(folder / _CHOSEN, recent)


def _fits(
    dataset: Dataset, histories: Histories, config: MemoryConfig, group_U: Sequence[str | None]
) -> Iterator[tuple[str, Stateful]]:
    matrix_UI = histories.to_csr(dataset.num_items)
    times = histories.timestamp_ms
    assert times is not None, "histories of a dataset have times"
    tags: list[list[str]] = [tags or [] for tags in dataset.items.column(Column.TAGS).to_pylist()]
    categories: list[str | None] = dataset.items.column(Column.CATEGORY).to_pylist()
    popularity = fit_popularity(
        histories.item_index, times, dataset.num_items, tags=tags, categories=categories
    )
    yield "popularity", with_groups(popularity, histories, group_U, config.groups)
    knn, ease = config.item_knn, config.ease
    yield "item_knn", fit_item_knn(matrix_UI, similarity=knn.similarity, num_neighbours=knn.num_neighbours)
    yield "ease", fit_ease(matrix_UI, ease.l2, keep=ease.keep)
    yield "als", fit_als(matrix_UI, config.als)


def _half_life(folder: Path, name: str, split: Split, config: MemoryConfig, num_items: int) -> float:
    """The half-life of the best NDCG@10 on validation."""
    ndcg = {}
    for half_life in config.half_lives:
        recommend = recommend_by(_recent_source(folder / FITS[0], name, half_life))
        description = f"{name}: trying half-life {half_life:g}"
        found = evaluate(recommend, split.train, split.validation, num_items, (10,), description=description)
        ndcg[half_life] = float(found.per_user["ndcg@10"].mean())
    return max(ndcg, key=ndcg.__getitem__)


def _recent_source(folder: Path, name: str, half_life: float) -> Source:
    if name == "als":
        return AlsSource(name, _recent_als(load_model(folder, name, Als), half_life))
    return ItemItemSource(name, load_model(folder, name, ItemItem).with_half_life(half_life))


def recommend_by(source: Source) -> Recommend:
    """One source alone as a recommender."""

    def recommend(queries: Sequence[Query], k: int) -> list[Int32]:
        rows_BK, _ = source.propose(queries, k)
        return [rows[rows >= 0] for rows in rows_BK]

    return recommend


class UnprunedEase:
    """EASE with all its weights; a baseline should not pay for the pruning of what serves.

    Scores are h - (h P) / diag(P) with P = (X'X + l2)^-1 [Steck 2019, Eq. 8]. With fewer users than items h P comes
    from the users' side (Woodbury), and no matrix of items by items is ever made.
    """

    def __init__(self, histories_UI: sp.csr_matrix, l2: float) -> None:
        self._X_UI, self._l2 = sp.csr_matrix(histories_UI, dtype=np.float64), l2
        num_users, num_items = self._X_UI.shape
        self._by_users = num_users < num_items
        if self._by_users:
            gram_UU = (self._X_UI @ self._X_UI.T).toarray() + l2 * np.eye(num_users)
            self._solved = scipy.linalg.solve(gram_UU, self._X_UI.toarray(), assume_a="pos")
            self._diagonal_I = (1 - np.asarray(self._X_UI.multiply(self._solved).sum(axis=0)).ravel()) / l2
        else:
            self._solved = scipy.linalg.inv((self._X_UI.T @ self._X_UI).toarray() + l2 * np.eye(num_items))
            self._diagonal_I = np.diagonal(self._solved)

    def scores(self, asked_BI: sp.csr_matrix) -> Float32:
        """Scores (B, I) of weighted histories."""
        if self._by_users:
            product_BI = (asked_BI.toarray() - (asked_BI @ self._X_UI.T) @ self._solved) / self._l2
        else:
            product_BI = asked_BI @ self._solved
        return np.asarray(asked_BI.toarray() - product_BI / self._diagonal_I, np.float32)

    def recommender(self, half_life: float | None) -> Recommend:
        """It as a recommender that reads histories with a half-life."""

        def recommend(queries: Sequence[Query], k: int) -> list[Int32]:
            asked = Histories.from_lists([query.history_L for query in queries])
            score_BI = self.scores(asked.to_csr(self._X_UI.shape[1], half_life))
            return [top_allowed(score_I, q, k)[0] for score_I, q in zip(score_BI, queries, strict=True)]

        return recommend


def _of_all_time(popularity: Popularity) -> Popularity:
    """The counts alone: the baseline has neither trend nor segments."""
    counts_I, num_items = popularity.counts_I, len(popularity.counts_I)
    config = PopularityConfig(num_items=num_items)
    return Popularity(config, counts_I, counts_I, np.zeros((0, num_items), bool))


def load_memory(folder: Path, fit: str) -> Memory:
    """What `fit_memory` wrote of one of the `FITS`."""
    chosen = json.loads((folder / _CHOSEN).read_text(encoding="utf-8"))
    popularity = load_model(folder / fit, "popularity", Popularity)
    item_knn = load_model(folder / fit, "item_knn", ItemItem)
    ease = load_model(folder / fit, "ease", ItemItem)
    als = load_model(folder / fit, "als", Als)
    return Memory(
        popularity=popularity,
        item_knn=item_knn,
        recent_item_knn=item_knn.with_half_life(chosen["item_knn"]),
        ease=ease,
        recent_ease=ease.with_half_life(chosen["ease"]),
        als=als,
        recent_als=_recent_als(als, chosen["als"]),
    )


def _recent_als(model: Als, half_life: float) -> Als:
    return Als(model.config.model_copy(update={"half_life": half_life}), model.item_factors_ID)
