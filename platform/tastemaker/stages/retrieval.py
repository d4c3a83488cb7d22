"""Retrieval: several sources propose items, hard rules inside each, and one merged list comes out.

Every source then scores every candidate, whoever proposed it, so that the ranker compares like with like. Not
for ordering finely: the merged score is what stands in when there is no ranker.

Shape letters: B requests, K candidates, S sources, I catalogue, D dimension.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pydantic import Field, field_validator

from tastemaker.config import Strict
from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.models.als import Als
from tastemaker.models.item_item import ItemItem
from tastemaker.models.popularity import Popularity
from tastemaker.stages.cold_start import ColdStart, ColdStartConfig
from tastemaker.stages.session import QueryVectors, SessionConfig
from tastemaker.types import Bool, Candidates, Float32, Int32, Query, UInt32

if TYPE_CHECKING:
    from tastemaker.index.faiss_index import VectorIndex

MAX_SOURCES = 31  # bits of a source mask, less that of exploration


class SourceConfig(Strict):
    """One source's part in the merged list."""

    name: str = Field(description="name of the source")
    quota: int = Field(100, ge=1, description="items that it proposes; more where the request asks for more")
    weight: float = Field(1.0, ge=0, description="weight of its z-score in the merged score")


class ContentSourceConfig(Strict):
    """How a history without a record counts, whose items have order but neither weight nor time."""

    half_life: float = Field(5.0, gt=0, description="items back in the history where weight is half")
    max_history: int = Field(50, ge=1, description="newest items of the history that count")


