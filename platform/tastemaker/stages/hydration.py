"""Gives candidates the features that the ranker reads: what the sources said, what the item is, how it fits the history.

What the fit knew comes from the bundle's own columns, what happened since from `RequestFeatures`, where the config names
any: in serving those of the newest records, in training and offline those that were known at the request's moment.

Shape letters: K candidates, S sources, F features, L history, I catalogue, D dimension, T tags, V values.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
from pydantic import Field, field_validator

from tastemaker.features.columns import share_of_history
from tastemaker.features.ranking_items import RankingItems
from tastemaker.features.request_features import REQUEST_FEATURES, chosen
from tastemaker.models.popularity import Popularity
from tastemaker.stages.merging import z_scores
from tastemaker.strict import Strict
from tastemaker.types import Candidates, Float32, Int32, Query, VectorRows

ITEM_FEATURES = ("log_count", "log_trending")
HISTORY_FEATURES = (
    "tags_recent", "tags_all", "years_from_recent", "similarity_max", "similarity_mean", "similarity_last",
    "log_history_length", "history_log_count",
)  # fmt: skip


class RequestFeatures(Protocol):
    """Gives the features of `features.request_features` for the candidates of a query."""

    def __call__(self, query: Query, item_index: Int32) -> Float32:
        """All of `REQUEST_FEATURES` (K, F), as of the query's moment; candidates by their item_index."""
        ...


class HydrationConfig(Strict):
    """How much of the history the features see, and what else they tell of the request."""

    half_life: float = Field(5.0, gt=0, description="items back in the history where weight is half")
    recent: int = Field(5, ge=1, description="newest items that a candidate's vector is compared with")
    max_history: int = Field(200, ge=1, description="newest items of the history that are read at all")
    request_features: tuple[str, ...] = Field(
        (),
        description="what of users' records and items' counters is read: item, user, cross, distance, all, or names",
    )

    @field_validator("request_features")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        chosen(names)
        return names


class Hydration:
    """Features of candidates by what the fit knew. Thread-safe.

    Args:
        items: What the items are.
        popularity: Counters as of the fit of the sources that propose the candidates.
        vectors_ID: Unit vectors of the items, by which they are compared.
        source_names: Sources in the order of the candidates' score columns.
        config: How much of the history counts, and which request features.
        request_features: Gives them; needed where the config names any.
        ranked: Those of the sources whose scores are features; unset, all.
    """

    def __init__(
        self,
        items: RankingItems,
        popularity: Popularity,
        vectors_ID: VectorRows,
        source_names: Sequence[str],
        config: HydrationConfig | None = None,
        request_features: RequestFeatures | None = None,
        ranked: Sequence[str] | None = None,
    ) -> None:
        self.config = config or HydrationConfig()
        wanted = chosen(self.config.request_features)
        assert request_features is not None or not wanted, "request features need someone who gives them"
        ranked = source_names if ranked is None else ranked
        self.feature_names = feature_names(ranked, wanted)
        self._ranked_S = np.array([source_names.index(name) for name in ranked], np.int64)
        self._request_features = request_features
        self._wanted_F = np.array([REQUEST_FEATURES.index(name) for name in wanted], np.int64)
        self._items, self._vectors_ID = items, vectors_ID
        self._count_I = np.log1p(popularity.counts_I).astype(np.float32)
        self._trending_I = np.log1p(popularity.trending_I).astype(np.float32)

    def __call__(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """The candidates with `features_KF` in the order of `feature_names`; order and scores stay."""
        return [
            replace(found, features_KF=self._features(query, found))
            for query, found in zip(queries, candidates, strict=True)
        ]

    def _features(self, query: Query, found: Candidates) -> Float32:
        rows_K = found.item_index
        history_L = query.history_L[-self.config.max_history :]
        score_KS = found.source_score_KS[:, self._ranked_S]
        parts = [
            np.nan_to_num(z_scores(score_KS)),
            log_ranks(score_KS),
            self._count_I[rows_K][:, None],
            self._trending_I[rows_K][:, None],
            self._against_history(rows_K, history_L),
        ]
        if self._request_features is not None and len(self._wanted_F):
            parts.append(self._request_features(query, rows_K)[:, self._wanted_F])
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _against_history(self, rows_K: Int32, history_L: Int32) -> Float32:
        """The `HISTORY_FEATURES` (K, 8); zeros where there is no history."""
        out_KF = np.zeros((len(rows_K), len(HISTORY_FEATURES)), np.float32)
        if not len(history_L) or not len(rows_K):
            return out_KF
        weight_L = share_of_history(len(history_L), self.config.half_life)
        recent_RD = self._vectors_ID[history_L[-self.config.recent :]]
        similarity_KR = self._vectors_ID[rows_K] @ recent_RD.T
        by_recency_K, alike_K = self._items.tag_affinities(
            rows_K, history_L, weight_L, np.ones_like(weight_L)
        )
        out_KF[:, 0], out_KF[:, 1] = by_recency_K, alike_K
        out_KF[:, 2] = self._items.year_distance(rows_K, history_L, weight_L)
        out_KF[:, 3] = similarity_KR.max(axis=1)
        out_KF[:, 4] = similarity_KR.mean(axis=1)
        out_KF[:, 5] = similarity_KR[:, -1]
        out_KF[:, 6] = np.log1p(len(history_L))
        out_KF[:, 7] = self._count_I[history_L] @ weight_L
        return out_KF


def feature_names(source_names: Sequence[str], request_features: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the features in order; a bundle's ranker keeps them and refuses others.

    Args:
        source_names: Of the pipeline, in order.
        request_features: As the config names them.
    """
    sources = [f"{name}_z" for name in source_names] + [f"{name}_log_rank" for name in source_names]
    return (*sources, *ITEM_FEATURES, *HISTORY_FEATURES, *chosen(request_features))


def log_ranks(score_KS: Float32) -> Float32:
    """-log(1 + rank) of each source's scores within the request, rank 0 the best; ties in the order given.

    All candidates for which a source has no score share the rank behind those that it scored.

    >>> np.exp(-log_ranks(np.array([[1.0], [3.0], [np.nan]], np.float32))).round().ravel().tolist()
    [2.0, 1.0, 3.0]
    """
    order_KS = np.argsort(-np.nan_to_num(score_KS, nan=-np.inf), axis=0, kind="stable")
    rank_KS = np.empty_like(order_KS)
    np.put_along_axis(rank_KS, order_KS, np.arange(len(score_KS))[:, None], axis=0)
    unknown_KS = np.isnan(score_KS)
    rank_KS = np.where(unknown_KS, (~unknown_KS).sum(axis=0), rank_KS)
    return -np.log1p(rank_KS).astype(np.float32)
