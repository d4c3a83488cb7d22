"""A version's first answers by the whole graph, before the gateway answers from it: recorded requests, one at a time.

The stages' replicas have tried their own parts, see `rehearsal`; here connections, batches and all stages together are.
"""

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tastemaker.errors import StateError
from tastemaker.stages.recorded import Recorded
from tastemaker.types import Query
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.versions.giving_way import quiet_moment
from tastemaker_services.versions.rehearsal import SlowAnswersError, check_lengths, check_scores, made_queries

STAGE_SECONDS: Final = 20.0
"""A cold stage may take that long for its first call."""
PATIENCE_SECONDS: Final = 0.25
"""How long each of them waits for a moment without users' requests."""
LEAST: Final = 5
"""Fewer answers say nothing of how fast a version is."""


class WarmUp:
    """Tries versions. For one event loop.

    Args:
        stages: The graph.
        recorded: Requests to try; StateError where they cannot be read.
        deadline_ms: What a request has; most of the answers must come in that time.
        is_busy: Whether a user's request is under way, which goes first.
    """

    def __init__(
        self,
        stages: Stages,
        recorded: Callable[[], Awaitable[Sequence[Recorded]]],
        deadline_ms: float,
        is_busy: Callable[[], bool],
    ) -> None:
        self._stages, self._recorded, self._deadline_ms = stages, recorded, deadline_ms
        self._is_busy = is_busy

    async def __call__(self, face: BundleFace, *, may_be_slow: bool) -> None:
        """Lets pass a version that answers.

        Args:
            face: Of the version.
            may_be_slow: Nothing else can answer: a slow version is better than none.

        Raises:
            UnfitError: Its answers are empty, not finite, or mostly too late.
            StageError: A stage does not answer.
        """
        took_ms, lengths = [], []
        for query in await self._queries(face):
            await quiet_moment(self._is_busy, PATIENCE_SECONDS)
            started = time.perf_counter()
            lengths.append(await self._answer(face, query))
            took_ms.append((time.perf_counter() - started) * 1000)
        check_lengths(lengths)
        typical_ms = statistics.median(took_ms[1:] or took_ms)  # the first one met everything cold
        if not may_be_slow and len(took_ms) >= LEAST and typical_ms > self._deadline_ms:
            raise SlowAnswersError(
                "half of a version's first answers", value=f"{typical_ms:.0f} ms",
                limit=f"at most {self._deadline_ms:.0f} ms each", mend="make its stages cheaper, or gateway.deadline_ms longer",
            )  # fmt: skip

    async def _queries(self, face: BundleFace) -> list[Query]:
        try:
            recorded = [one.query(face.row_of) for one in await self._recorded()]
        except StateError:  # made ones say enough
            recorded = []
        return [face.ruled(query) for query in (*made_queries(face.overlay.num_bundle), *recorded)]

    async def _answer(self, face: BundleFace, query: Query) -> int:
        """How many items a user would be shown."""
        found = await self._stages.retrieve((face.sha256, query), STAGE_SECONDS)
        ranked = await self._stages.rank(
            (face.sha256, query, check_scores("retrieval", found)), STAGE_SECONDS
        )
        slate = await self._stages.rerank(
            (face.sha256, query, check_scores("ranking", ranked)), STAGE_SECONDS
        )
        return len(face.finish(query, check_scores("reranking", slate)))
