"""What a bundle's pipeline answers to requests of the past, in this process: the same pipeline that serves."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np

from tastemaker.bundle.reader import Bundle
from tastemaker.features.item_store import ItemFacts, ItemStore
from tastemaker.models.log import each_once
from tastemaker.stages.pipeline import Pipeline
from tastemaker.terminal import progress
from tastemaker.types import Query

BLOCK = 64


class Replay:
    """Answers of one bundle to visitors of whom only the session is known.

    Args:
        bundle: What answers.
        history_length: Newest items of a visitor that serving reads; older ones are excluded, no more.
        now_ms: As of when the items' counters are read.
        store_of: See `Pipeline.from_bundle`.
    """

    def __init__(
        self,
        bundle: Bundle,
        history_length: int,
        now_ms: int = 0,
        store_of: Callable[[ItemFacts], ItemStore] = ItemStore,
    ) -> None:
        self._bundle, self._history_length, self._now_ms = bundle, history_length, now_ms
        self._pipeline = Pipeline.from_bundle(bundle, store_of=store_of)

    def slates(
        self, sessions: Sequence[Sequence[str]], k: int, description: str | None = "replaying"
    ) -> list[list[str]]:
        """The list of item ids for each session, best first; without a description nothing is shown meanwhile."""
        ids = self._bundle.item_ids
        found: list[list[str]] = []
        shown = nullcontext(_unseen) if description is None else progress(description, len(sessions))
        with shown as advance:
            for start in range(0, len(sessions), BLOCK):
                block = sessions[start : start + BLOCK]
                answers = self._pipeline.recommend([self._query(session, k) for session in block])
                found += [[ids[i] for i in answer.item_index] for answer in answers]
                advance(len(block))
        return found

    def _query(self, session: Sequence[str], k: int) -> Query:
        known = [row for item in session if (row := self._bundle.index_of(item)) is not None]
        seen_L = each_once(np.asarray(known, np.int32))
        recent, older = seen_L[-self._history_length :], seen_L[: -self._history_length]
        return Query(history_L=recent, k=k, exclude=older, now_ms=self._now_ms, visit_L=seen_L)


def _unseen(_steps: int) -> None:
    """Progress that nobody is shown."""
