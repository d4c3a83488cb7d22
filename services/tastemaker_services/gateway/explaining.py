"""Why a user would be shown an item now, or why not: the graph's stages are asked as for an answer, and watched.

What is told is of this moment and of a request without luck: items that are shown to learn of them are not. Of a request
that was answered, `replay` tells. Nothing is logged, cached or counted as an answer.

Where the user gets two variants' picks in one list, the item's way in both variants' own lists is told, and what the draft of them makes of it
by the coins of this very request; another request of the same moment has other coins.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from tastemaker.experiments.interleaving import NOBODYS, draft_salt
from tastemaker.stages.explain import rank_of
from tastemaker.types import Candidates, Origin
from tastemaker_services.gateway.assigning import told as variants_of
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.gateway import Gateway
from tastemaker_services.gateway.interleaving import NOT_INTERLEAVED, drawn_into_one
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.queries import Question
from tastemaker_services.gateway.run import Run
from tastemaker_services.gateway.watching import SECONDS
from tastemaker_services.gateway.ways import Way, way_of
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.question_schema import ExplainRequest

_IN_DRAFT: Final = {"verdict": "shown", "why": "it is in the list"}
_LEFT_OUT: Final = {
    "verdict": "behind-k",
    "why": "others stand before it in the list of both variants' picks",
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
        question = await self._gateway.questions.of(run, request, origin, now_ms)
        lists = [question._replace(pin=side.pin, query=side.query) for side in question.sides] or [question]
        if all(one.pin.face.row_of(request.item_id) is None for one in lists):
            detail = f"item_id {request.item_id[:60]!r} is not in the catalogue: correct it"
            raise Problem(404, "unknown-item", detail, field="item_id")
        ways = await asyncio.gather(
            *(way_of(self._stages, request, one, with_slate=bool(question.sides)) for one in lists)
        )
        told = ways[0].told()
        if question.sides:
            told = _told_of_draft(question, ways, request.item_id, run)
        return {
            "request_id": run.request_id,
            "item_id": request.item_id,
            **told,
            **variants_of(question.assigned),
            "bundle": question.pin.face.bundle_id,
            "bundle_version": question.pin.version,
            "degraded": [*run.degraded, *dict.fromkeys(name for way in ways for name in way.silent)],
            "personalised": question.user is not None and question.user.profile.personalise,
            "record_age_ms": _record_age(question, now_ms),
        }


def _told_of_draft(question: Question, ways: Sequence[Way], item_id: str, run: Run) -> dict[str, Any]:
    """The item's way in the list of the variant that gives it, or else where it came furthest, and both variants' beside it."""
    assignment = question.assigned.interleaved
    assert assignment is not None
    names = [team.variant for team in assignment.teams]
    told = [way.told() for way in ways]
    lists = [
        {"variant": name, "bundle": way.face.bundle_id, **each}
        for name, way, each in zip(names, ways, told, strict=True)
    ]
    drawn = _drawn(question, ways, run.request_id)
    if drawn is None:  # an answer would be one variant's list, outside of the experiment
        run.degraded.append(NOT_INTERLEAVED)
        alone = next((place for place, way in enumerate(ways) if way.slate is not None), 0)
        return {**told[alone], "team": None, "lists": lists}
    rank, team = _place_of(item_id, *drawn)
    furthest = max(range(len(ways)), key=lambda place: ways[place].how_far)
    if rank is None:
        says = _LEFT_OUT if ways[furthest].verdict == "shown" else {}
        return {**told[furthest], **says, "shown_rank": None, "team": None, "lists": lists}
    whose = None if team == NOBODYS else names[team]
    own = told[furthest if whose is None else team]
    return {**own, **_IN_DRAFT, "shown_rank": rank, "team": whose, "lists": lists}


def _drawn(question: Question, ways: Sequence[Way], request_id: str) -> tuple[BundleFace, Candidates] | None:
    """The list of both variants' picks, and the bundle in whose rows it is; None where none can be drawn."""
    assignment = question.assigned.interleaved
    lists = [(way.face, way.slate) for way in ways if way.slate is not None]
    if assignment is None or len(lists) < len(ways):
        return None
    salt = draft_salt(assignment.experiment, assignment.generation)
    found = drawn_into_one(lists, question.query.k, salt, request_id)
    if found is None:
        return None
    place, slate = found
    side = question.sides[place]
    return side.pin.face, side.pin.face.finish(side.plain, slate)


def _place_of(item_id: str, face: BundleFace, slate: Candidates) -> tuple[int | None, int]:
    """The rank of an item in a draft, from 1, and its team; None and `NOBODYS` where it is not in it."""
    row = face.row_of(item_id)
    rank = None if row is None else rank_of(row, slate.item_index)
    if rank is None or slate.team is None:
        return rank, NOBODYS
    return rank, int(slate.team[rank - 1])


def _record_age(question: Question, now_ms: int) -> int | None:
    """Since the newest event of the user's record; None where there is none."""
    state = question.user.state if question.user else None
    return now_ms - state.last_ms if state is not None and state.last_ms else None
