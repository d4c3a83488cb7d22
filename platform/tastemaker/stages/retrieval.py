"""Retrieval: several sources propose items, hard rules inside each, and one merged list comes out.

Every source then scores every candidate, whoever proposed it, so that the ranker compares like with like. Not
for ordering finely: the merged score is what stands in when there is no ranker.

Shape letters: B requests, K candidates, S sources, I catalogue, D dimension.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from pydantic import Field, field_validator

from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.stages.asking import Asking, InTurn
from tastemaker.stages.cold_start import ColdStartConfig
from tastemaker.stages.merging import Merging, ShardAnswer, SourceConfig
from tastemaker.stages.nearby import NearbyConfig
from tastemaker.stages.nearest import RecentConfig
from tastemaker.stages.overlay import FRESH
from tastemaker.stages.session import SessionConfig
from tastemaker.stages.shards import OwnRows
from tastemaker.stages.source import Asked, Source
from tastemaker.strict import Strict
from tastemaker.types import Candidates, Float32, Int32, Query, UInt32

MAX_SOURCES = 30  # bits of a source mask, less those of exploration and of pins


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
    recent: RecentConfig = Field(
        default_factory=RecentConfig, description="what the source `recent` reads of a history"
    )
    nearby: NearbyConfig = Field(
        default_factory=NearbyConfig, description="how far the source `nearby` looks"
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

    @property
    def ranked_sources(self) -> tuple[str, ...]:
        """Names of the sources whose scores are features of the ranker, in order."""
        return tuple(source.name for source in self.sources if source.is_ranked)


class _Answer(NamedTuple):
    """A source that was asked, and its proposals: rows and scores (B, K)."""

    asked: Asked
    row_BK: Int32
    score_BK: Float32


class Retrieval:
    """Asks all configured sources and merges what they propose.

    Args:
        sources: By name; those that the config does not name are left out.
        config: Which, and how they count.
        interactions_I: How many have taken each item; unset, sources count alike for all items.
        fresh: Proposes beside all others, with the next mask bit and without scores; what it proposes goes on in any case.
        asking: How they are asked; unset, in turn.
        own: Of a shard: the rows that it proposes. Then `shard_answers` answers, and a call only what these alone would make.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        config: RetrievalConfig,
        interactions_I: Float32 | None = None,
        fresh: Source | None = None,
        asking: Asking | None = None,
        own: OwnRows | None = None,
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
        self._asking, self.own = asking or InTurn(), own
        self._by_name = {
            config.name: source for config, source in zip(config.sources, self.sources, strict=True)
        }
        if fresh is not None:
            self._by_name[FRESH] = fresh
        self._light = frozenset(name for name, source in self._by_name.items() if source.is_light)
        self._quotas = {source.name: source.quota for source in config.sources}
        self._places = (*self._quotas, FRESH)
        self.merging = Merging(config.sources, config.num_candidates, config.cold_start, interactions_I)

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names in the order of mask bits and score columns."""
        return tuple(source.name for source in self.config.sources)

    def __call__(self, queries: Sequence[Query]) -> list[Candidates]:
        """Candidates of each query, best merged score first, none that a hard rule forbids.

        The merged score is the sum over sources of weight times z-score within the request, the weights shared between
        content and collaborative sources by how many have taken the item. A query without history gets what sources
        that need none propose. Sources that did not answer are in `Candidates.missing_sources`.
        """
        if not queries:
            return []
        if self.own is not None:
            found = zip(queries, self.shard_answers(queries), strict=True)
            return [self.merging.whole(query, [part]) for query, part in found]
        answers = self._answers(queries)
        merged = [self._merge(query, b, answers) for b, query in enumerate(queries)]
        scored, missing = self._scored([rows for rows, _ in merged], answers)
        return [
            self.merging.candidates(query, *merged[b], _columns(scored, b, len(merged[b][0])), missing)
            for b, query in enumerate(queries)
        ]

    def shard_answers(self, queries: Sequence[Query]) -> list[ShardAnswer]:
        """What the sources of a shard say to each query, for `Merging.whole`."""
        answers = self._answers(queries)
        proposed = [self._proposed(query, b, answers) for b, query in enumerate(queries)]
        scored, missing = self._scored([rows for rows, _ in proposed], answers)
        return [
            ShardAnswer(rows, score_KP, _columns(scored, b, len(rows)), missing)
            for b, (rows, score_KP) in enumerate(proposed)
        ]

    def ask(self, name: str, queries: Sequence[Query]) -> Asked:
        """The source of a name, asked. Of a shard it looks among own rows alone, unless it answers from lists at hand."""
        if self.own is not None and name not in self._light:
            queries = [self.own.only(query) for query in queries]
        return self._by_name[name].ask(queries)

    def is_light(self, name: str) -> bool:
        """Whether a source answers from lists at hand."""
        return name in self._light

    def _answers(self, queries: Sequence[Query]) -> dict[str, _Answer]:
        most_k = max(query.k for query in queries)
        jobs = {name: partial(self._propose, name, queries, most_k) for name in self._by_name}
        return self._asking.all(jobs, self._light)

    def _propose(self, name: str, queries: Sequence[Query], most_k: int) -> _Answer:
        asked = self.ask(name, queries)
        return _Answer(asked, *asked.propose(max(self._quotas.get(name, 0), most_k)))

    def _scored(
        self, rows: Sequence[Int32], answers: Mapping[str, _Answer]
    ) -> tuple[list[list[Float32] | None], int]:
        """Each source's scores of the rows of each query, and the bits of those that gave none."""
        scored = [self._scores(name, rows, answers) for name in self.source_names]
        return scored, sum(1 << bit for bit, scores in enumerate(scored) if scores is None)

    def _scores(
        self, name: str, rows: Sequence[Int32], answers: Mapping[str, _Answer]
    ) -> list[Float32] | None:
        answer = answers.get(name)
        return None if answer is None else self._asking.one(name, lambda: answer.asked.score(rows))

    def _merge(self, query: Query, b: int, answers: Mapping[str, _Answer]) -> tuple[Int32, UInt32]:
        """What each source proposed up to its quota, whatever k other requests of the batch have."""
        return _union([self._within(name, query, b, answers)[0] for name in self._places])

    def _within(
        self, name: str, query: Query, b: int, answers: Mapping[str, _Answer]
    ) -> tuple[Int32, Float32]:
        """The first of a source's proposals, as many as its quota says; none where it did not answer."""
        if name not in answers:
            return np.empty(0, np.int32), np.empty(0, np.float32)
        _, row_BK, score_BK = answers[name]
        most = max(self._quotas[name], query.k) if name in self._quotas else row_BK.shape[1]
        return row_BK[b, :most], score_BK[b, :most]

    def _proposed(self, query: Query, b: int, answers: Mapping[str, _Answer]) -> tuple[Int32, Float32]:
        """Own rows that any source proposed, ascending, and `ShardAnswer.proposed_KP` of them."""
        assert self.own is not None, "a shard's"
        found = []
        for name in self._places:
            rows, scores = self._within(name, query, b, answers)
            if self.is_light(name):
                rows, scores = self.own.among(rows), np.full(len(rows), np.inf, np.float32)
            found.append((rows[rows >= 0], scores[rows >= 0]))
        row_K = np.unique(np.concatenate([rows for rows, _ in found])).astype(np.int32)
        score_KP = np.full((len(row_K), len(found)), np.nan, np.float32)
        for place, (rows, scores) in enumerate(found):
            score_KP[np.searchsorted(row_K, rows), place] = scores
        return row_K, score_KP


def _columns(scored: Sequence[list[Float32] | None], b: int, num: int) -> Float32:
    """Each source's scores (K, S) of the b-th query's candidates."""
    silent_K = np.full(num, np.nan, np.float32)
    return np.stack([silent_K if scores is None else scores[b] for scores in scored], axis=1)


def _union(proposed: Sequence[Int32]) -> tuple[Int32, UInt32]:
    """Rows that any source proposed, ascending, and the mask of who did."""
    parts = [rows[rows >= 0] for rows in proposed]
    bits = np.repeat(np.uint32(1) << np.arange(len(parts), dtype=np.uint32), [len(part) for part in parts])
    rows, inverse = np.unique(np.concatenate(parts), return_inverse=True)
    mask = np.zeros(len(rows), np.uint32)
    np.bitwise_or.at(mask, inverse, bits)
    return rows.astype(np.int32), mask
