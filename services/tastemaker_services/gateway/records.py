"""What an answer leaves behind: its record in the decision log, and the body that the client gets."""

import logging
from typing import Any, Final

from tastemaker.experiments.assigned import Assigned
from tastemaker.types import Candidates, Origin
from tastemaker_services.gateway.answers import decision_of
from tastemaker_services.gateway.assigning import OUTSIDE, count, told
from tastemaker_services.gateway.decisions import DecisionLog
from tastemaker_services.gateway.pages import rules_of
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.queries import Question
from tastemaker_services.gateway.run import Run
from tastemaker_services.gateway.users import past_hash
from tastemaker_services.web.schema import RecommendationRequest

log = logging.getLogger(__name__)
NOTHING_FITS: Final = "nothing-fits"
"""Note on an empty list: filters, exclusions and hard rules together leave no item."""


class Records:
    """Writes them. For one event loop.

    Args:
        decisions: Gets a record of every answer.
        catalogue: Of the answers.
    """

    def __init__(self, decisions: DecisionLog, catalogue: str) -> None:
        self._decisions, self._catalogue = decisions, catalogue

    def put(
        self,
        run: Run,
        question: Question,
        request: RecommendationRequest,
        slate: Candidates,
        origin: Origin,
        **more: Any,
    ) -> None:
        """Counts an answer for its variant and hands its record on; `more` are further fields of the record."""
        user, assigned, pin, query, sides = question
        count(self._catalogue, assigned)
        known: dict[str, Any] = {
            "request": rules_of(request),
            "past_hash": past_hash(user),
            "forced": run.forced,
            "sides": [side.logged() for side in sides],
        }
        decision = decision_of(
            request_id=run.request_id,
            timestamp_ms=query.now_ms,
            catalogue=self._catalogue,
            origin=origin,
            face=pin.face,
            query=query,
            slate=slate,
            assigned=assigned,
            rungs=run.degraded,
            cached_from=run.cached_from,
            timings_ms=run.timings_ms,
            **known | more,
        )
        self._decisions.put(decision)

    def put_aside(
        self, run: Run, question: Question, request: RecommendationRequest, slate: Candidates, origin: Origin
    ) -> None:
        """The same once an answer is on its way: what fails is logged, and its record counts as dropped."""
        try:
            self.put(run, question, request, slate, origin)
        except Exception:
            log.exception("a decision record failed", extra={"request_id": run.request_id})
            self._decisions.drop(1, "it could not be made")


def body_of(run: Run, pin: Pin, items: list[dict[str, Any]], assigned: Assigned = OUTSIDE) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "request_id": run.request_id,
        "items": items,
        **told(assigned),
        "bundle": pin.face.bundle_id,
        "bundle_version": pin.version,
        "degraded": run.degraded,
        "notes": [] if items else [NOTHING_FITS],
        "forced": run.forced,
        "cached": run.cached_from is not None,
        "cached_from": run.cached_from,
        "timings_ms": run.timings_ms,
    }