class RetrievalConfig(Strict):
    """Which sources are asked, and how many candidates go on."""

    sources: tuple[SourceConfig, ...] = Field(
        min_length=1, max_length=MAX_SOURCES, description="in mask-bit order"
    )
    num_candidates: int = Field(
        300, ge=1, description="most candidates that go on; more where the request asks for more"
    )
    session: SessionConfig = Field(
        default_factory=SessionConfig, description="how the session under way moves the user's vector"
    )
    content: ContentSourceConfig = Field(
        default_factory=ContentSourceConfig, description="what the source `content` reads of a history"
    )
    cold_start: ColdStartConfig = Field(
        default_factory=ColdStartConfig, description="what content counts for items that few have taken"
    )

    @field_validator("sources")
    @classmethod
    def _distinct(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        if len({source.name for source in sources}) < len(sources):
            raise ValueError("sources that are named once each")
        return sources


class Asked(Protocol):
    """A source with one batch of queries already encoded. Used by one thread."""

    def propose(self, k: int) -> tuple[Int32, Float32]:
        """The k best rows that the hard rules allow, (B, k), best first with their scores.

        Where a source has fewer, -1 and -inf fill the end.
        """
        ...

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        """Scores of given rows, one array per query; NaN where the source has nothing to say."""
        ...


class Source(ABC):
    """What proposes candidates. Sources are immutable and may be asked from several threads."""

    name: str
    needs_history: bool = True

    @abstractmethod
    def ask(self, queries: Sequence[Query]) -> Asked:
        """Encodes the queries, once for both proposing and scoring."""

    def propose(self, queries: Sequence[Query], k: int) -> tuple[Int32, Float32]:
        """See `Asked.propose`."""
        return self.ask(queries).propose(k)

    def score(self, queries: Sequence[Query], items: Sequence[Int32]) -> list[Float32]:
        """See `Asked.score`."""
        return self.ask(queries).score(items)


def forbidden(query: Query) -> Int32:
    """Rows that the query's lists forbid, repeats included; `query.allowed` stands beside it."""
    return np.concatenate((query.exclude, query.history_L)) if query.exclude_seen else query.exclude


class _AskedScores:
    """Scores of the whole catalogue at hand.

    `known_B` says which queries the source can answer; it proposes only items that score above `least`.
    """

    def __init__(
        self, queries: Sequence[Query], score_BI: Float32, known_B: Bool, least: float = -np.inf
    ) -> None:
        self._queries, self._score_BI, self._known_B, self._least = queries, score_BI, known_B, least

    def propose(self, k: int) -> tuple[Int32, Float32]:
        rows = np.full((len(self._queries), k), -1, np.int32)
        scores = np.full((len(self._queries), k), -np.inf, np.float32)
        for b, query in enumerate(self._queries):
            if self._known_B[b]:
                row, score = top_allowed(self._score_BI[b], query, k, self._least)
                rows[b, : len(row)], scores[b, : len(row)] = row, score
        return rows, scores

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        return [
            self._score_BI[b, rows] if self._known_B[b] else np.full(len(rows), np.nan, np.float32)
            for b, rows in enumerate(items)
        ]


def top_allowed(score_I: Float32, query: Query, k: int, least: float = -np.inf) -> tuple[Int32, Float32]:
    """The at most k best rows above `least` that the query's hard rules allow, with their scores; ties by row."""
    masked_I = score_I.copy() if query.allowed is None else np.where(query.allowed, score_I, -np.inf)
    masked_I[forbidden(query)] = -np.inf
    rows = np.flatnonzero(masked_I > least)
    if len(rows) > k:
        border = np.partition(masked_I, len(masked_I) - k)[len(masked_I) - k]
        rows = np.flatnonzero(masked_I >= border)  # all ties at the border: the lowest rows of them stay
    order = np.argsort(-masked_I[rows], kind="stable")[:k]
    return rows[order].astype(np.int32), masked_I[rows[order]].astype(np.float32)


def _has_history(queries: Sequence[Query]) -> Bool:
    return np.array([len(query.history_L) > 0 for query in queries], bool)


class ItemItemSource(Source):
    """Items near those in the history, by EASE or kNN weights; those that the history speaks for, above 0."""

    def __init__(self, name: str, model: ItemItem) -> None:
        self.name, self._model = name, model

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        score_BI = self._model.scores([query.history_L for query in queries])
        return _AskedScores(queries, score_BI, _has_history(queries), least=0.0)


class PopularSource(Source):
    """What is taken lately and of all time, raised where the query's context names a segment."""

    needs_history = False

    def __init__(self, name: str, model: Popularity) -> None:
        self.name, self._model = name, model

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        score_BI = np.stack([self._model.in_context(query.context) for query in queries])
        return _AskedScores(queries, score_BI, np.ones(len(queries), bool))


class TwoTowerSource(Source):
    """Items whose vectors, by the item tower, are nearest to the history's, by the query tower."""

    def __init__(self, name: str, encoder: QueryVectors, index: "VectorIndex") -> None:
        self.name, self._encoder, self._index = name, encoder, index
        self._vectors_ID = index.vectors()

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        vector_BD = self._encoder.encode_queries(queries)
        return AskedIndex(queries, vector_BD, _has_history(queries), self._index, self._vectors_ID)


class AskedIndex:
    """Vectors of the queries and the index to search; `known_B` says which queries have one."""

    def __init__(
        self,
        queries: Sequence[Query],
        vector_BD: Float32,
        known_B: Bool,
        index: "VectorIndex",
        vectors_ID: Float32,
    ) -> None:
        self._queries, self._vector_BD, self._known_B = queries, vector_BD, known_B
        self._index, self._vectors_ID = index, vectors_ID

    def propose(self, k: int) -> tuple[Int32, Float32]:
        """See `Asked.propose`."""
        allowed = [query.allowed for query in self._queries]
        found = self._index.search(self._vector_BD, k, allowed, [forbidden(query) for query in self._queries])
        rows, scores = found
        rows[~self._known_B], scores[~self._known_B] = -1, -np.inf
        return rows, scores

    def score(self, items: Sequence[Int32]) -> list[Float32]:
        """See `Asked.score`."""
        return [
            self._vectors_ID[rows] @ vector if known else np.full(len(rows), np.nan, np.float32)
            for rows, vector, known in zip(items, self._vector_BD, self._known_B, strict=True)
        ]


class AlsSource(Source):
    """ALS factors, the history folded in."""

    def __init__(self, name: str, model: Als) -> None:
        self.name, self._model = name, model

    def ask(self, queries: Sequence[Query]) -> Asked:
        """See `Source.ask`."""
        score_BI = self._model.scores([query.history_L for query in queries])
        return _AskedScores(queries, score_BI, _has_history(queries))


class Retrieval:
    """Asks all configured sources and merges what they propose.

    Args:
        sources: By name; those that the config does not name are left out.
        config: Which, and how they count.
        interactions_I: How many have taken each item; unset, sources count alike for all items.
        fresh: Proposes beside all others, with the next mask bit and without scores; what it proposes goes on in any case.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        config: RetrievalConfig,
        interactions_I: Float32 | None = None,
        fresh: Source | None = None,
    ) -> None:
        missing = [source.name for source in config.sources if source.name not in sources]
        if missing:
            raise CompatibilityError(
                "retrieval source", value=missing[0], limit=f"one of: {', '.join(sorted(sources))}",
                mend="take it out of the config or train it",
            )  # fmt: skip
        self.config = config
        self.sources = tuple(sources[source.name] for source in config.sources)
        if all(source.needs_history for source in self.sources):
            raise ConfigError(
                "retrieval sources", value=[source.name for source in config.sources],
                limit="at least one that answers without a history", mend="add the popularity source",
            )  # fmt: skip
        self._fresh = fresh
        self._weight_S: Float32 = np.array([source.weight for source in config.sources], np.float32)
        self._cold_start = ColdStart(config.cold_start, self.source_names, interactions_I)

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names in the order of mask bits and score columns."""
        return tuple(source.name for source in self.config.sources)

    def __call__(self, queries: Sequence[Query]) -> list[Candidates]:
        """Candidates of each query, best merged score first, none that a hard rule forbids.

        The merged score is the sum over sources of weight times z-score within the request, the weights shared between
        content and collaborative sources by how many have taken the item. A query without history gets what sources
        that need none propose.
        """
        if not queries:
            return []
        most_k = max(query.k for query in queries)
        asked = [source.ask(queries) for source in self.sources]
        proposed = [
            ask.propose(max(source.quota, most_k))[0]
            for ask, source in zip(asked, self.config.sources, strict=True)
        ]
        if self._fresh is not None:
            proposed.append(self._fresh.propose(queries, most_k)[0])
        merged = [self._merge(query, [rows_BK[b] for rows_BK in proposed]) for b, query in enumerate(queries)]
        scored = [ask.score([rows for rows, _ in merged]) for ask in asked]
        return [
            self._candidates(query, *merged[b], np.stack([scores[b] for scores in scored], axis=1))
            for b, query in enumerate(queries)
        ]

    def _merge(self, query: Query, proposed: Sequence[Int32]) -> tuple[Int32, UInt32]:
        """What each source proposed up to its quota, whatever k other requests of the batch have."""
        quotas = [max(source.quota, query.k) for source in self.config.sources]
        within = [rows[:quota] for rows, quota in zip(proposed, quotas, strict=False)]
        return _union([*within, *proposed[len(quotas) :]])

    def _candidates(self, query: Query, rows: Int32, mask: UInt32, score_KS: Float32) -> Candidates:
        answers_S = ~np.isnan(score_KS).all(axis=0)
        weight_S: Float32 = np.where(answers_S, self._weight_S, np.float32(0)).astype(np.float32)
        if not weight_S.any():  # only sources that weigh nothing beside others have answered
            weight_S = np.where(answers_S, np.float32(1), np.float32(0)).astype(np.float32)
        weight_KS = self._cold_start.weights(weight_S, rows)
        score_K = (np.nan_to_num(z_scores(score_KS)) * weight_KS).sum(axis=1)
        found = Candidates(rows, score_K.astype(np.float32), mask, score_KS).sorted()
        goes_on_K = np.arange(len(rows)) < max(self.config.num_candidates, query.k)
        goes_on_K |= found.source_mask >> np.uint32(len(self.sources)) > 0
        return found.take(goes_on_K)


def _union(proposed: Sequence[Int32]) -> tuple[Int32, UInt32]:
    """Rows that any source proposed, ascending, and the mask of who did."""
    parts = [rows[rows >= 0] for rows in proposed]
    bits = np.repeat(np.uint32(1) << np.arange(len(parts), dtype=np.uint32), [len(part) for part in parts])
    rows, inverse = np.unique(np.concatenate(parts), return_inverse=True)
    mask = np.zeros(len(rows), np.uint32)
    np.bitwise_or.at(mask, inverse, bits)
    return rows.astype(np.int32), mask


def z_scores(score_KS: Float32) -> Float32:
    """Each source's scores less their mean, over their deviation, within one request.

    NaN stays NaN; a source whose scores are all alike, or that has none, gets zeros for what it has.
    """
    known_KS = ~np.isnan(score_KS)
    count_S = np.maximum(known_KS.sum(axis=0), 1)
    mean_S = np.where(known_KS, score_KS, 0).sum(axis=0) / count_S
    centred_KS = score_KS - mean_S
    deviation_S = np.sqrt(np.where(known_KS, centred_KS**2, 0).sum(axis=0) / count_S)
    scaled_KS: Float32 = (centred_KS / np.where(deviation_S > 0, deviation_S, 1)).astype(np.float32)
    return scaled_KS
