"""Makes a request a question: reads its user, draws its variants, pins its bundle, and puts it in that bundle's rows.

What cannot be read in time is left out, and the run's notes say so. What a query has of a request, `queries` says.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from tastemaker.config import Settings
from tastemaker.errors import StateError
from tastemaker.experiments.assigned import Assigned
from tastemaker.experiments.eligibility import Subject
from tastemaker.features.user_state import UserState
from tastemaker.registry.live import CHAMPION
from tastemaker.stages.policy import beside
from tastemaker.types import Origin, Query
from tastemaker.users.profile import Profile
from tastemaker_services.gateway.answers import keeps_features
from tastemaker_services.gateway.assigning import assigned_or_outside, subject_of
from tastemaker_services.gateway.breakers import Breakers
from tastemaker_services.gateway.face import BundleFace
from tastemaker_services.gateway.interleaving import sides_of
from tastemaker_services.gateway.pins import Pin
from tastemaker_services.gateway.policies import policy_for
from tastemaker_services.gateway.queries import Question, query_of
from tastemaker_services.gateway.run import Run
from tastemaker_services.gateway.users import User
from tastemaker_services.web.problems import Problem
from tastemaker_services.web.schema import RecommendationRequest

T = TypeVar("T")
NOT_PERSONALISED: Final = User([], UserState(), b"", profile=Profile(personalise=False))
"""Of a request that asks for nothing personal: as one who opted out."""
_SEED_DIGITS: Final = 15
"""Of the request's id: what luck decides can be told from the log."""


class Questions:
    """Makes them. For one event loop.

    Args:
        settings: Catalogue, lengths, shares.
        breakers: Of what is read.
        read_user: A user's history and record; StateError where they cannot be read.
        assign: Whom a request is from, time and origin -> assignments; StateError likewise.
        pin: Alias -> what it answers from; None where that is not ready.
        standing: The catalogue's own rules as the text of a policy.
    """

    def __init__(
        self,
        settings: Settings,
        breakers: Breakers,
        *,
        read_user: Callable[[str], Awaitable[User]],
        assign: Callable[[Subject, int, Origin], Awaitable[Assigned]],
        pin: Callable[[str], Pin | None],
        standing: Callable[[], str],
    ) -> None:
        self._settings, self._breakers = settings, breakers
        self._read_user, self._assign, self._pin, self._standing = read_user, assign, pin, standing

    async def of(self, run: Run, request: RecommendationRequest, origin: Origin, now_ms: int) -> Question:
        """A request in the terms of the bundle that answers it.

        Of a request that is not to be personalised, nothing that is kept of its user is read but the experiment's draw.

        Raises:
            Problem: 422 where a tester asks for what is not there, 503 before the first bundle is ready.
        """
        user = await self.reader(run, request.user_id, request.personalise)
        subject = subject_of(request, user, run.variants, now_ms)
        assign = partial(self._assign, subject, now_ms, origin)
        assigned = await assigned_or_outside(run, self._read(run, "experiment", assign))

        def ask(pin: Pin, policy: str) -> Query:
            return self.query(run, request, user, pin.face, now_ms=now_ms, origin=origin, policy=policy)

        if assigned.interleaved is not None:
            if sides := sides_of(run, self._settings.catalogue, assigned, self._pin, ask):
                return Question(user, assigned, sides[0].pin, sides[0].plain, sides)
            assigned = assigned.without_interleaving()
        pin, assigned = self.pinned(run, assigned)
        return Question(user, assigned, pin, ask(pin, policy_for(run, assigned)))

    async def reader(self, run: Run, user_id: str, personalise: bool) -> User | None:
        """For whom a list is made: the user as of now, or where it is not to be personal somebody of whom nothing is read.

        None where nothing can be read.
        """
        if not personalise:
            return NOT_PERSONALISED
        try:
            user = await self._read(run, "history", lambda: self._read_user(user_id))
        except StateError:
            run.fall_to("no-history")
            return None
        if user.state is None:
            run.fall_to("no-record")
        return user

    async def _read(self, run: Run, part: str, read: Callable[[], Awaitable[T]]) -> T:
        seconds, fair = run.left_seconds("history"), run.fair_seconds("history")
        return await self._breakers.read(part, read, seconds, fair)

    def pinned(self, run: Run, assigned: Assigned) -> tuple[Pin, Assigned]:
        """The bundle to answer from. Where it is not a variant's, the answer is outside of that experiment.

        Raises:
            Problem: 503 before the first bundle is ready.
        """
        if assigned.alias is not None:
            pin = self._pin(assigned.alias)
            if pin is not None:
                return pin, assigned
            run.fall_to("champion")
            assigned = assigned.without(assigned.alias)
        champion = self._pin(CHAMPION)
        if champion is None:
            raise Problem(
                503, "not-ready", "no bundle is ready yet: see /readyz", headers={"retry-after": "1"}
            )
        return champion, assigned

    def query(
        self,
        run: Run,
        request: RecommendationRequest,
        user: User | None,
        face: BundleFace,
        *,
        now_ms: int,
        origin: Origin = "live",
        policy: str = "",
    ) -> Query:
        """A request in the rows of a bundle, with luck of its own, under a variant's policy and the catalogue's rules."""
        query = query_of(
            request, user, face, self._settings.catalogue, history_length=self._settings.state.history_length,
            now_ms=now_ms, policy=beside(policy, self._standing()),
        )  # fmt: skip
        keep = keeps_features(run.request_id, self._settings.gateway.features_share) or request.explain
        return replace(
            query,
            keep_features=keep,
            seed=int(run.request_id[:_SEED_DIGITS], 16),
            explore=origin == "live",
            traceparent=run.trace.parent if run.trace else "",
        )
