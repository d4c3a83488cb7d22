"""A synthetic catalogue with every source of candidates over it, and users who ask.

Shape letters: I catalogue, D dimension, S segments, G groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from tastemaker.index.building import build_index, fit_efforts
from tastemaker.index.config import IndexConfig
from tastemaker.index.faiss_index import FaissIndex
from tastemaker.models.als import Als, AlsConfig
from tastemaker.models.item_item import ItemItem, ItemItemConfig
from tastemaker.models.popularity import Popularity, PopularityConfig
from tastemaker.models.segments import Segments
from tastemaker.stages.nearest import AlsSource, RecentSource, VectorSource
from tastemaker.stages.neighbours import ItemItemSource
from tastemaker.stages.popular import PopularHeads, PopularSource
from tastemaker.stages.source import Source
from tastemaker.stages.trending import TrendingSource
from tastemaker.types import Float32, Query

DIM, CLUSTERS, NEIGHBOURS, HISTORY = 64, 1000, 100, 50
RECALL = 0.95


class MeanOfVectors:
    """Stands in for a query tower."""

    def __init__(self, vectors_ID: Float32) -> None:
        self._vectors_ID = vectors_ID

    def encode_queries(self, queries: Sequence[Query]) -> Float32:
        """The mean of the history's vectors."""
        return np.stack([self._vectors_ID[query.history_L].mean(axis=0) for query in queries])


@dataclass(frozen=True)
class Contender:
    """A source and what scores the whole catalogue in its place; items that score no more than `least` are none of its own."""

    source: Source
    score: Callable[[Query], Float32]
    least: float = -np.inf


class Catalogue(NamedTuple):
    """All sources over one catalogue, and users who ask."""

    contenders: dict[str, Contender]
    queries: list[Query]


def make_catalogue(num_items: int, num_queries: int) -> Catalogue:
    """Makes it, which takes minutes for a million items."""
    rng = np.random.default_rng(0)
    cluster_I = rng.integers(0, CLUSTERS, num_items)
    vectors_ID = _clustered(rng, cluster_I)
    factors_ID = _clustered(rng, cluster_I) * rng.gamma(2.0, 0.5, (num_items, 1)).astype(np.float32)
    towers = build_index(vectors_ID, IndexConfig()).index
    encoder, als = MeanOfVectors(vectors_ID), Als(AlsConfig(dim=DIM, half_life=5.0), factors_ID)
    graph = FaissIndex.build(factors_ID, IndexConfig(kind="hnsw"))
    users = [query.history_L for query in questions(200, cluster_I, rng)]
    factors, _ = fit_efforts(graph, als.fold_in(users), RECALL)
    knn, popularity = _knn(rng, num_items), _popularity(rng, num_items)
    popular = PopularSource("popular", PopularHeads(popularity))

    def nearest(query: Query) -> Float32:
        return vectors_ID @ encoder.encode_queries([query])[0]

    def recent(query: Query) -> Float32:
        weights = 0.5 ** (np.arange(3)[::-1, None] / 5)
        return (vectors_ID @ (vectors_ID[query.history_L[-3:]] * weights).T.astype(np.float32)).max(axis=1)

    def in_context(query: Query) -> Float32:
        return popularity.in_context(query.context)

    found = {
        "two_tower": Contender(VectorSource("two_tower", encoder, towers), nearest),
        "als": Contender(AlsSource("als", als, factors), lambda query: als.scores([query.history_L])[0]),
        "knn": Contender(ItemItemSource("knn", knn), lambda query: _laid_out(knn, query), 0.0),
        "recent": Contender(RecentSource("recent", towers), recent),
        "popular": Contender(popular, in_context),
        "trending": Contender(TrendingSource("trending", popular), in_context),
    }
    return Catalogue(found, questions(num_queries, cluster_I, rng))


def _clustered(rng: np.random.Generator, cluster_I: Any) -> Float32:
    vectors_ID = rng.standard_normal((CLUSTERS, DIM), np.float32)[cluster_I]
    vectors_ID += np.float32(0.8) * rng.standard_normal(vectors_ID.shape, np.float32)
    vectors_ID /= np.linalg.norm(vectors_ID, axis=1, keepdims=True)
    return vectors_ID


def _knn(rng: np.random.Generator, num_items: int) -> ItemItem:
    indptr = np.arange(num_items + 1, dtype=np.int64) * NEIGHBOURS
    indices = rng.integers(0, num_items, num_items * NEIGHBOURS, np.int32)
    data = rng.random(len(indices), np.float32)
    weights = sp.csr_matrix((data, indices, indptr), (num_items, num_items))
    return ItemItem(ItemItemConfig(kind="cosine", num_items=num_items, half_life=5.0), weights)


def _laid_out(model: ItemItem, query: Query) -> Float32:
    weights = 0.5 ** (np.arange(len(query.history_L))[::-1] / 5)
    history = model.weights()[query.history_L]
    return np.bincount(
        history.indices, history.data * np.repeat(weights, np.diff(history.indptr)), model.config.num_items
    ).astype(np.float32)


def _popularity(rng: np.random.Generator, num_items: int) -> Popularity:
    segments = tuple(f"category=c{c}" for c in range(50))
    groups = ("device=mobile", "device=desktop", "device=tv")
    category_I = rng.integers(0, len(segments), num_items)
    members = Segments.of(num_items, [np.flatnonzero(category_I == c) for c in range(len(segments))])
    counts_I = rng.zipf(1.3, num_items).clip(max=10**6).astype(np.float32)
    trending_I = (counts_I * rng.random(num_items)).astype(np.float32)
    group_GI = rng.random((len(groups), num_items), np.float32)
    config = PopularityConfig(num_items=num_items, segments=segments, groups=groups)
    return Popularity(config, counts_I, trending_I, members, group_GI)


def questions(num: int, cluster_I: Any, rng: np.random.Generator) -> list[Query]:
    """Users who take from a few clusters, on devices, some of them looking at a category."""
    order_I = np.argsort(cluster_I, kind="stable")
    start_C = np.searchsorted(cluster_I[order_I], np.arange(CLUSTERS + 1))
    found = []
    for n in range(num):
        own = rng.choice(CLUSTERS, 4)
        items = np.concatenate([rng.choice(order_I[start_C[c] : start_C[c + 1]], HISTORY // 4) for c in own])
        context = {"device": str(rng.choice(["mobile", "desktop", "tv"]))}
        context |= {"category": f"c{rng.integers(5)}"} if n % 4 == 0 else {}
        history_L = rng.permutation(np.unique(items)).astype(np.int32)
        found.append(Query(history_L, k=50, context=context, user_id=f"u{n}"))
    return found
