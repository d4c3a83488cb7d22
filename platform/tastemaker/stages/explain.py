"""Why an item is in an answer, and why another is not: the pipeline's own stages, watched for one item.

Nothing is answered differently for being explained: each stage runs as it does for an answer, and what happened to the item
is read off its output. Of an item that got nowhere it is also told what sources and ranker would have said of it.

Shape letters: K candidates, F features.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

from tastemaker.stages.policy import policy_of
from tastemaker.types import Candidates, Float32, Int32, Query

if TYPE_CHECKING:
    from tastemaker.models.contributions import Contributions
    from tastemaker.stages.retrieval import Retrieval

Verdict = Literal["shown", "hard-rule", "not-proposed", "below-num-candidates", "behind-k", "unknown"]
"""What became of an item: in the list, or at which point it was left out.

A `hard-rule` keeps it out of every search; `not-proposed` is no source's doing; `below-num-candidates` was proposed, and too
many had a better merged score; `behind-k` went all the way, and others stand before it; `unknown` says that retrieval did
not answer.
"""

FORBIDDEN: Final = "forbidden"
"""Stands for a hard rule where nobody says which."""


class SourceSays(NamedTuple):
    """One source and an item: its score, None where it has nothing to say; its rank among what it proposed, from 1."""

    source: str
    score: float | None
    rank: int | None
    num_proposed: int
    weight: float


class Move(NamedTuple):
    """A soft rule moved the item; ranks from 1."""

    rule: str
    before: int
    after: int


class Reordered(NamedTuple):
    """What reranking did to an item: its rank behind it, the rules that moved it, and its rank in the list, if it is there."""

    rank: int | None
    moves: tuple[Move, ...]
    shown_rank: int | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happened to one item on the way to one answer. Ranks count from 1; None where the item was not there.

    `would_rank` and `would_score` are the ranker's, had the item been a candidate; `features` and `contributions` are then those of that case.
    """

    verdict: Verdict
    rules: tuple[str, ...]
    sources: tuple[SourceSays, ...]
    num_candidates: int
    retrieved_rank: int | None = None
    retrieved_score: float | None = None
    ranked_rank: int | None = None
    ranked_score: float | None = None
    would_rank: int | None = None
    would_score: float | None = None
    reranked_rank: int | None = None
    moves: tuple[Move, ...] = ()
    shown_rank: int | None = None
    features: Mapping[str, float] = field(default_factory=dict)
    contributions: "Contributions | None" = None


class SaysHere(NamedTuple):
    """What a source says of one item where it is asked: of a catalogue in shards, the source of one of them.

    Its proposals are the best `most`, with their scores; `is_whole` where they are those of the whole catalogue. `score` is the item's,
    None where it is another shard's, or the source has nothing to say of it.
    """

    source: str
    weight: float
    most: int
    row: int
    score: float | None
    row_N: Int32
    score_N: Float32
    is_whole: bool


def say_here(retrieval: "Retrieval", query: Query, row: int) -> tuple[SaysHere, ...]:
    """What each configured source says of an item, whether it proposes it or not."""
    found = []
    weights = policy_of(query.policy).source_weights or {}
    is_here = retrieval.own is None or bool(retrieval.own.among(np.array([row], np.int32))[0] >= 0)
    for config in retrieval.config.sources:
        asked, most = retrieval.ask(config.name, [query]), max(config.quota, query.k)
        row_N, score_N = (proposed_BN[0] for proposed_BN in asked.propose(most))
        score = float(asked.score([np.array([row], np.int32)])[0][0]) if is_here else np.nan
        found.append(
            SaysHere(
                config.name, weights.get(config.name, config.weight), most, row,
                score if np.isfinite(score) else None, row_N[row_N >= 0], score_N[row_N >= 0],
                retrieval.own is None or retrieval.is_light(config.name),
            )
        )  # fmt: skip
    return tuple(found)


def joined(shards: Sequence[tuple[SaysHere, ...]]) -> tuple[SourceSays, ...]:
    """What the sources say of an item of a catalogue, of what those of its shards, one or more, say."""
    return tuple(_joined(said) for said in zip(*shards, strict=True))


def _joined(said: Sequence[SaysHere]) -> SourceSays:
    one = said[0]
    row_N = one.row_N
    if not one.is_whole:
        row_N, score_N = (np.concatenate([getattr(s, name) for s in said]) for name in ("row_N", "score_N"))
        row_N = row_N[np.lexsort((row_N, -score_N))[: one.most]]
    score = next((s.score for s in said if s.score is not None), None)
    return SourceSays(one.source, score, rank_of(one.row, row_N), len(row_N), one.weight)


