"""Why a user would be shown an item now, or why not: the graph's stages are asked as for an answer, and watched.

What is told is of this moment and of a request without luck: items that are shown to learn of them are not. Of a request
that was answered, `replay` tells. Nothing is logged, cached or counted as an answer.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from tastemaker.stages.explain import Explanation, Reordered, SourceSays, Verdict, among, explanation, rank_of
from tastemaker.stages.policy import policy_of
from tastemaker.types import Candidates, Origin, Query
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.queries import Question
from tastemaker_services.replicas.calls import StageError
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import ExplainRequest

SECONDS: Final = 2.0
"""That each stage may take: nobody waits for a page."""
_WHY: Final[dict[Verdict, str]] = {
    "shown": "it is in the list",
    "hard-rule": "a hard rule keeps it out: {rules}",
    "not-proposed": "no source proposes it",
    "below-num-candidates": "its merged score is not among the {num_candidates} best of all proposed",
    "behind-k": "others stand before it",
    "unknown": "retrieval does not answer now",
}


class Explainer:
    """Explains. For one event loop.

    Args:
        gateway: Makes a query of a request, as for an answer.
        stages: The graph.
    """

    def __init__(self, gateway: Gateway, stages: Stages) -> None:
        self._gateway, self._stages = gateway, stages

    async def explain(self, request: ExplainRequest, origin: Origin) -> dict[str, Any]:
        """What happens to `request.item_id` where the rest of the request is answered.

        Where a stage does not answer, `degraded` names it, and what lies behind it is not told.

        Raises:
            Problem: 404 for an item that the catalogue lacks; 429 where too much is under way; 503 before the first bundle is
                ready.
        """
        with self._gateway.admit("batch"):
            return await self._explain(request, origin)

    async def _explain(self, request: ExplainRequest, origin: Origin) -> dict[str, Any]:
        run, now_ms = self._gateway.run(1000 * SECONDS), time.time_ns() // 1_000_000
        question = await self._gateway.question(run, request, origin, now_ms)
        if question.sides:  # the control's way; what another's picks would do to the list is not asked
            question = question._replace(query=question.sides[0].query)
        face = question.pin.face
        row = face.row_of(request.item_id)
        if row is None:
            detail = f"item_id {request.item_id[:60]!r} is not in the catalogue: correct it"
            raise Problem(404, "unknown-item", detail, field="item_id")
        query = replace(question.query, keep_features=True, explore=False)
        watched = _Watched(self._stages, face, query, row, policy_of(query.policy).until)
        rules = rules_against(request.item_id, row, request, question)
        found = await watched.explanation(rules)
        return {
            **self._gateway.body(run, question.pin, [], question.assigned),
            "item_id": request.item_id,
            "verdict": found.verdict,
            "why": _WHY[found.verdict].format(
                rules=", ".join(found.rules), num_candidates=found.num_candidates
            ),
            **_plain(found),
            "degraded": [*run.degraded, *watched.silent],
            "personalised": question.user is not None and question.user.profile.personalise,
            "record_age_ms": _record_age(question, now_ms),
        }


def until_of(question: Question) -> str:
    """The last stage that the variant uses."""
    return policy_of(question.query.policy).until


def rules_against(item_id: str, row: int, request: ExplainRequest, question: Question) -> list[str]:
    """Names of all hard rules that keep an item from a request, whatever it scores."""
    user = question.user
    refused = {*(user.state.refused() if user and user.state else ())}
    disliked = user.profile.onboarding.disliked if user and user.profile.personalise else ()
    lists = {
        "excluded": request.exclude,
        "in-session": request.session,
        "already-taken": user.history if user else (),
        "disliked-or-hidden": (*refused, *disliked),
    }
    named = [name for name, ids in lists.items() if item_id in ids]
    face = question.pin.face
    ruled = [f"{rule.kind}-rule" for rule in face.rules_against(question.query, row)]
    return face.broken_rules(row, request.filters, request.context) + ruled + named


def _record_age(question: Question, now_ms: int) -> int | None:
    """Since the newest event of the user's record; None where there is none."""
    state = question.user.state if question.user else None
    return now_ms - state.last_ms if state is not None and state.last_ms else None


class _Watched:
    """One query's way through the graph."""

    def __init__(self, stages: Stages, face: BundleFace, query: Query, row: int, until: str) -> None:
        self._stages, self._face, self._query, self._row, self._until = stages, face, query, row, until
        self.silent: list[str] = []
        """Stages that did not answer."""

    async def explanation(self, rules: Sequence[str]) -> Explanation:
        says, retrieved = await asyncio.gather(
            self._ask("say", self._row), self._ask("retrieve")
        )  # side by side: neither waits for what the other finds
        ranked, supposed = await self._ranked(retrieved, says or ())
        reordered = await self._reordered(retrieved, ranked)
        return explanation(
            self._row, rules=rules, says=says or (), retrieved=retrieved, ranked=ranked, supposed=supposed,
            reordered=reordered, feature_names=self._face.feature_names,
        )  # fmt: skip

    async def _ranked(
        self, retrieved: Candidates | None, says: Sequence[SourceSays]
    ) -> tuple[Candidates | None, Candidates | None]:
        """The ranked candidates, and where the item is none of them those with it."""
        if self._until == "retrieve" or retrieved is None:
            return None, None
        ranked = await self._ask("rank", retrieved) if len(retrieved) else retrieved
        if ranked is None or not says or rank_of(self._row, retrieved.item_index) is not None:
            return ranked, None
        return ranked, await self._ask("rank", among(retrieved, self._row, says))

    async def _reordered(self, retrieved: Candidates | None, ranked: Candidates | None) -> Reordered | None:
        best = retrieved if ranked is None else ranked
        if best is None:
            return None
        if ranked is not None and self._until == "rerank":
            found: Reordered | None = await self._ask("reorder", ranked, self._row)
            if found is not None:
                return found
        shown = self._face.finish(self._query, best).item_index
        return Reordered(None, (), rank_of(self._row, shown))

    async def _ask(self, stage: str, *rest: Any) -> Any:
        try:
            call = getattr(self._stages, stage)
            return await call((self._face.sha256, self._query, *rest), SECONDS)
        except StageError:
            self.silent.append(stage)
            return None


def _plain(found: Explanation) -> dict[str, Any]:
    """The parts of an explanation as JSON."""
    return {
        "rules": list(found.rules),
        "sources": [one._asdict() for one in found.sources],
        "num_candidates": found.num_candidates,
        "stages": {
            "retrieve": {"rank": found.retrieved_rank, "score": found.retrieved_score},
            "rank": {
                "rank": found.ranked_rank,
                "score": found.ranked_score,
                "would_rank": found.would_rank,
                "would_score": found.would_score,
            },
            "rerank": {"rank": found.reranked_rank, "moves": [move._asdict() for move in found.moves]},
        },
        "shown_rank": found.shown_rank,
        "features": dict(found.features),
    }
