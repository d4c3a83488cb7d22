"""A request in the terms of one bundle: ids become rows, what nobody knows is counted, what the user refused is out."""

import numpy as np

from tastemaker import telemetry
from tastemaker.types import Query
from tastemaker_services.answers import newest_once
from tastemaker_services.face import BundleFace, split_context
from tastemaker_services.schema import RecommendationRequest
from tastemaker_services.users import User


def query_of(
    request: RecommendationRequest,
    user: User | None,
    face: BundleFace,
    catalogue: str,
    *,
    history_length: int,
    now_ms: int,
) -> Query:
    """The query of a request.

    Items that the user disliked or hid are excluded, as those are that the request names: hard rules, on every rung.

    Args:
        request: As it came.
        user: None where nothing could be read.
        face: Of the bundle that answers.
        catalogue: For the counts.
        history_length: Newest items that the stages see; older ones are excluded all the same.
        now_ms: When the request came.
    """
    session, unknown_session = face.rows(request.session)
    exclude, unknown_exclude = face.rows(request.exclude)
    past, _ = face.rows(user.history if user else ())
    refused, _ = face.rows(user.state.refused() if user and user.state else ())
    if unknown := unknown_session + unknown_exclude:
        telemetry.UNKNOWN_ITEMS.labels(catalogue).inc(unknown)
    context, unknown_keys = split_context(request.context, face.context_keys)
    if unknown_keys:
        telemetry.UNKNOWN_CONTEXT.labels(catalogue).inc(unknown_keys)
    seen_L = newest_once(np.concatenate([past, session]))
    return Query(
        history_L=seen_L[-history_length:],
        k=request.k,
        user_id=request.user_id,
        context=context,
        exclude=np.concatenate([exclude, refused, seen_L[:-history_length]]),
        allowed=face.allowed(request.filters),
        now_ms=now_ms,
        visit_L=session,
        record=user.record if user and user.state else None,
    )
