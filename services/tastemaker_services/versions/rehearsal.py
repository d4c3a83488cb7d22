"""A version's first answers, before any user sees one: a replica tries its part on recorded requests, or on made ones.

So the first user meets no cold model, and a version whose answers are empty or no numbers is refused.

Shape letters: K candidates, S sources, L history.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from tastemaker.errors import ServingError
from tastemaker.pacing import step
from tastemaker.types import Candidates, Query

if TYPE_CHECKING:
    from tastemaker.stages.pipeline import Pipeline
    from tastemaker.stages.pipeline_config import Part

NUM_CANDIDATES: Final = 200
_HISTORIES: Final = (0, 1, 5, 20)


class UnfitError(ServingError):
    """A version whose first answers are not fit to be shown."""

    kind: ClassVar[str] = "other"
    """As in `telemetry.REFUSALS`."""


class EmptyAnswersError(UnfitError):
    """None of its answers has an item."""

    kind = "empty"


class NotFiniteError(UnfitError):
    """A score is not a number."""

    kind = "not-finite"


class SlowAnswersError(UnfitError):
    """Most of its answers take longer than a request has."""

    kind = "slow"


def made_queries(num_items: int) -> list[Query]:
    """Queries of now, of users with no, a short and a long past, all over a catalogue."""
    pasts = [np.linspace(0, num_items - 1, min(length, num_items)).astype(np.int32) for length in _HISTORIES]
    now_ms = time.time_ns() // 1_000_000
    return [Query(past_L, now_ms=now_ms) for past_L in pasts]


def rehearse(
    pipeline: "Pipeline",
    parts: "frozenset[Part]",
    num_items: int,
    queries: Iterable[Query],
    *,
    may_be_empty: bool = False,
) -> None:
    """Runs the parts that a process has of a pipeline on queries, one at a time.

    Args:
        pipeline: With the stages of `parts`.
        parts: Those before them are stood in for by candidates all over the catalogue.
        num_items: Of the bundle.
        queries: In the bundle's rows.
        may_be_empty: That none of the answers has an item says nothing.

    Raises:
        UnfitError: The answers cannot be shown.
        TastemakerError: A stage cannot answer at all.
    """
    lengths = [len(_answer(pipeline, parts, num_items, query)) for query in queries]
    if not may_be_empty:
        check_lengths(lengths)


def check_lengths(lengths: list[int]) -> None:
    """Refuses answers none of which has an item.

    Raises:
        EmptyAnswersError: So it is.
    """
    if lengths and not any(lengths):
        raise EmptyAnswersError(
            f"all of {len(lengths)} first answers are empty", mend="look at the bundle's sources"
        )


def check_scores(stage: str, found: Candidates) -> Candidates:
    """The candidates, whose scores are numbers.

    Raises:
        NotFiniteError: One is not.
    """
    finite_K = np.isfinite(found.score)
    if not finite_K.all():
        what = f"{stage} gives {int((~finite_K).sum())} of {len(found)} candidates a score that is not finite"
        raise NotFiniteError(what, mend="train the bundle again")
    return found


def _answer(pipeline: "Pipeline", parts: "frozenset[Part]", num_items: int, query: Query) -> Candidates:
    step()
    if "retrieve" in parts:
        found = check_scores("retrieval", pipeline.retrieve([query])[0])
    else:
        found = _made(num_items, len(pipeline.source_names))
    step()
    if "rank" in parts:
        found = check_scores("ranking", pipeline.rank([query], [found])[0])
    if "rerank" in parts:
        found = check_scores("reranking", pipeline.rerank([query], [found])[0])
    return pipeline.finish([query], [found])[0]


def _made(num_items: int, num_sources: int) -> Candidates:
    rows_K = np.unique(np.linspace(0, num_items - 1, NUM_CANDIDATES).astype(np.int32))
    score_K = np.linspace(1, 0, len(rows_K), dtype=np.float32)
    absent_KS = np.full((len(rows_K), num_sources), np.nan, np.float32)
    return Candidates(rows_K, score_K, np.zeros(len(rows_K), np.uint32), absent_KS)
