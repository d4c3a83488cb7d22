"""One query's way through the graph, watched for one item: what each stage makes of it, and the list at the end."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from tastemaker.models.contributions import Contributions
from tastemaker.stages.explain import Explanation, Reordered, SourceSays, among, explanation, rank_of
from tastemaker.stages.policy import policy_of
from tastemaker.types import Candidates, Query
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.replicas.calls import StageError

SECONDS: Final = 2.0
"""That each stage may take: nobody waits for a page."""


class Watched:
    """The way of one query. Each stage is asked once for the list, whatever is asked of it here.

    Args:
        stages: The graph.
        face: Of the bundle that answers.
        query: As for an answer.
    """

    def __init__(self, stages: Stages, face: BundleFace, query: Query) -> None:
        self._stages, self._face, self._query = stages, face, query
        self._until = policy_of(query.policy).until
        self._answers: dict[str, Candidates | None] = {}
        self.silent: list[str] = []
        """Stages that did not answer."""

    async def explanation(self, row: int, rules: Sequence[str]) -> Explanation:
        """What happens to the item of a row that `rules` forbid."""
        says, retrieved = await asyncio.gather(
            self._ask("say", row), self._answer("retrieve")
        )  # side by side: neither waits for what the other finds
        ranked, supposed = await self._ranked(retrieved, row, says or ())
        reordered, contributions = await asyncio.gather(
            self._reordered(retrieved, ranked, row), self._contributions(ranked, supposed, row)
        )
        return explanation(
            row, rules=rules, says=says or (), retrieved=retrieved, ranked=ranked, supposed=supposed,
            reordered=reordered, feature_names=self._face.feature_names, contributions=contributions,
        )  # fmt: skip

    async def slate(self) -> Candidates | None:
        """The list; None where a stage that it needs does not answer."""
        best = await self._answer("retrieve")
        for stage in ("rank", "rerank")[: ("retrieve", "rank", "rerank").index(self._until)]:
            if best is not None:
                best = await self._answer(stage, best) if len(best) else best
        return None if best is None else self._face.finish(self._query, best)

    async def _ranked(
        self, retrieved: Candidates | None, row: int, says: Sequence[SourceSays]
    ) -> tuple[Candidates | None, Candidates | None]:
        """The ranked candidates, and where the item is none of them those with it."""
        if self._until == "retrieve" or retrieved is None:
            return None, None
        ranked = await self._answer("rank", retrieved) if len(retrieved) else retrieved
        if ranked is None or not says or rank_of(row, retrieved.item_index) is not None:
            return ranked, None
        return ranked, await self._ask("rank", among(retrieved, row, says))

    async def _contributions(
        self, ranked: Candidates | None, supposed: Candidates | None, row: int
    ) -> Contributions | None:
        """Of the item among the candidates that it was ranked with; None where no ranker ranked it."""
        seen = ranked if supposed is None else supposed
        if seen is None or seen.features_KF is None or rank_of(row, seen.item_index) is None:
            return None
        found: Contributions | None = await self._ask("contributions", seen, row)
        return found

    async def _reordered(
        self, retrieved: Candidates | None, ranked: Candidates | None, row: int
    ) -> Reordered | None:
        best = retrieved if ranked is None else ranked
        if best is None:
            return None
        if ranked is not None and self._until == "rerank":
            found: Reordered | None = await self._ask("reorder", ranked, row)
            if found is not None:
                return found
        shown = self._face.finish(self._query, best).item_index
        return Reordered(None, (), rank_of(row, shown))

    async def _answer(self, stage: str, *rest: Any) -> Candidates | None:
        """A stage's answer for the list."""
        if stage not in self._answers:
            self._answers[stage] = await self._ask(stage, *rest)
        return self._answers[stage]

    async def _ask(self, stage: str, *rest: Any) -> Any:
        try:
            call = getattr(self._stages, stage)
            return await call((self._face.sha256, self._query, *rest), SECONDS)
        except StageError:
            self.silent.append(stage)
            return None
