"""A request in the terms of one bundle: ids become rows, what nobody knows is counted, what the user refused is out.

What a new user answered stands in for a past; of a user who opted out neither past nor answers are in the query.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tastemaker import telemetry
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.interleaving import LoggedSide
from tastemaker.features.places import CONTEXT_LOCATION, Place
from tastemaker.models.popularity import SEPARATOR
from tastemaker.types import Candidates, Float32, Query
from tastemaker.users.profile import DEMOGRAPHIC, Onboarding, Profile, demographic_group
from tastemaker_services.gateway.answers import newest_once
from tastemaker_services.gateway.face import BundleFace, split_context
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.users import User
from tastemaker_services.web.schema import RecommendationRequest


class Side(NamedTuple):
    """One of two variants whose picks one list is to hold: its bundle and query, and the query without what the variant changes.

    Once the list is made also the variant's own slate, and what each stage answered for that.
    """

    pin: Pin
    query: Query
    plain: Query
    slate: Candidates | None = None
    seen: Mapping[str, Candidates] | None = None

    def logged(self) -> str:
        """See `LoggedSide`."""
        return LoggedSide(self.pin.face.bundle_id, self.query.policy).logged()


class Question(NamedTuple):
    """A request's user (None where nothing could be read), variants, bundle and query; of an interleaving also its two sides."""

    user: User | None
    assigned: Assigned
    pin: Pin
    query: Query
    sides: tuple[Side, ...] = ()


def query_of(
    request: RecommendationRequest,
    user: User | None,
    face: BundleFace,
    catalogue: str,
    *,
    history_length: int,
    now_ms: int,
    policy: str = "",
) -> Query:
    """The query of a request.

    Items that the user disliked or hid are excluded, as those are that the request names: hard rules, on every rung. A
    new user's liked items are the visit, before the session; whose categories and tags of interest, and whose demographic
    group, raise what is popular there. A request of a user who opted out has its context alone: the session is excluded.

    Args:
        request: As it came.
        user: None where nothing could be read.
        face: Of the bundle that answers.
        catalogue: For the counts.
        history_length: Newest items that the stages see; older ones are excluded all the same.
        now_ms: When the request came.
        policy: What the variant changes, see `Query`.
    """
    session, unknown_session = face.rows(request.session)
    exclude, unknown_exclude = face.rows(request.exclude)
    profile = user.profile if user else Profile()
    is_new = user is not None and user.is_new and profile.personalise
    answers = profile.onboarding if profile.personalise else Onboarding()
    past, _ = face.rows(user.history if user else ())
    liked, _ = face.rows(answers.liked if is_new else ())
    refused, _ = face.rows([*answers.disliked, *(user.state.refused() if user and user.state else ())])
    if unknown := unknown_session + unknown_exclude:
        telemetry.UNKNOWN_ITEMS.labels(catalogue).inc(unknown)
    context, unknown_keys = split_context(request.context, face.context_keys)
    if unknown_keys:
        telemetry.UNKNOWN_CONTEXT.labels(catalogue).inc(unknown_keys)
    visit_L = newest_once(np.concatenate([liked, session]))
    at_home = _home(profile) if profile.personalise else {}
    if not profile.personalise:
        refused, visit_L = session, session[:0]
    seen_L = newest_once(np.concatenate([past, visit_L]))
    query = Query(
        history_L=seen_L[-history_length:],
        k=request.k,
        user_id=request.user_id,
        context=(_of_profile(profile, now_ms) if is_new else {}) | at_home | context,
        exclude=np.concatenate([exclude, refused, seen_L[:-history_length]]),
        allowed=face.allowed(request.filters, request.context),
        now_ms=now_ms,
        visit_L=visit_L,
        record=user.record if user and user.state else None,
        interest_D=_interest(profile, face) if is_new else None,
        lineage=face.overlay.lineage,
        policy=policy,
    )
    return face.ruled(query)


def _of_profile(profile: Profile, now_ms: int) -> dict[str, str]:
    """What the profile of a new user adds to the context of a request."""
    found = {
        DEMOGRAPHIC: demographic_group(profile.demographics, now_ms),
        "category": SEPARATOR.join(profile.onboarding.categories),
        "tag": SEPARATOR.join(profile.onboarding.tags),
    }
    return {key: value for key, value in found.items() if value}


def _home(profile: Profile) -> dict[str, str]:
    """Where the user is at home, to about a kilometre: where a request comes from that does not say it."""
    home = profile.location
    return {} if home is None else {CONTEXT_LOCATION: Place(home.lat, home.lon).coarse().text()}


def _interest(profile: Profile, face: BundleFace) -> Float32 | None:
    """The vector of what the user said, where it is of the bundle's content space."""
    interest = profile.interest
    if interest is None or not interest.vector or interest.fingerprint != face.content_fingerprint:
        return None
    return np.array(interest.vector, np.float32)
