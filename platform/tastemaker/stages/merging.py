"""One list of what sources propose: united, scored in common and cut. Of one process's sources, or of the shards of a catalogue.

A shard says what each source proposes of its own rows, and the whole's proposals are the best of all shards'. Not for asking sources:
see `retrieval`; nor for which rows are whose: see `shards`. It needs neither torch nor FAISS.

Shape letters: K candidates, S sources, P what proposes: the sources, and behind them `fresh` where there is any.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Self

import numpy as np
from pydantic import Field

from tastemaker.stages.cold_start import ColdStart, ColdStartConfig
from tastemaker.stages.policy import policy_of
from tastemaker.strict import Strict
from tastemaker.types import Bool, Candidates, Float32, Int32, Query, UInt32

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


@dataclass(frozen=True, slots=True)
class ShardAnswer:
    """What the sources of one shard say to a request, of the shard's own rows.

    `row_K` ascends. `proposed_KP` is the score by which a row is proposed, NaN where it is not. A source that answers from lists at
    hand is asked for the whole catalogue by every shard: its rows are proposed in any case, and have infinity there.
    `score_KS`, `missing_sources` and `worked_seconds` are as of `Candidates`.
    """

    row_K: Int32
    proposed_KP: Float32
    score_KS: Float32
    missing_sources: int = 0
    worked_seconds: float = 0.0


class Nearest(NamedTuple):
    """The best items by one search, best first, and how many shards have not said theirs."""

    row_K: Int32
    score_K: Float32
    missing_shards: int = 0


class Merging:
    """Merges. Thread-safe.

    Args:
        sources: In mask-bit order.
        num_candidates: Most that go on; more where the request asks for more.
        cold_start: How the weights depend on how many have taken an item.
        interactions_I: How many have taken each item; unset, sources count alike for all items.
    """

    def __init__(
        self,
        sources: Sequence[SourceConfig],
        num_candidates: int,
        cold_start: ColdStartConfig,
        interactions_I: Float32 | None = None,
    ) -> None:
        self._sources, self._num_candidates = tuple(sources), num_candidates
        self._weight_S: Float32 = np.array([source.weight for source in sources], np.float32)
        self._cold_start = ColdStart(cold_start, [source.name for source in sources], interactions_I)

    @classmethod
    def parse(cls, retrieval: Mapping[str, Any], where: str, interactions_I: Float32 | None) -> Self:
        """Of the JSON of a `RetrievalConfig`.

        Raises:
            ConfigError: It is none.
        """
        sources = [SourceConfig.parse(source, f"{where}: sources") for source in retrieval["sources"]]
        cold_start = ColdStartConfig.parse(retrieval.get("cold_start", {}), f"{where}: cold_start")
        return cls(sources, retrieval["num_candidates"], cold_start, interactions_I)

    def whole(self, query: Query, parts: Sequence[ShardAnswer]) -> Candidates:
        """The candidates of a request whose shards have said these; one shard more or less changes nothing but its own rows.

        Where all have answered and searches are exact, they are those of a catalogue in one piece. Of several rows that a source
        scores alike the lower ones are proposed.
        """
        row_K = np.concatenate([part.row_K for part in parts])
        order = np.argsort(row_K, kind="stable")
        proposed_KP = np.concatenate([part.proposed_KP for part in parts])[order]
        score_KS = np.concatenate([part.score_KS for part in parts])[order]
        row_K = row_K[order]
        is_proposed_KP = ~np.isnan(proposed_KP)
        for s, source in enumerate(self._sources):
            is_proposed_KP[:, s] = best(proposed_KP[:, s], max(source.quota, query.k))
        bit_P = np.uint32(1) << np.arange(proposed_KP.shape[1], dtype=np.uint32)
        mask_K = (is_proposed_KP * bit_P).sum(axis=1).astype(np.uint32)
        goes_on = mask_K > 0
        missing = int(np.bitwise_or.reduce([part.missing_sources for part in parts]))
        return self.candidates(query, row_K[goes_on], mask_K[goes_on], score_KS[goes_on], missing)

    def candidates(
        self, query: Query, rows: Int32, mask: UInt32, score_KS: Float32, missing_sources: int
    ) -> Candidates:
        """Rows that sources have proposed, ascending, by their merged score; those that go on.

        It is the sum over sources of weight times z-score within the request. What is proposed beside the sources goes on in any
        case.
        """
        answers_S = ~np.isnan(score_KS).all(axis=0)
        weight_S: Float32 = np.where(answers_S, self._weights(query), np.float32(0)).astype(np.float32)
        if not weight_S.any():  # only sources that weigh nothing beside others have answered
            weight_S = np.where(answers_S, np.float32(1), np.float32(0)).astype(np.float32)
        weight_KS = self._cold_start.weights(weight_S, rows)
        score_K = (np.nan_to_num(z_scores(score_KS)) * weight_KS).sum(axis=1).astype(np.float32)
        found = Candidates(rows, score_K, mask, score_KS, missing_sources=missing_sources).sorted()
        goes_on_K = np.arange(len(rows)) < max(self._num_candidates, query.k)
        goes_on_K |= found.source_mask >> np.uint32(len(self._sources)) > 0
        return found.take(goes_on_K)

    def _weights(self, query: Query) -> Float32:
        """Weights (S,) of the sources, those that the query's policy changes among them."""
        changed = policy_of(query.policy).source_weights if query.policy else None
        if not changed:
            return self._weight_S
        weights = [changed.get(source.name, source.weight) for source in self._sources]
        return np.array(weights, np.float32)


def nearest(found: Sequence[tuple[Int32, Float32]], k: int, missing_shards: int = 0) -> Nearest:
    """The k best of what shards found by the same search; ties go by row.

    >>> nearest([(np.array([4, 0]), np.array([0.9, 0.5])), (np.array([7]), np.array([0.7]))], 2).row_K.tolist()
    [4, 7]
    """
    row_K = np.concatenate([rows for rows, _ in found])
    score_K = np.concatenate([scores for _, scores in found])
    first = np.lexsort((row_K, -score_K))[:k]
    return Nearest(row_K[first], score_K[first], missing_shards)


def best(score_K: Float32, num: int) -> Bool:
    """Which of some scores (K,) are among the `num` largest; of equal ones the first. NaN is none.

    >>> best(np.array([0.5, np.nan, 0.7, 0.5], np.float32), 2).tolist()
    [True, False, True, False]
    """
    known = np.flatnonzero(~np.isnan(score_K))
    first = known[np.argsort(-score_K[known], kind="stable")[:num]]
    is_best_K: Bool = np.zeros(len(score_K), bool)
    is_best_K[first] = True
    return is_best_K


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
