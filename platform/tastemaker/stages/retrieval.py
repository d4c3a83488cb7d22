"""Retrieval: several sources propose items, hard rules inside each, and one merged list comes out.

Every source then scores every candidate, whoever proposed it, so that the ranker compares like with like. Not
for ordering finely: the merged score is what stands in when there is no ranker.

Shape letters: B requests, K candidates, S sources, I catalogue, D dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
from pydantic import Field, field_validator

from tastemaker.errors import CompatibilityError, ConfigError
from tastemaker.stages.asking import Asking, InTurn
from tastemaker.stages.cold_start import ColdStart, ColdStartConfig
from tastemaker.stages.nearby import NearbyConfig
from tastemaker.stages.nearest import RecentConfig
from tastemaker.stages.overlay import FRESH
from tastemaker.stages.policy import policy_of
from tastemaker.stages.session import SessionConfig
from tastemaker.stages.source import Asked, Source
from tastemaker.strict import Strict
from tastemaker.types import Candidates, Float32, Int32, Query, UInt32

MAX_SOURCES = 30  # bits of a source mask, less those of exploration and of pins
UNSEEN: Final = frozenset({"editorial", "nearby"})
"""Sources of what no training sees: lists of people, and where requests come from."""


class SourceConfig(Strict):
    """One source's part in the merged list."""

    name: str = Field(description="name of the source")
    quota: int = Field(100, ge=1, description="items that it proposes; more where the request asks for more")
    weight: float = Field(1.0, ge=0, description="weight of its z-score in the merged score")
    ranked: bool | None = Field(
        None,
        description="whether its scores are features of the ranker; empty: of all but editorial and nearby, which no "
        "training sees",
    )

    @property
    def is_ranked(self) -> bool:
        """Whether its scores are features of the ranker."""
        return self.name not in UNSEEN if self.ranked is None else self.ranked


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


class Retrieval:
    """Asks all configured sources and merges what they propose.

    Args:
        sources: By name; those that the config does not name are left out.
        config: Which, and how they count.
        interactions_I: How many have taken each item; unset, sources count alike for all items.
        fresh: Proposes beside all others, with the next mask bit and without scores; what it proposes goes on in any case.
        asking: How they are asked; unset, in turn.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        config: RetrievalConfig,
        interactions_I: Float32 | None = None,
        fresh: Source | None = None,
        asking: Asking | None = None,
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
        self._asking = asking or InTurn()
        self._by_name = {
            config.name: source for config, source in zip(config.sources, self.sources, strict=True)
        }
        if fresh is not None:
            self._by_name[FRESH] = fresh
        self._light = frozenset(name for name, source in self._by_name.items() if source.is_light)
        self._quotas = {source.name: source.quota for source in config.sources}
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
        that need none propose. Sources that did not answer are in `Candidates.missing_sources`.
        """
        if not queries:
            return []
        most_k = max(query.k for query in queries)
        jobs = {name: partial(self._propose, name, queries, most_k) for name in self._by_name}
        answers = self._asking.all(jobs, self._light)
        merged = [self._merge(query, b, answers) for b, query in enumerate(queries)]
        rows = [rows for rows, _ in merged]
        scored = [self._scores(name, rows, answers) for name in self.source_names]
        missing = sum(1 << bit for bit, scores in enumerate(scored) if scores is None)
        return [
            replace(
                self._candidates(query, *merged[b], self._columns(scored, b, len(rows[b]))),
                missing_sources=missing,
            )
            for b, query in enumerate(queries)
        ]

    def _propose(self, name: str, queries: Sequence[Query], most_k: int) -> tuple[Asked, Int32]:
        asked = self._by_name[name].ask(queries)
        return asked, asked.propose(max(self._quotas.get(name, 0), most_k))[0]

    def _scores(
        self, name: str, rows: Sequence[Int32], answers: Mapping[str, tuple[Asked, Int32]]
    ) -> list[Float32] | None:
        answer = answers.get(name)
        return None if answer is None else self._asking.one(name, lambda: answer[0].score(rows))

    @staticmethod
    def _columns(scored: Sequence[list[Float32] | None], b: int, num: int) -> Float32:
        """Each source's scores (K, S) of the b-th query's candidates."""
        silent_K = np.full(num, np.nan, np.float32)
        return np.stack([silent_K if scores is None else scores[b] for scores in scored], axis=1)

    def _merge(
        self, query: Query, b: int, answers: Mapping[str, tuple[Asked, Int32]]
    ) -> tuple[Int32, UInt32]:
        """What each source proposed up to its quota, whatever k other requests of the batch have."""
        proposed = {name: row_BK[b] for name, (_, row_BK) in answers.items()}
        nothing = np.empty(0, np.int32)
        within = [proposed.get(name, nothing)[: max(quota, query.k)] for name, quota in self._quotas.items()]
        return _union([*within, proposed.get(FRESH, nothing)])

    def _weights(self, query: Query) -> Float32:
        """Weights (S,) of the sources, those that the query's policy changes among them."""
        changed = policy_of(query.policy).source_weights if query.policy else None
        if not changed:
            return self._weight_S
        weights = [changed.get(source.name, source.weight) for source in self.config.sources]
        return np.array(weights, np.float32)

    def _candidates(self, query: Query, rows: Int32, mask: UInt32, score_KS: Float32) -> Candidates:
        answers_S = ~np.isnan(score_KS).all(axis=0)
        weight_S: Float32 = np.where(answers_S, self._weights(query), np.float32(0)).astype(np.float32)
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
