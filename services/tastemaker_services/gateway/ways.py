"""What becomes of one item where one question is answered, in the words of `/v1/explain`."""

from dataclasses import dataclass, replace
from typing import Any, Final

from tastemaker.models.contributions import Contributions
from tastemaker.stages.explain import Explanation, Verdict
from tastemaker.types import Candidates
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.ladder import Stages
from tastemaker_services.gateway.queries import Question
from tastemaker_services.gateway.watching import Watched
from tastemaker_services.web.question_schema import ExplainRequest

NOT_IN_BUNDLE: Final = "not-in-bundle"
"""Verdict on an item that the bundle lacks and another has."""
_WHY: Final[dict[Verdict, str]] = {
    "shown": "it is in the list",
    "hard-rule": "a hard rule keeps it out: {rules}",
    "not-proposed": "no source proposes it",
    "below-num-candidates": "its merged score is not among the {num_candidates} best of all proposed",
    "behind-k": "others stand before it",
    "unknown": "retrieval does not answer now",
}
_FURTHEST: Final = ("behind-k", "below-num-candidates", "not-proposed", "hard-rule", "unknown", NOT_IN_BUNDLE)
"""Verdicts on an item that is not shown, by how far it came."""
_NOWHERE: Final = Explanation("unknown", (), (), 0)


@dataclass(frozen=True, slots=True)
class Way:
    """What became of an item in one list; `found` is None where the bundle lacks it, `slate` where the list was not asked for or did not come."""

    face: BundleFace
    found: Explanation | None
    slate: Candidates | None
    silent: list[str]

    @property
    def verdict(self) -> str:
        """See `Verdict`, and `NOT_IN_BUNDLE`."""
        return NOT_IN_BUNDLE if self.found is None else self.found.verdict

    @property
    def how_far(self) -> int:
        """How far the item came: higher is further."""
        return len(_FURTHEST) if self.verdict == "shown" else -_FURTHEST.index(self.verdict)

    def told(self) -> dict[str, Any]:
        """As JSON: verdict, its reason, and what was seen at each stage."""
        found = self.found
        if found is None:
            return {"verdict": NOT_IN_BUNDLE, "why": "the bundle lacks the item"} | _seen(_NOWHERE)
        why = _WHY[found.verdict].format(rules=", ".join(found.rules), num_candidates=found.num_candidates)
        return {"verdict": found.verdict, "why": why, **_seen(found)}


async def way_of(
    stages: Stages, request: ExplainRequest, question: Question, *, with_slate: bool = False
) -> Way:
    """The way of `request.item_id` where `question` is answered without luck."""
    face, query = question.pin.face, replace(question.query, keep_features=True, explore=False)
    watched, row = Watched(stages, face, query), face.row_of(request.item_id)
    found = None
    if row is not None:
        found = await watched.explanation(row, rules_against(request.item_id, row, request, question))
    slate = await watched.slate() if with_slate else None
    return Way(face, found, slate, watched.silent)


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


def _seen(found: Explanation) -> dict[str, Any]:
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
        "contributions": _added(found.contributions),
    }


def _added(told: Contributions | None) -> dict[str, Any] | None:
    """Contributions as JSON, the largest first; those that add nothing are left out."""
    if told is None:
        return None
    order = sorted(told.by_feature.items(), key=lambda one: -abs(one[1]))
    features = {name: value for name, value in order if value}
    return {"base": told.base, "features": features, "rest": told.rest, "log_odds": told.output}