def moves(steps: Iterable[tuple[str, Candidates]], ranked: Candidates, row: int) -> tuple[Move, ...]:
    """The rules that moved an item.

    Args:
        steps: Each rule's name with the list as it left it, in the order in which they apply.
        ranked: The list before the first of them.
        row: Of the item.
    """
    before, found = rank_of(row, ranked.item_index), []
    for rule, slate in steps:
        after = rank_of(row, slate.item_index)
        if before is not None and after is not None and before != after:
            found.append(Move(rule, before, after))
        before = after
    return tuple(found)


def rank_of(row: int, item_index_K: np.ndarray) -> int | None:
    """The place of an item, from 1; None where it is not there.

    >>> [rank_of(7, np.array([3, 7])), rank_of(8, np.array([3, 7]))]
    [2, None]
    """
    at = np.flatnonzero(item_index_K == row)
    return int(at[0]) + 1 if len(at) else None


def among(candidates: Candidates, row: int, says: Sequence[SourceSays]) -> Candidates:
    """The candidates and behind them the item, as if it had been proposed with what the sources say of it."""
    score_1S = np.array([[np.nan if one.score is None else one.score for one in says]], np.float32)
    item = Candidates(np.array([row], np.int32), np.zeros(1, np.float32), np.zeros(1, np.uint32), score_1S)
    return candidates.and_then(item)


def explanation(
    row: int,
    *,
    rules: Sequence[str],
    says: Sequence[SourceSays],
    retrieved: Candidates | None,
    ranked: Candidates | None,
    supposed: Candidates | None,
    reordered: Reordered | None,
    feature_names: Sequence[str] = (),
    contributions: "Contributions | None" = None,
) -> Explanation:
    """The explanation that what was seen at each stage adds up to.

    Args:
        row: Of the item.
        rules: Hard rules that forbid it.
        says: See `say`.
        retrieved: The candidates; None where retrieval did not answer.
        ranked: They as ranked, with features; None where no ranker answered.
        supposed: The ranked candidates with the item among them, where it is none of them.
        reordered: What reranking did; None where it did not answer.
        feature_names: Of the ranker.
        contributions: What each feature adds to the ranker's score.
    """
    at, ranked_at = _at(row, retrieved), _at(row, ranked)
    supposed_at = _at(row, supposed)
    seen = ranked if ranked_at is not None else supposed
    seen_at = ranked_at if ranked_at is not None else supposed_at
    shown = reordered.shown_rank if reordered else None
    return Explanation(
        verdict="unknown" if retrieved is None and not rules else _verdict(rules, says, at, reordered),
        rules=tuple(rules),
        sources=tuple(says),
        num_candidates=0 if retrieved is None else len(retrieved),
        retrieved_rank=None if at is None else at + 1,
        retrieved_score=None if retrieved is None or at is None else float(retrieved.score[at]),
        ranked_rank=None if ranked_at is None else ranked_at + 1,
        ranked_score=None if ranked is None or ranked_at is None else float(ranked.score[ranked_at]),
        would_rank=None if supposed_at is None else supposed_at + 1,
        would_score=None if supposed is None or supposed_at is None else float(supposed.score[supposed_at]),
        reranked_rank=reordered.rank if reordered else None,
        moves=reordered.moves if reordered else (),
        shown_rank=shown,
        features={} if seen is None or seen_at is None else features_of(seen, seen_at, feature_names),
        contributions=contributions,
    )


def features_of(candidates: Candidates, at: int, names: Sequence[str]) -> dict[str, float]:
    """What the ranker read of one candidate, by name; nothing where features were not kept."""
    if candidates.features_KF is None:
        return {}
    return dict(zip(names, candidates.features_KF[at].tolist(), strict=False))


def _at(row: int, candidates: Candidates | None) -> int | None:
    rank = None if candidates is None else rank_of(row, candidates.item_index)
    return None if rank is None else rank - 1


def _verdict(
    rules: Sequence[str], says: Sequence[SourceSays], at: int | None, reordered: Reordered | None
) -> Verdict:
    if reordered is not None and reordered.shown_rank is not None:
        return "shown"
    if rules:
        return "hard-rule"
    if at is None:
        return "below-num-candidates" if any(one.rank for one in says) else "not-proposed"
    return "behind-k"
