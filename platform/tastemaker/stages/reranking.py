"""Soft rules on the ranked list: impression fatigue, variety by maximal marginal relevance, a cap per category, luck.

The result is a permutation of the input: nothing is added or lost, and what a rule defers comes later. Fatigue may move
any candidate; the first few of what it leaves stay, whatever the other rules say. Hard rules are `filtering`'s.

Shape letters: K candidates, M head that is reordered, I catalogue, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from tastemaker.config import Strict
from tastemaker.errors import CompatibilityError
from tastemaker.stages.exploring import Exploration
from tastemaker.stages.fatigue import FatigueConfig, RowOf, fatigue
from tastemaker.types import Candidates, Float32, Int32, Query


class MmrConfig(Strict):
    """Maximal marginal relevance [Carbonell and Goldstein 1998, Eq. 1]."""

    weight: float = Field(
        0.7, ge=0, le=1, description="of relevance; the rest goes to being unlike what stands before"
    )
    head: int = Field(
        50, ge=1, le=500, description="best-ranked candidates that are reordered; later ones stay"
    )


class CategoryCapConfig(Strict):
    """At most so many items of one category on each page of the list; prefixes do not depend on how long it is."""

    page: int = Field(10, ge=1, description="items on a page")
    max_per_category: int = Field(
        6, ge=1, description="items of one category on a page; items without one are free"
    )


class RerankingConfig(Strict):
    """Which soft rules apply."""

    keep_top: int = Field(3, ge=0, description="first candidates that variety and cap leave in place")
    fatigue: FatigueConfig | None = Field(
        default_factory=FatigueConfig, description="what was shown often sinks; null switches it off"
    )
    mmr: MmrConfig | None = Field(default_factory=MmrConfig, description="variety; null switches it off")
    category_cap: CategoryCapConfig | None = Field(
        default_factory=CategoryCapConfig, description="cap per category; null switches it off"
    )


@dataclass(frozen=True, slots=True)
class RerankingItems:
    """What reranking knows of the items: unit vectors float32 (I, D) and category int32 (I,), -1 for none."""

    vectors_ID: Float32
    category_I: Int32

    def __post_init__(self) -> None:
        """Refuses columns of two catalogues."""
        if len(self.vectors_ID) != len(self.category_I):
            raise CompatibilityError(
                "items of reranking", value=f"{len(self.vectors_ID)} vectors, {len(self.category_I)} categories",
                limit="one catalogue", mend="load both from one bundle",
            )  # fmt: skip


class Reranking:
    """Reorders ranked candidates by the soft rules. Thread-safe.

    Args:
        items: Of the catalogue.
        config: Which rules apply.
        row_of: Finds the items that a user's record names; unset, records are not read.
        exploration: Has the last word; unset, nothing is explored.
    """

    def __init__(
        self,
        items: RerankingItems,
        config: RerankingConfig | None = None,
        row_of: RowOf | None = None,
        exploration: Exploration | None = None,
    ) -> None:
        self.items, self.config, self._row_of = items, config or RerankingConfig(), row_of
        self._exploration = exploration

    def __call__(self, queries: Sequence[Query], candidates: Sequence[Candidates]) -> list[Candidates]:
        """Each query's candidates (best first) in their new order. Scores stay with their items."""
        slates = [self._one(query, ranked) for query, ranked in zip(queries, candidates, strict=True)]
        if self._exploration is None:
            return slates
        return [self._exploration(query, slate) for query, slate in zip(queries, slates, strict=True)]

    def _one(self, query: Query, ranked: Candidates) -> Candidates:
        if len(ranked) <= 1:
            return ranked
        ranked, relevance_K = self._fatigued(query, ranked)
        if len(ranked) <= self.config.keep_top:
            return ranked
        order_K = np.arange(len(ranked))
        if self.config.mmr is not None:
            order_K = self._diversify(ranked, relevance_K, self.config.mmr)
        if self.config.category_cap is not None:
            order_K = self._cap(ranked, order_K, query.k, self.config.category_cap)
        return ranked.take(order_K)

    def _fatigued(self, query: Query, ranked: Candidates) -> tuple[Candidates, Float32]:
        """The candidates by relevance less fatigue, and that (K,)."""
        num_head = len(ranked) if self.config.mmr is None else self.config.mmr.head
        relevance_K = relevance(ranked.score, num_head)
        if self.config.fatigue is None or self._row_of is None:
            return ranked, relevance_K
        cost_K = fatigue(query, ranked.item_index, self._row_of, self.config.fatigue)
        if cost_K is None:
            return ranked, relevance_K
        left_K: Float32 = (relevance_K - cost_K).astype(np.float32)
        order_K = np.argsort(-left_K, kind="stable")
        return ranked.take(order_K), left_K[order_K]

    def _diversify(self, ranked: Candidates, relevance_K: Float32, mmr: MmrConfig) -> np.ndarray:
        num_head = min(mmr.head, len(ranked))
        vectors_MD = self.items.vectors_ID[ranked.item_index[:num_head]]
        similarity_MM = vectors_MD @ vectors_MD.T
        head_M = mmr_order(relevance_K[:num_head], similarity_MM, mmr.weight, self.config.keep_top)
        return np.concatenate([head_M, np.arange(num_head, len(ranked))])

    def _cap(self, ranked: Candidates, order_K: np.ndarray, k: int, cap: CategoryCapConfig) -> np.ndarray:
        """Fills the pages that the first k span, each with the best that its cap lets in, then others; the rest follows."""
        pages, left = [], order_K
        for page in range(-(-min(k, len(order_K)) // cap.page)):
            category = self.items.category_I[ranked.item_index[left]]
            within = (occurrence(category) < cap.max_per_category) | (category < 0)
            within[: max(self.config.keep_top - page * cap.page, 0)] = True
            taken = np.argsort(~within, kind="stable")[: cap.page]
            pages.append(left[taken])
            left = np.delete(left, taken)
        return np.concatenate([*pages, left])


def relevance(score_K: Float32, num_head: int) -> Float32:
    """Scores (best first) as relevance: log-odds of probabilities, scaled so that the head goes from 1 to 0.

    Later candidates lie below 0. Where the head's scores are equal it is 1 for them, and 0 for later candidates. The
    probabilities of clicks crowd near 0, and their differences with them; log-odds spread them as the ranker saw them.
    Scores that leave 0..1 are no probabilities (retrieval's are not) and are scaled as they are.
    """
    value_K = score_K.astype(np.float64)
    if value_K.min() >= 0 and value_K.max() <= 1:
        p_K = np.clip(value_K, 1e-9, 1 - 1e-9)
        value_K = np.log(p_K) - np.log1p(-p_K)
    low, high = float(value_K[:num_head].min()), float(value_K[:num_head].max())
    if high - low < 1e-12:
        return (value_K >= low).astype(np.float32)
    scaled_K: Float32 = ((value_K - low) / (high - low)).astype(np.float32)
    return scaled_K


def mmr_order(relevance_M: Float32, similarity_MM: Float32, weight: float, keep_top: int) -> np.ndarray:
    """The greedy order of maximal marginal relevance, int64 (M,).

    Next comes the i with the largest weight * relevance_i - (1 - weight) * max_{j before} similarity_ij
    [Carbonell and Goldstein 1998, Eq. 1]; ties go to the lower position. The first `keep_top` stay, and count as before.

    >>> similarity = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]], np.float32)
    >>> mmr_order(np.array([1.0, 0.9, 0.6], np.float32), similarity, weight=0.5, keep_top=1).tolist()
    [0, 2, 1]
    """
    num = len(relevance_M)
    keep_top = min(max(keep_top, 1), num)
    order_M = np.empty(num, np.int64)
    order_M[:keep_top] = np.arange(keep_top)
    base_M = weight * relevance_M.astype(np.float64)
    penalty_MM = (1.0 - weight) * similarity_MM.astype(np.float64)
    worst_M = penalty_MM[:keep_top].max(axis=0)
    base_M[:keep_top] = -np.inf
    for position in range(keep_top, num):
        best = int(np.argmax(base_M - worst_M))
        order_M[position] = best
        base_M[best] = -np.inf
        np.maximum(worst_M, penalty_MM[best], out=worst_M)
    return order_M


def occurrence(category_K: Int32) -> np.ndarray:
    """How many items before each have its category, int64 (K,).

    >>> occurrence(np.array([7, 3, 7, 7], np.int32)).tolist()
    [0, 0, 1, 2]
    """
    order_K = np.argsort(category_K, kind="stable")
    sorted_K = category_K[order_K]
    starts_K = np.r_[True, sorted_K[1:] != sorted_K[:-1]] if len(sorted_K) else np.empty(0, bool)
    begin_K = np.maximum.accumulate(np.where(starts_K, np.arange(len(sorted_K)), 0))
    count_K = np.empty(len(category_K), np.int64)
    count_K[order_K] = np.arange(len(category_K)) - begin_K
    return count_K
