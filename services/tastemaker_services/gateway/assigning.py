"""A request as experiments see it, and what an answer says of them. Who gets what, `experiments.router` decides."""

from collections.abc import Awaitable, Mapping
from typing import Any, Final

from tastemaker import telemetry
from tastemaker.errors import ExperimentError, StateError
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.eligibility import AGE, Subject
from tastemaker.users.profile import Demographics, age_at
from tastemaker_services.gateway.run import Run
from tastemaker_services.gateway.users import User
from tastemaker_services.web.access import VARIANT_HEADER
from tastemaker_services.web.problems import invalid
from tastemaker_services.web.schema import RecommendationRequest

OUTSIDE: Final = Assigned()
"""In no experiment."""


async def assigned_or_outside(run: Run, answer: Awaitable[Assigned]) -> Assigned:
    """What is awaited; nothing where the state cannot be read.

    Raises:
        Problem: 422 where a tester asks for what is not there.
    """
    try:
        return await answer
    except StateError:
        run.fall_to("no-experiment")
        return OUTSIDE
    except ExperimentError as error:
        raise invalid(VARIANT_HEADER, f"{VARIANT_HEADER}: {error}") from error


def subject_of(
    request: RecommendationRequest, user: User | None, variants: Mapping[str, str], now_ms: int
) -> Subject:
    """Whom a request is from. Of a user who could not be read, or of whom nothing may be, only what the request says."""
    may_be_read = user is not None and user.profile.personalise
    return Subject(
        user_id=request.user_id,
        visitor_id=request.visitor_id,
        session_id=request.session_id,
        context=request.context,
        attributes=_attributes(user.profile.demographics, now_ms) if user is not None and may_be_read else {},
        is_known=not user.is_new if user is not None and may_be_read else None,
        forced=variants,
    )


def _attributes(known: Demographics, now_ms: int) -> Mapping[str, str]:
    age = age_at(known, now_ms)
    told = {AGE: None if age is None else str(age), "gender": known.gender}
    return known.more | {name: value for name, value in told.items() if value is not None}


def told(assigned: Assigned) -> dict[str, Any]:
    """What the body of an answer says of experiments."""
    first = assigned.shown
    return {
        "experiment": first.experiment if first else None,
        "variant": first.variant if first else None,
        "assignments": [
            {
                "layer": one.layer,
                "experiment": one.experiment,
                "variant": one.variant,
                "forced": bool(assigned.forced),
            }
            for one in assigned.in_effect
        ],
    }


def count(catalogue: str, assigned: Assigned) -> None:
    """Counts an answer for each of its variants, of an interleaving for both, or why it is in no experiment."""
    for one in assigned.assignments:
        for variant in one.teams or (one,):
            telemetry.SERVED.labels(catalogue, one.experiment, variant.variant).inc()
    if assigned.forced:
        telemetry.NOT_COUNTED.labels(catalogue, "forced").inc()
    if assigned.held_out:
        telemetry.NOT_COUNTED.labels(catalogue, "holdout").inc()
